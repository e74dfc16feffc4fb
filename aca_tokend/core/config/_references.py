"""References: where a value is to be found that is not written here. A reference is no secret and may be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field, PlainValidator, ValidationInfo, field_validator

from aca_tokend.core.config._kinds import CREDENTIALS, Environment, Name, SecretFile, kv_path, mount, text, visible
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._wrong import did_you_mean, kind_of, refuse

if TYPE_CHECKING:
    from collections.abc import Callable


class Names(NamedTuple):
    """What the file defines: the context in which a file is validated. Code that builds a table itself has none."""

    acaengine: tuple[str, ...]
    vault: tuple[str, ...]


def defined(table: str, name: str, names: tuple[str, ...]) -> None:
    """Refuses a name that no `[table.NAME]` has."""
    if not names:
        refuse(f"there is no [{table}.NAME]", f"add [{table}.main]")
    if name not in names:
        refuse(f"there is no [{table}.NAME] of this name", did_you_mean(name, names, "the names there are"))


class EnvReference(Table):
    """A reference to an environment variable of the daemon."""

    env: Environment = Field(
        description="Environment variable that holds the value.", examples=["BOOKINGS_CLIENT_SECRET"]
    )

    def __str__(self) -> str:
        return f"env {self.env}"


class FileReference(Table):
    """A reference to a file, such as one of a mounted Kubernetes Secret, or one that systemd loads for the service."""

    file: SecretFile = Field(
        description=(
            "Absolute path of the file that holds the value, or `$CREDENTIALS_DIRECTORY/NAME`. "
            "One newline at its end does not count."
        ),
        examples=["/run/secrets/aca/bookings-password", "$CREDENTIALS_DIRECTORY/bookings-password"],
    )

    @property
    def credential(self) -> str:
        """The name of the credential that it is, empty where it is any other file."""
        return self.file.removeprefix(CREDENTIALS) if self.file.startswith(CREDENTIALS) else ""

    def __str__(self) -> str:
        return f"file {self.file}"


class PublicFileReference(FileReference):
    """A reference to a file that its maker leaves readable to all: the kubelet does so with service account tokens."""


class VaultReference(Table):
    """A reference to a field of a KV secret."""

    vault: str = Field(
        description="The value's place as `mount/path#field`, without the `data/` of the HTTP API.",
        examples=["secret/aca/bookings#password"],
    )
    vault_name: Name = Field(default="main", description="The `[vault.NAME]` to ask.")

    @field_validator("vault")
    @classmethod
    def _shaped(cls, value: str) -> str:
        place, _, field = value.partition("#")
        first, _, path = place.partition("/")
        if not first or not path or not field or "#" in field:
            refuse("is not mount/path#field", 'write it as in { vault = "secret/aca/bookings#password" }')
        mount(first)
        kv_path(path)
        visible(field)
        return value

    @field_validator("vault_name")
    @classmethod
    def _defined(cls, value: str, info: ValidationInfo) -> str:
        if info.context is not None:
            defined("vault", value, info.context.vault)
        return value

    @property
    def mount(self) -> str:
        """Where the KV engine is mounted: the first segment."""
        return self.vault.partition("/")[0]

    @property
    def path(self) -> str:
        """The path of the secret below the mount."""
        return self.vault.partition("#")[0].partition("/")[2]

    @property
    def field(self) -> str:
        """The field of the secret that holds the value."""
        return self.vault.partition("#")[2]

    def __str__(self) -> str:
        return f"vault {self.vault}"


Reference = EnvReference | FileReference | VaultReference
LocalReference = EnvReference | FileReference

_TABLES: dict[str, type[Reference]] = {"env": EnvReference, "file": FileReference, "vault": VaultReference}


def _reader(
    *kinds: str, literal: type[str | int] | None = None, what: str = "a log-in to Vault"
) -> Callable[[object, ValidationInfo], str | int | Reference]:
    """A validator that takes references of these kinds and, with `literal`, text or a number; messages say `what`."""
    forms = " or ".join(f'{{ {kind} = "…" }}' for kind in kinds)

    def read(value: object, info: ValidationInfo) -> str | int | Reference:
        if isinstance(value, EnvReference | FileReference | VaultReference):
            return value
        if literal is not None and type(value) is literal:
            return text(value) if isinstance(value, str) else value
        if not isinstance(value, dict):
            # for a secret not even the kind of value is told
            if literal is not None:
                form = "text" if literal is str else "a number"
                refuse(f"must be {form} or a reference, not {kind_of(value)}", f"write it as {form}, or as {forms}")
            refuse(
                "is a secret, which is never written here",
                f"keep it elsewhere and write {info.field_name} = {forms}; change the secret if others saw this file",
            )
        found = [kind for kind in _TABLES if kind in value]
        if len(found) != 1:
            refuse("is not a reference" if not found else f"refers to {' and '.join(found)} at once", f"write {forms}")
        if found[0] not in kinds:
            refuse(f"{what} cannot come from Vault", f"write {forms}")
        return _TABLES[found[0]].model_validate(value, context=info.context)

    return read


SecretReference = Annotated[
    Reference, PlainValidator(_reader("env", "file", "vault"), json_schema_input_type=Reference)
]
TextOrReference = Annotated[
    str | Reference,
    PlainValidator(_reader("env", "file", "vault", literal=str), json_schema_input_type=str | Reference),
]
# What logs in to a Vault cannot wait for a log-in to one.
LocalSecretReference = Annotated[
    LocalReference, PlainValidator(_reader("env", "file"), json_schema_input_type=LocalReference)
]
TextOrLocalReference = Annotated[
    str | LocalReference,
    PlainValidator(_reader("env", "file", literal=str), json_schema_input_type=str | LocalReference),
]

NumberOrLocalReference = Annotated[
    int | LocalReference,
    PlainValidator(
        _reader("env", "file", literal=int, what="the number of a shard"), json_schema_input_type=int | LocalReference
    ),
]
