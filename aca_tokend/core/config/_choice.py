"""Values of which this version supports some: tables told apart by one key, and single values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.config._wrong import kind_of, refuse, toml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import ValidationInfo

    from aca_tokend.core.config._table import Table


def table_by(
    key: str, tables: Mapping[str, type[Table]], later: tuple[str, ...] = ()
) -> Callable[[object, ValidationInfo], object]:
    """A validator that reads a table as the one of `tables` that its `key` names; the `later` ones are known of."""
    forms = " or ".join(f"{key} = {toml(name)}" for name in tables)

    def read(value: object, info: ValidationInfo) -> object:
        if isinstance(value, tuple(tables.values())):
            return value
        if not isinstance(value, dict):
            refuse(f"must be a table, not {kind_of(value)}", "write it as a table of keys and values")
        name = value.get(key)
        table = tables.get(name) if isinstance(name, str) else None
        if table is None:
            if name is None:
                refuse("missing", f"add {forms}", below=key)
            problem = f"{name} is not supported by this version" if name in later else "is unknown"
            refuse(problem, f"write {forms}", below=key)
        return table.model_validate(value, context=info.context)

    return read


def only(key: str, supported: str | int, later: tuple[str | int, ...]) -> Callable[[object], object]:
    """A validator for a key that has one supported value in this version."""

    def read(value: object) -> object:
        if type(value) is not type(supported) or value != supported:
            known = type(value) is type(supported) and value in later
            problem = f"{value} is not supported by this version" if known else f"must be {toml(supported)}"
            refuse(problem, f"write {key} = {toml(supported)}")
        return value

    return read
