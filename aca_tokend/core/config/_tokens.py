"""`[[tokens]]` and what belongs to one token, and the whole file."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, field_validator

from aca_tokend.core.config._addresses import RequestPath
from aca_tokend.core.config._choice import only, table_by
from aca_tokend.core.config._kinds import (
    DAY,
    Duration,
    FilePath,
    KvPath,
    Mode,
    Mount,
    Name,
    Owner,
    Published,
    Scope,
    Text,
)
from aca_tokend.core.config._references import SecretReference, TextOrReference, defined
from aca_tokend.core.config._rotation import RotationConfig
from aca_tokend.core.config._servers import AdminConfig, EndpointConfig, LogConfig, VaultConfig
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._wrong import listed, refuse
from aca_tokend.core.token import FIELDS


def default_name(names: tuple[str, ...]) -> str:
    """The one meant where none is named: the only one, else `main`; "" where that is not there either."""
    return names[0] if len(names) == 1 else "main" if "main" in names else ""


class VerifyConfig(Table):
    """Tries each new token before it is published, and the token in use from time to time."""

    path: RequestPath = Field(
        description="Path that answers 2xx to a token that works, and 401 to one that does not.",
        examples=["/api/engine/v2/users/current"],
    )
    every: Annotated[float, Duration(1, DAY, zero=True)] = Field(
        default=0.0,
        description='How often the token in use is tried too; one that died early is replaced. `"0s"` means never.',
    )


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


class TokenConfig(Table):
    """One token to keep."""

    name: Name = Field(description="Name of the token in logs, metrics and pages.", examples=["bookings"])
    acaengine: str = Field(
        default="",
        description="The `[acaengine.NAME]` that grants it; may be left out where there is only one.",
        examples=["main"],
        validate_default=True,
    )
    authority: Text = Field(description="Id of the authority the account belongs to.", examples=["authority-ID"])
    username: TextOrReference = Field(description="User name of the account.", examples=["svc-bookings"])
    password: SecretReference = Field(
        description="Password of the account. It is read again at each grant.",
        examples=[{"file": "/run/secrets/aca/bookings-password"}],
    )
    client_id: TextOrReference = Field(
        description="Id of the registered application.", examples=["d1be3a40ba9afbc1bb3e1bb0a4d1aa58"]
    )
    client_secret: SecretReference = Field(
        description="Secret of the registered application. It is read again at each grant.",
        examples=[{"env": "BOOKINGS_CLIENT_SECRET"}],
    )
    scope: Scope = Field(
        default="", description='Scopes to ask for, with spaces between; `""` asks for none.', examples=["public"]
    )
    verify: VerifyConfig | None = Field(
        default=None,
        description="Tries each new token before it is published.",
        examples=[{"path": "/api/engine/v2/users/current"}],
    )
    rotation: RotationConfig = Field(
        default=RotationConfig(), description="Overrides keys of `[rotation]`.", examples=[{"fraction": 0.5}]
    )
    publish: Annotated[tuple[Publish, ...], Field(strict=False, min_length=1)] = Field(
        description="Where the token is published.", examples=[[{"to": "file", "path": "/run/aca/bookings.json"}]]
    )

    @field_validator("acaengine")
    @classmethod
    def _defined(cls, value: str, info: ValidationInfo) -> str:
        # where there is no endpoint at all, the file as a whole is told so
        if info.context is None or not info.context.acaengine:
            return value
        names = info.context.acaengine
        if not value and len(names) > 1:
            refuse("missing, and there are several [acaengine.NAME]", f"add the one meant of {listed(names)}")
        defined("acaengine", value or names[0], names)
        return value or names[0]


class Config(Table):
    """The whole configuration."""

    include: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        default=(),
        description="Files with further `[[tokens]]`: names or patterns, relative to the folder of this file.",
        examples=[["tokens.d/*.toml"]],
    )
    admin: AdminConfig = Field(default=AdminConfig(), description="The pages for Prometheus, probes and people.")
    log: LogConfig = Field(default=LogConfig(), description="What is logged, and how.")
    acaengine: Annotated[dict[Name, EndpointConfig], Field(min_length=1)] = Field(
        description="The servers that grant tokens, by name.", examples=[{"main": {"url": "https://aca.example.com"}}]
    )
    vault: dict[Name, VaultConfig] = Field(
        default={}, description="The Vaults to publish to and to read secrets from, by name."
    )
    rotation: RotationConfig = Field(default=RotationConfig(), description="When tokens are rotated.")
    tokens: tuple[TokenConfig, ...] = Field(default=(), description="The tokens to keep.")
