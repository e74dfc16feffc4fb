"""The reference, the example and the schema say what the model says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.config.files import load
from aca_tokend.core.config import Config, schema
from aca_tokend.core.config._kinds import Duration
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._wrong import toml
from aca_tokend.core.durations import PATTERN, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[2]
MODELS = {model.__name__: model for model in Table.__subclasses__()}

# the heading of each table in docs/configuration.md
HEADINGS = {
    "Top level": "Config",
    "`[admin]`": "AdminConfig",
    "`[shard]`": "ShardConfig",
    "`[log]`": "LogConfig",
    "`[acaengine.NAME]`": "EndpointConfig",
    "`[vault.NAME]`": "VaultConfig",
    '`[vault.NAME.auth]` with `method = "token"`': "TokenAuth",
    '`[vault.NAME.auth]` with `method = "approle"`': "AppRoleAuth",
    '`[vault.NAME.auth]` with `method = "kubernetes"`': "KubernetesAuth",
    '`[vault.NAME.auth]` with `method = "jwt"`': "JwtAuth",
    '`[vault.NAME.auth]` with `method = "cert"`': "CertAuth",
    '`[vault.NAME.auth]` with `method = "userpass"`': "UserpassAuth",
    '`[vault.NAME.auth]` with `method = "ldap"`': "LdapAuth",
    "`[rotation]`": "RotationConfig",
    "`[rotation.backoff]`": "BackoffConfig",
    "`[[tokens]]`": "TokenConfig",
    "`[tokens.verify]`": "VerifyConfig",
    '`[[tokens.publish]]` with `to = "vault"`': "VaultPublish",
    '`[[tokens.publish]]` with `to = "file"`': "FilePublish",
    '`[[tokens.publish]]` with `to = "directory"`': "DirectoryPublish",
    "`[tokens.publish.files]`": "FormatConfig",
    "`after = { command }`": "CommandHook",
    "`after = { signal }`": "SignalHook",
    "`{ env }`": "EnvReference",
    "`{ file }`": "FileReference",
    "`{ vault }`": "VaultReference",
}
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than"}


def rules(model: str) -> dict[str, dict[str, Any]]:
    """What the schema says of each key of a table."""
    document = schema()
    table = document if model == "Config" else document["$defs"][model]
    return dict(table["properties"])


WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
REFERENCES = {
    frozenset(): "array of text",
    frozenset({"EnvReference", "FileReference", "VaultReference"}): "reference",
    frozenset({"EnvReference", "FileReference"}): "reference, but not to a Vault",
    frozenset({"CommandHook", "SignalHook"}): "table",
    frozenset(model for model in MODELS if model.endswith("Auth")): "table",
}


def kind(rule: dict[str, Any], field: FieldInfo) -> str:
    """The type of a key in words."""
    if rule.get("pattern") == PATTERN:
        (bounds,) = (each for each in field.metadata if isinstance(each, Duration))
        also = ", or `0s`" if bounds.zero else ""
        return f"duration, `{format_duration(bounds.low)}` to `{format_duration(bounds.high)}`{also}"
    if "enum" in rule or "const" in rule:
        return " or ".join(f"`{toml(choice)}`" for choice in rule.get("enum", [rule.get("const")]))
    if "anyOf" in rule:
        targets = frozenset(each["$ref"].rpartition("/")[2] for each in rule["anyOf"] if "$ref" in each)
        literal = next((WORDS[each["type"]] for each in rule["anyOf"] if "type" in each), "")
        return (f"{literal} or " if literal else "") + REFERENCES[targets]
    form = rule.get("type", "table")
    inner = "text" if {"type": "string"} in (rule.get("items"), rule.get("additionalProperties")) else "tables"
    words = {**WORDS, "array": f"array of {inner}", "object": f"table of {inner}", "table": "table"}
    return words[form] + "".join(f", {word} {rule[bound]}" for bound, word in BOUNDS.items() if bound in rule)


def default(key: str, rule: dict[str, Any], field: FieldInfo) -> str:
    """The default of a key as it would be written."""
    if field.is_required() or key in {"to", "method"}:
        return "required"
    return f"`{toml(rule['default'])}`" if "default" in rule else "-"


def expected_rows(model: str) -> list[str]:
    """The rows of the reference for one table."""
    fields = MODELS[model].model_fields
    return [
        f"| `{key}` | {kind(rule, fields[key])} | {default(key, rule, fields[key])} | {rule['description']} |"
        for key, rule in rules(model).items()
    ]


def documented() -> Iterator[tuple[str, list[str]]]:
    """The headings of the reference that have a table of keys, and the rows of that table."""
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE):
        heading, _, body = section.partition("\n")
        rows = [line for line in body.splitlines() if line.startswith("| `")]
        if rows:
            yield heading, rows


@pytest.mark.parametrize(("heading", "model"), HEADINGS.items())
def test_reference_has_every_key(heading: str, model: str) -> None:
    """The reference has each key of each table with its type, default and meaning, and no other."""
    assert dict(documented()).get(heading) == expected_rows(model), "\n".join(["expected:", *expected_rows(model)])


def test_reference_has_every_table() -> None:
    """The reference has all tables of the model and no other."""
    assert [heading for heading, _ in documented()] == list(HEADINGS)
    assert set(HEADINGS.values()) == set(MODELS)


def tables(value: object) -> Iterator[Table]:
    """A table and all that it holds."""
    if isinstance(value, Table):
        yield value
        for name in type(value).model_fields:
            yield from tables(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from tables(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from tables(item)


def test_example_has_every_key() -> None:
    """config.example.toml is valid and writes every key of the model somewhere."""
    written: dict[str, set[str]] = {name: set() for name in MODELS}
    for table in tables(load(ROOT / "config.example.toml")):
        written[type(table).__name__] |= table.model_fields_set
    assert written == {name: set(model.model_fields) for name, model in MODELS.items()}


def test_example_has_the_defaults() -> None:
    """What config.example.toml says of the daemon, the log and rotation are the defaults."""
    example = load(ROOT / "config.example.toml")
    bare = Config(acaengine=example.acaengine)
    assert (example.admin, example.log, example.rotation) == (bare.admin, bare.log, bare.rotation)


def test_schema_is_of_the_written_file() -> None:
    """In the schema durations and modes are text with text for defaults, and what tells tables apart is required."""
    document = schema()
    definitions = document["$defs"]
    assert document["required"] == ["acaengine"]
    assert not document["additionalProperties"]
    assert definitions["EndpointConfig"]["properties"]["timeout"]["default"] == "10s"
    assert definitions["FilePublish"]["properties"]["mode"]["default"] == "0640"
    assert definitions["VaultPublish"]["required"] == ["to", "mount", "path"]
    assert definitions["TokenConfig"]["properties"]["verify"]["$ref"] == "#/$defs/VerifyConfig"
    secret = definitions["TokenConfig"]["properties"]["password"]["anyOf"]
    assert {choice["$ref"].rpartition("/")[2] for choice in secret} == {
        "EnvReference",
        "FileReference",
        "VaultReference",
    }


def test_every_key_is_described() -> None:
    """Every key of the schema has a description that is a sentence."""
    for model in MODELS:
        for key, rule in rules(model).items():
            assert rule["description"].endswith("."), f"{model}.{key}"
