"""From parsed TOML to a `Config`, or to all that is wrong with it at once."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import ValidationError

from aca_tokend.core.config._addresses import server
from aca_tokend.core.config._publish import default_name
from aca_tokend.core.config._references import EnvReference, FileReference, Names, VaultReference
from aca_tokend.core.config._rotation import RotationConfig
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._tokens import Config, TokenConfig
from aca_tokend.core.config._wrong import key, kind_of
from aca_tokend.core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

T = TypeVar("T", bound=Table)


class _Entry(NamedTuple):
    """Something as it is written, and where."""

    file: str
    where: str
    table: Mapping[str, Any]


class _Wrong(NamedTuple):
    """What is wrong in a table, with the way to it from there."""

    place: tuple[str | int, ...]
    problem: str
    fix: str


def parse(documents: Sequence[tuple[str, Mapping[str, Any]]], earlier: Sequence[Problem] = ()) -> Config:
    """Reads the main document and after it the included ones, each as (file name, parsed TOML).

    Args:
        documents: the file names differ; a file that could not be read is an empty document.
        earlier: what was wrong with reading the files, to be told with everything else.

    Raises:
        ConfigError: with every problem of every document, in the order of the documents.
    """
    file, main = documents[0]
    names = Names(tuple(_table(main, "acaengine")), tuple(_table(main, "vault")))
    config, found = _read(Config, {**main, "tokens": ()}, names)
    problems = [*earlier, *_problems(file, "", found)]
    for name, document in documents[1:]:
        problems += _strangers(name, document, file)
    entries, misplaced = _entries(documents)
    problems += misplaced
    if not entries and not earlier and not misplaced:
        problems.append(Problem(file, "tokens", "there is no token to keep", "add a [[tokens]]"))
    rotation = config.rotation if config else RotationConfig()
    tokens = []
    shared: dict[object, Any] = {}
    for entry in entries:
        token, found = _read_token(entry.table, names, _table(main, "rotation"), rotation)
        tokens.append(_compact(token, shared) if token else None)
        problems += _problems(entry.file, entry.where, found)
    problems += _same_names(entries)
    problems += _same_places(entries, _table(main, "vault"))
    if problems or config is None:
        order = {name: number for number, (name, _) in enumerate(documents)}
        raise ConfigError(tuple(sorted(problems, key=lambda problem: order[problem.file])))
    return config.model_copy(update={"tokens": tuple(tokens)})


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _read(model: type[T], table: Mapping[str, Any], names: Names) -> tuple[T | None, list[_Wrong]]:
    try:
        return model.model_validate(table, context=names), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    return None, [_Wrong(detail["loc"], detail["ctx"]["problem"], detail["ctx"]["fix"]) for detail in details]


def _problems(file: str, where: str, found: Iterable[_Wrong]) -> Iterator[Problem]:
    for place, problem, fix in found:
        path = where
        for part in place:
            path += f"[{part}]" if isinstance(part, int) else f".{key(part)}"
        yield Problem(file, path.removeprefix("."), problem, fix)


def _strangers(file: str, document: Mapping[str, Any], main: str) -> Iterator[Problem]:
    for name in document:
        if name != "tokens":
            yield Problem(file, key(name), "does not belong in an included file", f"move it to {main}")


def _entries(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[list[_Entry], list[Problem]]:
    """All `[[tokens]]` that are tables, and what is wrong with the others."""
    entries, problems = [], []
    for file, document in documents:
        tables = document.get("tokens", [])
        if not isinstance(tables, list):
            fix = "begin each token with [[tokens]], two brackets on each side"
            problems.append(Problem(file, "tokens", f"must be an array of tables, not {kind_of(tables)}", fix))
            continue
        for number, table in enumerate(tables):
            where = f"tokens[{number}]"
            if isinstance(table, dict):
                name = table.get("name")
                # what is not like a name may be anything, and is not repeated
                shown = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name)
                entries.append(_Entry(file, f'{where} "{name}"' if shown else where, table))
            else:
                fix = "begin each token with [[tokens]]"
                problems.append(Problem(file, where, f"must be a table, not {kind_of(table)}", fix))
    return entries, problems


def _read_token(
    table: Mapping[str, Any], names: Names, defaults: Mapping[str, Any], rotation: RotationConfig
) -> tuple[TokenConfig | None, list[_Wrong]]:
    override = table.get("rotation", {})
    if not isinstance(override, dict):
        return _read(TokenConfig, table, names)
    found: list[_Wrong] = []
    if override:
        own, found = _override(override, defaults, names)
        rotation = own or rotation
    token, others = _read(TokenConfig, {**table, "rotation": rotation}, names)
    return token, [*others, *(wrong._replace(place=("rotation", *wrong.place)) for wrong in found)]


def _compact(table: T, shared: dict[object, Any]) -> T:
    """Lets tables that say the same be one object, and what pydantic notes of each: thousands of tokens are alike."""
    for name, value in table:
        if isinstance(value, EnvReference | FileReference | VaultReference):
            table.__dict__[name] = shared.setdefault(value, value)
        elif isinstance(value, tuple):
            for item in value:
                _compact(item, shared)
    noted = table.model_fields_set
    object.__setattr__(table, "__pydantic_fields_set__", shared.setdefault(frozenset(noted), noted))
    return table


def _override(
    override: Mapping[str, Any], defaults: Mapping[str, Any], names: Names
) -> tuple[RotationConfig | None, list[_Wrong]]:
    """The defaults with a token's own keys laid over them, and what is wrong beyond what is wrong with the defaults."""
    merged = {**defaults, **override}
    if isinstance(override.get("backoff"), dict):
        merged["backoff"] = {**_table(defaults, "backoff"), **override["backoff"]}
    own, found = _read(RotationConfig, merged, names)
    if found:
        _, known = _read(RotationConfig, defaults, names)
        found = [wrong for wrong in found if wrong not in known or _has(override, wrong.place)]
    return own, found


def _has(table: Mapping[str, Any], place: tuple[str | int, ...]) -> bool:
    inner: object = table
    for part in place:
        if not isinstance(inner, dict) or part not in inner:
            return False
        inner = inner[part]
    return bool(place)


def _same_names(entries: Iterable[_Entry]) -> Iterator[Problem]:
    first: dict[str, _Entry] = {}
    for entry in entries:
        name = entry.table.get("name")
        if isinstance(name, str) and first.setdefault(name, entry) is not entry:
            problem = f"is the name of another token, {_seen_from(entry.file, first[name])}"
            yield Problem(entry.file, f"{entry.where}.name", problem, "give each token a name of its own")


def _same_places(entries: Iterable[_Entry], vaults: Mapping[str, Any]) -> Iterator[Problem]:
    first: dict[str, _Entry] = {}
    directories: dict[str, _Entry] = {}
    places: list[tuple[str, _Entry]] = []
    for entry in entries:
        sinks = entry.table.get("publish")
        for number, sink in enumerate(sinks if isinstance(sinks, list) else ()):
            here = entry._replace(where=f"{entry.where}.publish[{number}]")
            place = _place(sink, vaults) if isinstance(sink, dict) else None
            if place is not None:
                places.append((place, here))
                if sink.get("to") == "directory":
                    directories.setdefault(place, here)
    for place, here in places:
        if first.setdefault(place, here) is not here:
            problem = f"is the same place as {_seen_from(here.file, first[place])}"
            yield Problem(here.file, here.where, problem, "publish each token to places of its own")
        for parent in accumulate(place.split("/")[:-1], "{}/{}".format):
            if parent in directories:
                problem = f"lies in the directory of {_seen_from(here.file, directories[parent])}"
                yield Problem(here.file, here.where, problem, "publish each token to places of its own")


def _seen_from(file: str, entry: _Entry) -> str:
    return entry.where if entry.file == file else f"{entry.where} of {entry.file}"


def _place(sink: Mapping[str, Any], vaults: Mapping[str, Any]) -> str | None:
    """The same text for all sinks that write to one place; None where the sink does not say enough."""
    path, mount = sink.get("path"), sink.get("mount")
    if sink.get("to") in ("file", "directory") and isinstance(path, str):
        return "file " + "/".join(segment for segment in path.split("/") if segment)
    name = sink.get("vault_name") or default_name(tuple(vaults))
    if sink.get("to") != "vault" or not all(isinstance(part, str) for part in (path, mount, name)):
        return None
    vault = _table(vaults, name)
    # to Vault, a namespace is the beginning of the mount's path
    parts = [part for part in (vault.get("namespace"), mount, path) if isinstance(part, str) and part]
    return f"vault {server(vault.get('address')) or name} {'/'.join(parts)}"
