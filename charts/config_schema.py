"""The schema of the configuration as the chart takes it: draft-07, which Helm reads.

It is stricter where a secret could slip in: references to variables are left out, since in a pod a secret is a file or
lies in a Vault; and there is no pattern where a secret may stand by mistake, because Helm 4 shows a value that does not
match. A choice is a condition on the key that decides, never a list of alternatives: only so Helm names the key that is
wrong.
"""

from __future__ import annotations

from typing import Any

from aca_tokend.core.config import schema

Schema = dict[str, Any]

# Where the kubelet asks.
LISTEN = ("0.0.0.0:9464", "[::]:9464")
# How a pattern says that there is something; the regular expressions of Go, and so of Helm, do not look ahead.
NOT_EMPTY = "^(?=.)"
BY_THE_CHART = "Written by the chart; set `shards` instead."


def definitions() -> Schema:
    """Every table by its name, as `definitions` of a draft-07 schema; the whole configuration is `Config`."""
    document = schema()
    tables: Schema = document["$defs"]
    tables["Config"] = {key: document[key] for key in ("description", "type", "additionalProperties", "properties")}
    tables["AdminConfig"]["properties"]["listen"] |= {"enum": list(LISTEN), "default": LISTEN[0]}
    tables["Config"]["properties"]["shard"] = {"description": BY_THE_CHART}
    for name in ("EnvReference", "ShardConfig"):
        del tables[name]
    return {name: _converted(table, tables) for name, table in sorted(tables.items())}


def _converted(rule: Schema, tables: Schema) -> Schema:
    """A schema without what draft-07 does not know, and without alternatives."""
    rule = {key: value for key, value in rule.items() if key != "examples"}
    if "properties" in rule:
        rule["properties"] = {key: _converted(value, tables) for key, value in rule["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(rule.get(key), dict):
            rule[key] = _converted(rule[key], tables)
    if str(rule.get("pattern")).startswith(NOT_EMPTY):
        rule |= {"pattern": "^" + rule["pattern"].removeprefix(NOT_EMPTY), "minLength": 1}
    if "$ref" in rule:
        rule["$ref"] = f"#/definitions/{_name(rule)}"
    if "anyOf" in rule:
        rule |= _choice(rule.pop("anyOf"), tables)
    return rule


def _choice(alternatives: list[Schema], tables: Schema) -> Schema:
    names = [_name(choice) for choice in alternatives if "$ref" in choice]
    plain = [choice for choice in alternatives if "$ref" not in choice]
    if "EnvReference" in names:
        return _reference(plain, [tables[name] for name in names if name != "EnvReference"])
    if names:
        return _table(names, tables)
    types = [choice["type"] for choice in plain]
    return {"type": types} | {key: value for choice in plain for key, value in choice.items() if key != "type"}


def _reference(plain: list[Schema], references: list[Schema]) -> Schema:
    """Something that stands elsewhere or, where there is no harm in it, here."""
    properties = {key: rule for reference in references for key, rule in reference["properties"].items()}
    properties = {key: {"type": "string", "description": rule["description"]} for key, rule in properties.items()}
    return {
        "type": [choice["type"] for choice in plain] + ["object"] if plain else "object",
        "properties": properties,
        "additionalProperties": False,
        "minProperties": 1,
        "dependencies": {
            "vault_name": ["vault"],
            **({"file": {"not": {"required": ["vault"]}}} if "vault" in properties else {}),
        },
    }


def _table(names: list[str], tables: Schema) -> Schema:
    """One of several kinds of tables: a key names the kind, or each has keys of its own."""
    key = next((key for key in ("method", "to") if key in tables[names[0]]["properties"]), "")
    if not key:
        properties: Schema = {}
        for name in names:
            properties |= _converted(tables[name], tables)["properties"]
        kinds = [{"required": tables[name]["required"]} for name in names]
        return {"type": "object", "properties": properties, "additionalProperties": False, "oneOf": kinds}
    kinds_by_word = {tables[name]["properties"][key]["const"]: name for name in names}
    return {
        "type": "object",
        "required": [key],
        "properties": {key: {"enum": list(kinds_by_word)}},
        "allOf": [
            {
                "if": {"required": [key], "properties": {key: {"const": word}}},
                "then": {"$ref": f"#/definitions/{name}"},
            }
            for word, name in kinds_by_word.items()
        ],
    }


def _name(rule: Schema) -> str:
    name: str = rule["$ref"].removeprefix("#/$defs/")
    return name
