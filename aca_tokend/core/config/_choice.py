"""Tables that are told apart by one key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.config._wrong import kind_of, refuse, toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import ValidationInfo

    from aca_tokend.core.config._table import Table


def table_by(key: str, kinds: Iterable[type[Table]]) -> Callable[[object, ValidationInfo], object]:
    """A validator that reads a table as the one of these kinds whose default for `key` it says."""
    tables = {kind.model_fields[key].default: kind for kind in kinds}
    forms = f"{key} = " + " or ".join(toml(name) for name in tables)

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
            refuse("is unknown", f"write {forms}", below=key)
        return table.model_validate(value, context=info.context)

    return read
