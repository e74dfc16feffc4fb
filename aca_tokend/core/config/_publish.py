"""`[[tokens.publish]]`: one table for each kind of place."""

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, field_validator

from aca_tokend.core.config._choice import table_by
from aca_tokend.core.config._hooks import After, AfterField
from aca_tokend.core.config._kinds import (
    DirectoryPath,
    FileMode,
    FileName,
    KvPath,
    Mount,
    Owner,
    PlacePath,
    Published,
    Text,
    written,
)
from aca_tokend.core.config._references import defined
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._wrong import did_you_mean, listed, refuse
from aca_tokend.core.formats import Format, template_problem
from aca_tokend.core.token import FIELDS, OWNER


def default_name(names: tuple[str, ...]) -> str:
    """The one meant where none is named: the only one, else `main`; "" where that is not there either."""
    return names[0] if len(names) == 1 else "main" if "main" in names else ""


def _kv_version(value: object) -> object:
    if type(value) is not int or value not in {1, 2}:  # true is 1 to Python
        refuse("must be 1 or 2", "write kv_version = 2")
    return value


class VaultPublish(Table):
    """Publishes to a KV secret in Vault or OpenBao."""

    to: Literal["vault"] = Field(default="vault", description="A KV secret in Vault or OpenBao.")
    vault_name: str = Field(
        default="",
        description="The `[vault.NAME]` to write to; left out, the only one, else `main`.",
        examples=["main"],
    )
    mount: Mount = Field(description="Where the KV engine is mounted.", examples=["secret"])
    path: KvPath = Field(description="Path of the secret below the mount.", examples=["aca/bookings"])
    kv_version: Annotated[Literal[1, 2], BeforeValidator(_kv_version)] = Field(
        default=2, description="Version of the KV engine."
    )
    fields: dict[Published, Text] = Field(
        default={},
        description="Renames fields of the published document.",
        examples=[{"access_token": "api_token"}],
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
            if name == OWNER:
                refuse(
                    "gives this field the name token, under which the daemon writes the name of the token",
                    "choose another name",
                    below=field,
                )
            if names.count(name) > 1:
                refuse("gives this field the name of another", "choose another name", below=field)
        return value


def _template(value: str, info: ValidationInfo) -> str:
    form = info.data.get("format")
    if form != "template":
        if value and form is not None:
            refuse('is for format = "template" alone', 'write format = "template", or leave template out')
        return value
    if not value:
        refuse("missing", 'add template = "Authorization: {{ authorization }}"')
    problem = template_problem(value)
    if problem is not None:
        fix = problem.fix or did_you_mean(problem.unknown, problem.known, "those there are")
        refuse((f"line {problem.line}: " if problem.line else "") + problem.problem, fix)
    return value


Template = Annotated[str, AfterValidator(_template)]
_FORMAT: Any = Field(default="json", description="What the file holds.")
_TEMPLATE: Any = Field(
    default="",
    description='Jinja2 that makes the file, with `format = "template"`.',
    examples=["Authorization: {{ authorization }}"],
)


class FilePublish(Table):
    """Publishes to a file."""

    to: Literal["file"] = Field(default="file", description="A file.")
    path: PlacePath = Field(description="Absolute path of the file.", examples=["/run/aca/bookings.json"])
    format: Format = _FORMAT
    template: Template = _TEMPLATE
    mode: FileMode = written(
        "0640", description="Permissions of the file. Only the owner may write, and nobody may execute."
    )
    owner: Owner = Field(default="", description="User the file belongs to; left out, the daemon's.", examples=["aca"])
    group: Owner = Field(default="", description="Group the file belongs to; left out, the daemon's.", examples=["www"])
    replace_foreign: bool = Field(default=False, description="Whether to replace a file that this token did not write.")
    after: AfterField = Field(
        default=None,
        description="What is run once the file was written.",
        examples=[{"command": ["nginx", "-s", "reload"]}],
    )


class FormatConfig(Table):
    """One file of a directory."""

    format: Format = _FORMAT
    template: Template = _TEMPLATE


class DirectoryPublish(Table):
    """Publishes to several files that are swapped as one."""

    to: Literal["directory"] = Field(default="directory", description="Several files that are swapped as one.")
    path: DirectoryPath = Field(
        description="Absolute path of the directory, which must be there.", examples=["/run/aca/bookings"]
    )
    files: Annotated[dict[FileName, FormatConfig], Field(min_length=1)] = Field(
        description="The files, by name.", examples=[{"token": {"format": "token"}}]
    )
    mode: FileMode = written(
        "0640", description="Permissions of the files. Only the owner may write, and nobody may execute."
    )
    owner: Owner = Field(default="", description="User the files belong to; left out, the daemon's.", examples=["aca"])
    group: Owner = Field(default="", description="Group the files belong to; left out, the daemon's.", examples=["www"])
    replace_foreign: bool = Field(
        default=False, description="Whether to replace what this token did not write under the names it needs."
    )
    after: AfterField = Field(
        default=None,
        description="What is run once the files were written.",
        examples=[{"command": ["nginx", "-s", "reload"]}],
    )


AnyFiles = FilePublish | DirectoryPublish
AnyPublish = VaultPublish | AnyFiles


def after_of(publish: AnyPublish) -> After | None:
    """What is run once it was written."""
    return None if isinstance(publish, VaultPublish) else publish.after


Publish = Annotated[AnyPublish, PlainValidator(table_by("to", get_args(AnyPublish)), json_schema_input_type=AnyPublish)]
