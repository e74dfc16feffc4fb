"""The JSON Schema of the file as it is written: durations and modes are text, secrets are references."""

from __future__ import annotations

from typing import Any

from aca_tokend.core.config._table import Table, written_default
from aca_tokend.core.config._tokens import Config


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the main file. An included file has its `tokens` and nothing else."""
    document = Config.model_json_schema(mode="validation")
    models = {model.__name__: model for model in Table.__subclasses__()}
    for name, table in {**document["$defs"], "Config": document}.items():
        table.pop("title")
        for key, rule in table["properties"].items():
            _as_written(models[name], key, rule, table)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of aca-tokend",
        **document,
    }


def _as_written(model: type[Table], key: str, rule: dict[str, Any], table: dict[str, Any]) -> None:
    """Mends what pydantic says of a key: it knows the value in the program, not the text in the file."""
    rule.pop("title", None)
    rule.pop("default", None)
    field = model.model_fields[key]
    if field.is_required():
        return
    default = written_default(field)
    if "const" in rule and key in {"to", "method"}:
        # what tells one kind of table from another is never left out
        table.setdefault("required", []).insert(0, key)
    elif default is None:
        # TOML has no null
        rule.update(rule.pop("anyOf")[0])
    elif not isinstance(default, Table):
        rule["default"] = default
