"""Reads the configuration file and those it includes, all as of one moment. What they mean is decided in `core.config`.

No message repeats what is in a file.
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import itertools
import os
import re
import time
import tomllib
from dataclasses import dataclass, field
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
# Files that change while they are read are read again so often, with a pause that lets a swap of a ConfigMap end.
MOST_READS = 5
PAUSE_SECONDS = 0.05

Stamp = tuple[int, ...]

_UNREADABLE = {
    errno.ENOENT: ("does not exist", "create it, or name the right one"),
    errno.ENOTDIR: ("does not exist", "create it, or name the right one"),
    errno.EACCES: ("may not be read", "let the daemon's user read it"),
    errno.EISDIR: ("is a directory", "name a file"),
    errno.ENXIO: ("is not a regular file", "name a file"),
    errno.EFBIG: (f"holds more than {MAX_CONFIG_BYTES} bytes", "name the right file"),
    errno.ELOOP: ("is a symbolic link to itself", "let it point to a file"),
}
_NO_FOLDER = ("is not a folder", "make it a folder again, or remove what names it from include")
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
# What is not there, or could not be.
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_POSITION = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)


@dataclass(slots=True)
class _Found:
    """What was found by one pass over all files.

    Attributes:
        documents: each file with what it says; nothing where it cannot be had.
        problems: what is wrong with finding and reading them.
        stamps: what tells each file from another and from itself at another time.
    """

    documents: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    stamps: list[tuple[str, Stamp]] = field(default_factory=list)

    def read(self, file: str) -> dict[str, Any]:
        """Reads one more file."""
        document, stamp = _read(file)
        self.stamps.append((file, stamp))
        if isinstance(document, Problem):
            self.problems.append(document)
            document = {}
        self.documents.append((file, document))
        return document


def load(path: str | Path) -> Config:
    """Reads the main file and every file that its `include` names, all as they are at one moment.

    Raises:
        ConfigError: with every problem of all files at once.
    """
    main = os.fspath(path)
    for number in range(MOST_READS):
        time.sleep(PAUSE_SECONDS if number else 0.0)
        found = _Found()
        include = found.read(main).get("include")
        if found.problems:
            raise ConfigError(tuple(found.problems))
        for file in _included(main, include, found.problems):
            found.read(file)
        if found.stamps == [(file, stamp_of(file)) for file in (main, *_included(main, include, []))]:
            return parse(found.documents, found.problems)
    problem = "changes while it is read, or a file that it includes does"
    raise ConfigError((Problem(main, "", problem, "leave the files alone for a moment"),))


def patterns(path: str | Path) -> tuple[str, ...]:
    """What the main file includes, as far as that can be told, whatever else is wrong with it."""
    document, _ = _read(os.fspath(path))
    include = document.get("include") if isinstance(document, dict) else None
    return tuple(pattern for pattern in include if _is_pattern(pattern)) if isinstance(include, list) else ()


def files(path: str | Path, include: Sequence[str]) -> list[str]:
    """The main file and those that these patterns find now, one that several find as often."""
    main = os.fspath(path)
    return [main, *_matching(main, list(include), [])]


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


def stamp_of(path: str) -> Stamp:
    """What tells a file from another and from itself at another time; nothing where there is none."""
    try:
        return _stamp(os.stat(path))  # noqa: PTH116 - strings throughout
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return ()


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read(file: str) -> tuple[dict[str, Any] | Problem, Stamp]:
    """The parsed file, or why it cannot be had, and its stamp.

    Nothing leads back to the parser's error, which may hold the text.
    """
    try:
        content, status = read_regular(file, MAX_CONFIG_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return _unreadable(file, error), stamp_of(file)
    return _parsed(file, content), _stamp(status)


def _unreadable(path: str, error: OSError | ValueError) -> Problem:
    code = (error.errno if isinstance(error, OSError) else errno.ENOENT) or 0
    name = errno.errorcode.get(code, "I/O error")
    return Problem(path, "", *_UNREADABLE.get(code, (f"cannot be read ({name})", "see that it can be read")))


def _parsed(file: str, content: bytes) -> dict[str, Any] | Problem:
    try:
        text = content.decode("utf-8-sig")  # a byte order mark is no part of the text
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Problem(file, f"line {line}", "is not UTF-8", "save the file as UTF-8")
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
    """Each file that is included, once."""
    seen = {os.path.realpath(main)}
    for file in _matching(main, patterns, problems):
        real = os.path.realpath(file)
        if real not in seen:
            seen.add(real)
            yield file


def _matching(main: str, patterns: object, problems: list[Problem]) -> Iterator[str]:
    """What each pattern finds. What is no pattern is left for `parse` to tell."""
    folder = os.path.dirname(main)  # noqa: PTH120 - the path is a string throughout
    for number, pattern in enumerate(patterns if isinstance(patterns, list) else ()):
        if not _is_pattern(pattern):
            continue
        parts = [part for part in pattern.split("/") if part]
        found = sorted(_matches("/" if pattern.startswith("/") else folder, parts, problems))
        if not found and not glob.has_magic(pattern):
            problem, fix = "names a file that does not exist", "create it, or remove this entry"
            problems.append(Problem(main, f"include[{number}]", problem, fix))
        yield from found


def _matches(folder: str, parts: Sequence[str], problems: list[Problem], *, named: bool = True) -> Iterator[str]:
    """What a pattern finds below a folder, which `include` may have named. One that cannot be listed is a problem."""
    part, *rest = parts or [""]
    if part == "**":
        for below in _tree(folder, problems, set(), named=named):
            yield from _matches(below, rest or ["*"], problems, named=False)
        return
    listed = glob.has_magic(part)
    for name in _names(folder, part, problems, named=named) if listed else [part]:
        path = os.path.join(folder, name)  # noqa: PTH118 - as above
        if rest:
            yield from _matches(path, rest, problems, named=named and not listed)
        elif listed or _is_there(path):
            yield path


def _tree(folder: str, problems: list[Problem], seen: set[str], *, named: bool = False) -> Iterator[str]:
    """A folder and all below it, each once, wherever links lead. What is no folder is one that holds nothing."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    yield folder
    for name in _names(folder, "*", problems, named=named):
        yield from _tree(os.path.join(folder, name), problems, seen)  # noqa: PTH118 - as above


def _names(folder: str, pattern: str, problems: list[Problem], *, named: bool) -> list[str]:
    """The names in a folder that match. As in a shell, one that begins with a dot must be asked for.

    One that `include` names, and that is no folder, is a problem: its tokens would be gone without a word.
    """
    try:
        names = os.listdir(folder or ".")  # noqa: PTH208 - as above
    except OSError as error:
        problem = Problem(folder, "", *_NO_FOLDER) if error.errno == errno.ENOTDIR else _unreadable(folder, error)
        absent = _ABSENT - {errno.ENOTDIR} if named else _ABSENT
        if error.errno not in absent and problem not in problems:
            problems.append(problem)
        return []
    return fnmatch.filter([it for it in names if pattern.startswith(".") or not it.startswith(".")], pattern)


def _is_there(path: str) -> bool:
    """Whether something is there, or may be: reading it will tell."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno not in _ABSENT
    return True


def _is_pattern(pattern: object) -> TypeGuard[str]:
    return isinstance(pattern, str) and pattern != "" and pattern.isprintable()
