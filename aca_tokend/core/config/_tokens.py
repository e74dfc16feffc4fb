"""`[[tokens]]` and what belongs to one token, and the whole file."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from aca_tokend.core.config._addresses import RequestPath
from aca_tokend.core.config._kinds import DAY, Duration, Name, Scope, Text, written
from aca_tokend.core.config._publish import Publish, VaultPublish
from aca_tokend.core.config._references import Reference, SecretReference, TextOrReference, VaultReference, defined
from aca_tokend.core.config._rotation import RotationConfig
from aca_tokend.core.config._servers import AdminConfig, EndpointConfig, LogConfig, VaultConfig
from aca_tokend.core.config._shard import ShardConfig
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._wrong import listed, refuse


class VerifyConfig(Table):
    """Tries each new token before it is published, and the token in use from time to time."""

    path: RequestPath = Field(
        description="Path that answers 2xx to a token that works, and 401 to one that does not.",
        examples=["/api/engine/v2/users/current"],
    )
    every: Annotated[float, Duration(1, DAY, zero=True)] = written(
        "0s",
        description='How often the token in use is tried too; one that died early is replaced. `"0s"` means never.',
    )


class TokenConfig(Table):
    """One token to keep."""

    name: Name = Field(description="Name of the token in logs, metrics and pages.", examples=["bookings"])
    acaengine: str = Field(
        default="",
        description="The `[acaengine.NAME]` that grants it; may be left out where there is only one.",
        examples=["main"],
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


def references(token: TokenConfig) -> tuple[Reference, ...]:
    """The references that one grant resolves."""
    values = (token.username, token.password, token.client_id, token.client_secret)
    return tuple(value for value in values if not isinstance(value, str))


def vaults_of(token: TokenConfig) -> Iterator[str]:
    """The Vaults that a token is published to or takes a secret from; some may come twice."""
    for target in token.publish:
        if isinstance(target, VaultPublish):
            yield target.vault_name
    for reference in references(token):
        if isinstance(reference, VaultReference):
            yield reference.vault_name


class Config(Table):
    """The whole configuration."""

    include: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        default=(),
        description="Files with further `[[tokens]]`: names or patterns, relative to the folder of this file.",
        examples=[["tokens.d/*.toml"]],
    )
    admin: AdminConfig = Field(default=AdminConfig(), description="The pages for Prometheus, probes and people.")
    shard: ShardConfig | None = Field(
        default=None, description="This daemon's share of the tokens; left out, it keeps them all."
    )
    log: LogConfig = Field(default=LogConfig(), description="What is logged, and how.")
    acaengine: Annotated[dict[Name, EndpointConfig], Field(min_length=1)] = Field(
        description="The servers that grant tokens, by name.", examples=[{"main": {"url": "https://aca.example.com"}}]
    )
    vault: dict[Name, VaultConfig] = Field(
        default={}, description="The Vaults to publish to and to read secrets from, by name."
    )
    rotation: RotationConfig = Field(default=RotationConfig(), description="When tokens are rotated.")
    tokens: tuple[TokenConfig, ...] = Field(default=(), description="The tokens to keep.")
