"""`[[tokens.publish]]`: one table for each kind of place."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, field_validator

from aca_tokend.core.config._choice import only, table_by
from aca_tokend.core.config._kinds import FilePath, KvPath, Mode, Mount, Owner, Published, Text
from aca_tokend.core.config._references import defined
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._wrong import listed, refuse
from aca_tokend.core.token import FIELDS


def default_name(names: tuple[str, ...]) -> str:
    """The one meant where none is named: the only one, else `main`; "" where that is not there either."""
    return names[0] if len(names) == 1 else "main" if "main" in names else ""


class VaultPublish(Table):
    """Publishes to a KV secret in Vault or OpenBao."""

    to: Literal["vault"] = Field(default="vault", description="A KV secret in Vault or OpenBao.")
    vault_name: str = Field(
        default="",
        description="The `[vault.NAME]` to write to; left out, the only one, else `main`.",
        examples=["main"],
        validate_default=True,
    )
    mount: Mount = Field(description="Where the KV engine is mounted.", examples=["secret"])
    path: KvPath = Field(description="Path of the secret below the mount.", examples=["aca/bookings"])
    kv_version: Annotated[Literal[2], BeforeValidator(only("kv_version", 2, later=(1,)))] = Field(
        default=2, description="Version of the KV engine."
    )
    fields: dict[Published, Text] = Field(
        default={},
        description="Renames fields of the published document.",
        examples=[{"access_token": "token"}],
    )
    replace_foreign: bool = Field(
        default=False, description="Whether to replace a secret that this token did not write."
    )

    @field_validator("vault_name")
    @classmethod
    def _defined(cls, value: str, info: ValidationInfo) -> str:
        if info.context is None:
            return value
        names = info.context.vault
        name = value or default_name(names)
        if names and not name:
            refuse("missing, and no Vault of several is named main", f"add the one meant of {listed(names)}")
        defined("vault", name, names)
        return name

    @field_validator("fields")
    @classmethod
    def _renamed(cls, value: dict[str, str]) -> dict[str, str]:
        names = [value.get(field, field) for field in FIELDS]
        for field, name in value.items():
            if names.count(name) > 1:
                refuse("gives this field the name of another", "choose another name", below=field)
        return value


class FilePublish(Table):
    """Publishes to a file."""

    to: Literal["file"] = Field(default="file", description="A file.")
    path: FilePath = Field(description="Absolute path of the file.", examples=["/run/aca/bookings.json"])
    format: Annotated[
        Literal["json"], BeforeValidator(only("format", "json", later=("token", "header", "env", "template")))
    ] = Field(default="json", description="What the file holds: the whole document as JSON.")
    mode: Annotated[int, Mode()] = Field(
        default=0o640, description="Permissions of the file. Only the owner may write, and nobody may execute."
    )
    owner: Owner = Field(default="", description="User the file belongs to; left out, the daemon's.", examples=["aca"])
    group: Owner = Field(default="", description="Group the file belongs to; left out, the daemon's.", examples=["www"])
    replace_foreign: bool = Field(default=False, description="Whether to replace a file that this token did not write.")


Publish = Annotated[
    VaultPublish | FilePublish,
    PlainValidator(
        table_by("to", {"vault": VaultPublish, "file": FilePublish}), json_schema_input_type=VaultPublish | FilePublish
    ),
]
