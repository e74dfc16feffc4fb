"""The JSON Schema of the file as it is written: durations and modes are text, secrets are references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from aca_tokend.core.config._table import Table
from aca_tokend.core.config._tokens import Config

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema


class _WithoutDefaults(GenerateJsonSchema):
    """pydantic knows the default in the program, not the text that would stand in the file."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the main file. An included file has its `tokens` and nothing else."""
    document = Config.model_json_schema(mode="validation", schema_generator=_WithoutDefaults)
    models = {model.__name__: model for model in Table.__subclasses__()}
    for name, table in {**document["$defs"], "Config": document}.items():
        table.pop("title")
        for key, rule in table["properties"].items():
            _complete(models[name], key, rule, table)
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "Configuration of aca-tokend",
        **document,
    }


def _complete(model: type[Table], key: str, rule: dict[str, Any], table: dict[str, Any]) -> None:
    """Adds what a key means and the default as it would be written."""
    field = model.model_fields[key]
    rule.pop("title", None)
    rule["description"] = field.description
    if field.is_required():
        return
    default = field.default
    if key in {"to", "method"}:
        # what tells one kind of table from another is never left out
        table.setdefault("required", []).insert(0, key)
    elif default is None:
        # TOML has no null
        choices = [choice for choice in rule.pop("anyOf") if choice != {"type": "null"}]
        rule.update(choices[0] if len(choices) == 1 else {"anyOf": choices})
    elif not isinstance(default, Table):
        rule["default"] = default
