"""From parsed TOML to a `Config`, or to all that is wrong with it at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import ValidationError

from aca_tokend.core.config._addresses import server
from aca_tokend.core.config._publish import default_name
from aca_tokend.core.config._references import EnvReference, FileReference, Names, VaultReference
from aca_tokend.core.config._rotation import RotationConfig
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._tokens import Config, TokenConfig, VerifyConfig
from aca_tokend.core.config._wrong import key, kind_of
from aca_tokend.core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

T = TypeVar("T", bound=Table)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SHARED = (str, EnvReference, FileReference, VaultReference, RotationConfig, VerifyConfig)


class _Entry(NamedTuple):
    """A `[[tokens]]`: its file, the how many-th it is there, and what it says its name is."""

    file: str
    number: int
    name: object

    @property
    def where(self) -> str:
        # what is not like a name may be anything, and is not repeated
        shown = isinstance(self.name, str) and _NAME.fullmatch(self.name)
        return f'tokens[{self.number}] "{self.name}"' if shown else f"tokens[{self.number}]"


class _Place(NamedTuple):
    """Where a sink of a token writes to: the same text for all sinks that write to one place."""

    text: str
    entry: _Entry
    number: int
    is_directory: bool

    @property
    def where(self) -> str:
        return f"{self.entry.where}.publish[{self.number}]"


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
    rotation = config.rotation if config else RotationConfig()
    tokens = _Tokens(names, rotation, _table(main, "rotation"), _table(main, "vault"))
    for name, document in documents:
        tokens.read(name, document.get("tokens", []))
    problems += tokens.misplaced
    if not tokens.entries and not earlier and not tokens.misplaced:
        problems.append(Problem(file, "tokens", "there is no token to keep", "add a [[tokens]]"))
    problems += [*tokens.problems, *tokens.same_names(), *tokens.same_places()]
    if problems or config is None:
        order = {name: number for number, (name, _) in enumerate(documents)}
        raise ConfigError(tuple(sorted(problems, key=lambda problem: order.get(problem.file, len(order)))))
    return config.model_copy(update={"tokens": tuple(tokens.tokens)})


@dataclass(slots=True)
class _Tokens:
    """Reads the `[[tokens]]` of the documents one after the other, and keeps of each table only what it needs."""

    names: Names
    rotation: RotationConfig
    defaults: Mapping[str, Any]
    vaults: Mapping[str, Any]
    tokens: list[TokenConfig] = field(default_factory=list)
    entries: list[_Entry] = field(default_factory=list)
    places: list[_Place] = field(default_factory=list)
    misplaced: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _shared: dict[object, Any] = field(default_factory=dict)

    def read(self, file: str, tables: object) -> None:
        """Reads those of one document."""
        if not isinstance(tables, list):
            fix = "begin each token with [[tokens]], two brackets on each side"
            self.misplaced.append(Problem(file, "tokens", f"must be an array of tables, not {kind_of(tables)}", fix))
            return
        for number, table in enumerate(tables):
            if isinstance(table, dict):
                self._read_one(_Entry(file, number, table.get("name")), table)
            else:
                problem = f"must be a table, not {kind_of(table)}"
                self.misplaced.append(Problem(file, f"tokens[{number}]", problem, "begin each token with [[tokens]]"))

    def _read_one(self, entry: _Entry, table: Mapping[str, Any]) -> None:
        token, found = _read_token(table, self.names, self.defaults, self.rotation)
        self.entries.append(entry)
        if token is not None:
            self.tokens.append(_compact(token, self._shared))
        if found:
            self.problems += _problems(entry.file, entry.where, found)
        sinks = table.get("publish")
        for number, sink in enumerate(sinks if isinstance(sinks, list) else ()):
            place = _place(sink, self.vaults) if isinstance(sink, dict) else None
            if place is not None:
                self.places.append(_Place(place, entry, number, sink.get("to") == "directory"))

    def same_names(self) -> Iterator[Problem]:
        """What is wrong with names that several have."""
        first: dict[str, _Entry] = {}
        for entry in self.entries:
            if isinstance(entry.name, str) and (other := first.setdefault(entry.name, entry)) is not entry:
                problem = f"is the name of another token, {_seen_from(entry.file, other.file, other.where)}"
                yield Problem(entry.file, f"{entry.where}.name", problem, "give each token a name of its own")

    def same_places(self) -> Iterator[Problem]:
        """What is wrong with places that several write to."""
        first: dict[str, _Place] = {}
        directories: dict[str, _Place] = {}
        fix = "publish each token to places of its own"
        for place in self.places:
            if place.is_directory:
                directories.setdefault(place.text, place)
        for place in self.places:
            file = place.entry.file
            if (other := first.setdefault(place.text, place)) is not place:
                problem = f"is the same place as {_seen_from(file, other.entry.file, other.where)}"
                yield Problem(file, place.where, problem, fix)
            for parent in accumulate(place.text.split("/")[:-1], "{}/{}".format) if directories else ():
                if (holder := directories.get(parent)) is not None:
                    problem = f"lies in the directory of {_seen_from(file, holder.entry.file, holder.where)}"
                    yield Problem(file, place.where, problem, fix)


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
    """The same table, smaller: what thousands of tokens say alike is one object."""
    values: dict[str, Any] = {}
    for name, value in table:
        if isinstance(value, _SHARED):
            value = shared.setdefault(value, value)  # noqa: PLW2901 -- the same value
        elif value == {}:
            value = shared.setdefault((), value)  # noqa: PLW2901 -- nobody writes into it
        elif isinstance(value, tuple):
            value = tuple(_compact(item, shared) for item in value)  # noqa: PLW2901 -- the same value
        values[name] = value
    noted = table.model_fields_set
    return table.model_construct(shared.setdefault(frozenset(noted), noted), **values)


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


def _seen_from(file: str, other: str, where: str) -> str:
    return where if other == file else f"{where} of {other}"


def _place(sink: Mapping[str, Any], vaults: Mapping[str, Any]) -> str | None:
    """Where a sink writes to, as `_Place` has it; None where the sink does not say enough."""
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
