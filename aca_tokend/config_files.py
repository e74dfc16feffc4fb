"""Reads the configuration file and those it includes. What they mean is decided in `aca_tokend.core.config`.

No message repeats what is in a file.
"""

from __future__ import annotations

import errno
import glob
import itertools
import os
import re
import tomllib
from typing import TYPE_CHECKING, Any, TypeGuard

from aca_tokend.core.config import parse
from aca_tokend.core.errors import ConfigError, Problem
from aca_tokend.regular_file import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from aca_tokend.core.config import Config

# Ten thousand tokens take a few. Of a file that goes on for ever no more is read.
MAX_CONFIG_BYTES = 16 * 1024 * 1024

_UNREADABLE = {
    errno.ENOENT: ("does not exist", "create it, or name the right one"),
    errno.ENOTDIR: ("does not exist", "create it, or name the right one"),
    errno.EACCES: ("may not be read", "let the daemon's user read it"),
    errno.EISDIR: ("is a directory", "name a file"),
    errno.ENXIO: ("is not a regular file", "name a file"),
    errno.EFBIG: (f"holds more than {MAX_CONFIG_BYTES} bytes", "name the right file"),
    errno.ELOOP: ("is a symbolic link to itself", "let it point to a file"),
}
# How tomllib's messages begin (the rest may repeat what is in the file), and what to do.
_SYNTAX = {
    "Invalid statement": "write key = value, or a [table]",
    "Invalid value": 'write text in quotes, as in key = "value"',
    "Invalid initial character": "write key = value",
    "Expected '='": "write key = value",
    'Expected "\'"': "end the text with the quotes it begins with",
    "Expected newline": "give each key a line of its own, and text one pair of quotes",
    "Expected ']": "end the header as it begins, with ] or ]]",
    "Cannot overwrite a value": "write each key once",
    "Duplicate inline table key": "write each key once",
    "Cannot declare": "write each [table] once",
    "Cannot mutate": "write all of a table in one place",
    "Cannot redefine": "write all of a table in one place",
    "Unclosed array": "end the array with ]",
    "Unclosed inline table": "end the inline table, which is one line, with }",
    "Unterminated string": "end the text with the quotes it begins with",
    "Illegal character": "end the text on its line, and leave control characters out",
    "Unescaped": "write each backslash twice, or the text in single quotes",
}
_POSITION = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)


def load(path: str | Path) -> Config:
    """Reads the main file and every file that its `include` names.

    Raises:
        ConfigError: with every problem of all files at once.
    """
    main = os.fspath(path)
    document = _read(main)
    if isinstance(document, Problem):
        raise ConfigError((document,))
    documents = [(main, document)]
    problems: list[Problem] = []
    for file in _included(main, document.get("include"), problems):
        included = _read(file)
        if isinstance(included, Problem):
            problems.append(included)
            included = {}
        documents.append((file, included))
    return parse(documents, problems)


def patterns(path: str | Path) -> tuple[str, ...]:
    """What the main file includes, as far as that can be told, whatever else is wrong with it."""
    document = _read(os.fspath(path))
    include = document.get("include") if isinstance(document, dict) else None
    return tuple(pattern for pattern in include if _is_pattern(pattern)) if isinstance(include, list) else ()


def files(path: str | Path, include: Sequence[str]) -> list[str]:
    """The main file and those that these patterns find now."""
    main = os.fspath(path)
    return [main, *_included(main, list(include), [])]


def folders(path: str | Path, include: Sequence[str]) -> set[str]:
    """The folders in which a change may be one of the configuration, also where they do not exist yet."""
    main = os.fspath(path)
    found = set()
    for file in files(main, include):
        found |= {os.path.dirname(file), os.path.dirname(os.path.realpath(file))}  # noqa: PTH120 - as above
    for pattern in include:
        plain = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.split("/")[:-1])
        found.add(os.path.join(os.path.dirname(main), "/".join(plain)))  # noqa: PTH118, PTH120 - as above
    return {os.path.abspath(folder) for folder in found}  # noqa: PTH100 - as above


def _text(file: str) -> str | Problem:
    """What is in the file, or why it cannot be had."""
    try:
        content, _ = read_regular(file, MAX_CONFIG_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        code = error.errno if isinstance(error, OSError) else errno.ENOENT
        name = errno.errorcode.get(code or 0, "I/O error")
        problem, fix = _UNREADABLE.get(code or 0, (f"cannot be read ({name})", "see that it can be read"))
        return Problem(file, "", problem, fix)
    try:
        return content.decode("utf-8-sig")  # a byte order mark is no part of the text
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Problem(file, f"line {line}", "is not UTF-8", "save the file as UTF-8")


def _read(file: str) -> dict[str, Any] | Problem:
    """The parsed file, or why it cannot be had. Nothing leads back to the parser's error, which may hold the text."""
    text = _text(file)
    if isinstance(text, Problem):
        return text
    try:
        return tomllib.loads(text)
    except RecursionError:
        return Problem(file, "", "is nested too deeply", "write it with fewer brackets")
    except ValueError as error:  # TOMLDecodeError, and numbers that Python finds too long
        return _syntax(file, str(error))


def _syntax(file: str, message: str) -> Problem:
    match = _POSITION.fullmatch(message)
    if match is None:
        return Problem(file, "", "is not valid TOML", "see https://toml.io")
    place = f"line {match['line']}, column {match['column']}" if match["line"] else "end of the file"
    fixes = (fix for beginning, fix in _SYNTAX.items() if match["what"].startswith(beginning))
    return Problem(file, place, "is not valid TOML", next(fixes, "see https://toml.io"))


def _included(main: str, patterns: object, problems: list[Problem]) -> Iterator[str]:
    """Each file that is included, once. What is no pattern is left for `parse` to tell."""
    folder = os.path.dirname(main)  # noqa: PTH120 - the path is a string throughout
    seen = {os.path.realpath(main)}
    for number, pattern in enumerate(patterns if isinstance(patterns, list) else ()):
        if not _is_pattern(pattern):
            continue
        found = sorted(glob.glob(os.path.join(glob.escape(folder), pattern), recursive=True))  # noqa: PTH118, PTH207
        if not found and not glob.has_magic(pattern):
            problems.append(
                Problem(
                    main, f"include[{number}]", "names a file that does not exist", "create it, or remove this entry"
                )
            )
        for file in found:
            real = os.path.realpath(file)
            if real not in seen:
                seen.add(real)
                yield file


def _is_pattern(pattern: object) -> TypeGuard[str]:
    return isinstance(pattern, str) and pattern != "" and pattern.isprintable()
