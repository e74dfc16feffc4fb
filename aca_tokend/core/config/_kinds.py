"""The kinds of single values: what a duration, a name, a path may look like, and what to say otherwise.

No message repeats a value: it may be a password that was put into the wrong place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import core_schema

from aca_tokend.core.config._wrong import did_you_mean, kind_of, refuse
from aca_tokend.core.durations import PATTERN, format_duration, parse_duration
from aca_tokend.core.guard import RECORD
from aca_tokend.core.token import FIELDS, OWNER, is_scope

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
    from pydantic.json_schema import JsonSchemaValue

# What the names are like of the files that a sink keeps beside a token's (sinks/file.py).
_BESIDE = re.compile(rf"\..+\.({RECORD}|lock|published|tmp)")
# How a file begins that is one of those which systemd loads for the service.
CREDENTIALS = "$CREDENTIALS_DIRECTORY/"
HOUR = 3_600.0
DAY = 24 * HOUR
YEAR = 366 * DAY


@dataclass(frozen=True, slots=True)
class Duration:
    """Marks seconds from `low` to `high`, with `zero` also 0.

    A file has them as `"10s"`, and so has a default; code may give the number.
    """

    low: float
    high: float
    zero: bool = False

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Reads the text before pydantic looks at the number."""
        return core_schema.with_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describes the text."""
        return {"type": "string", "pattern": PATTERN}

    def _read(self, value: object, info: ValidationInfo) -> object:
        fix = 'write it as whole numbers with units, such as "10s", "2h30m" or "500ms"'
        if not isinstance(value, str):
            return value if info.context is None else refuse(f"must be a duration, not {kind_of(value)}", fix)
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            refuse(str(error), fix)
        if not (self.low <= seconds <= self.high or (self.zero and seconds == 0)):
            bounds = f"must be from {format_duration(self.low)} to {format_duration(self.high)}"
            refuse(bounds + (", or 0s" if self.zero else ""), "choose a duration in this range")
        return seconds


def written(text: str, **about: Any) -> Any:  # noqa: ANN401 -- as pydantic has it
    """A field whose default stands here as it would in a file."""
    return Field(default=text, **about)


def _mode(value: object, info: ValidationInfo) -> object:
    """Reads permission bits, written as `"0640"`.

    A reader needs to read and nothing more, so only the owner may write and nobody may execute: whoever could write
    would get around the rule that an older token never replaces a newer one. Reading is allowed even to all, because in
    a pod the volume, not the mode, is often what keeps others out.
    """
    fix = 'write it as a zero and three octal digits in quotes, such as "0640"'
    if not isinstance(value, str):
        return value if info.context is None else refuse(f"must be text, not {kind_of(value)}", fix)
    if not re.fullmatch("0[0-7]{3}", value):
        refuse("is not a file mode", fix)
    if re.search("[2367]", value[2:]):
        refuse("lets others write the file", 'leave writing to the owner: "0640", or "0644" where all may read')
    if re.search("[1357]", value):
        refuse("lets the file be executed", 'give no more than reading and writing, such as "0640"')
    if value[1] not in "46":
        refuse("keeps the owner from reading the file", 'let the owner read and write, such as "0640"')
    return int(value, 8)


def visible(value: str) -> str:
    """Refuses control and invisible characters, which are never meant."""
    if not value.isprintable():
        refuse("has a control or invisible character", "remove that character")
    return value


def text(value: str) -> str:
    """Refuses an empty text, and what `visible` refuses."""
    if not value:
        refuse("is empty", "give it a value")
    return visible(value)


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", value):
        refuse(
            "is not a name that labels and file names can carry",
            "use at most 128 letters, digits, dots, underscores and hyphens, a letter or digit first",
        )
    return value


def _scope(value: str) -> str:
    if value and not is_scope(value):
        fix = 'write words of letters, digits and ._:/+- with one space between them, such as "public"'
        refuse("is not a list of scopes", fix)
    return value


def _file(value: str) -> str:
    visible(value)
    if value and not value.startswith("/"):
        refuse("is not an absolute path", "write the whole path, beginning with /")
    if value.endswith("/"):
        refuse("names a directory", "name a file in it")
    if {".", ".."} & set(value.split("/")):
        refuse("has a . or .. in it", "write the path without them")
    return value


def _needed_file(value: str) -> str:
    return _file(text(value))


def _secret_file(value: str) -> str:
    name = value.removeprefix(CREDENTIALS)
    if name == value:
        return _needed_file(value)
    # systemd hands over files without folders, and lets no name begin with a dot
    if not visible(name) or "/" in name or name.startswith("."):
        refuse("is not the name of a credential", "write the NAME of LoadCredential=NAME:PATH behind it")
    return value


def _place(value: str) -> str:
    if _BESIDE.fullmatch(value.rpartition("/")[2]):
        refuse("is named like the daemon's own files beside a token's", "choose another name")
    return value


def _directory(value: str) -> str:
    if value.endswith("/") and value != "/":
        refuse("ends with a slash", "leave that slash out")
    return _place(_needed_file(value))


def _file_name(value: str) -> str:
    text(value)
    if value.startswith("."):
        refuse("begins with a dot, as the daemon's own files in the directory do", "choose another name")
    if "/" in value:
        refuse("has a slash in it", "name a file of the directory itself")
    if len(value.encode()) > 255:  # noqa: PLR2004 -- NAME_MAX of Linux
        refuse("is too long for a file name", "use at most 255 bytes")
    return value


def _slashed(value: str) -> str:
    """A path as Vault takes it."""
    if value.startswith("/") or value.endswith("/"):
        refuse("begins or ends with a slash", "leave that slash out")
    if {"", ".", ".."} & set(value.split("/")):
        refuse("has an empty, . or .. segment", "write it as names with one slash between them")
    if "+" in value.split("/"):  # https://openbao.org/docs/concepts/policies/#policy-syntax
        refuse("has the segment +, which means any name in a policy", "choose another name for that segment")
    if not re.fullmatch(r"[A-Za-z0-9._~@:+=/-]+", value):
        refuse("has a character that is not used here", "use letters, digits and . _ ~ @ : + = - between the slashes")
    return value


def mount(value: str) -> str:
    """Where something is mounted in Vault."""
    return _slashed(text(value))


def kv_path(value: str) -> str:
    """The path of a KV secret below its mount."""
    _slashed(text(value))
    first, slash, _ = value.partition("/")
    if slash and first in {"data", "metadata"}:
        # people paste the path of the HTTP API, where KV version 2 has this between mount and path
        refuse(f"begins with {first}/, which only the HTTP API puts there", f"leave {first}/ out")
    if value.endswith(f".{RECORD}"):
        refuse("ends as the attempt record of a token does", "give the secret another name")
    return value


def _namespace(value: str) -> str:
    return _slashed(value) if value else value


def _owner(value: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?", value):
        refuse("is not the name or number of a user or group", "write a name or, in quotes, a number")
    return value


def _environment(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        refuse(
            "is not the name of an environment variable", "write the variable's name, without $ and without its value"
        )
    return value


def _published(value: str) -> str:
    if value == OWNER:
        refuse("is the one field that has this name in every secret", "leave it out")
    if value not in FIELDS:
        refuse("is not a published field", did_you_mean(value, FIELDS, "the fields"))
    return value


Text = Annotated[str, AfterValidator(text)]
Name = Annotated[str, AfterValidator(_name)]
Scope = Annotated[str, AfterValidator(_scope)]
OptionalFile = Annotated[str, AfterValidator(_file)]
DirectoryPath = Annotated[str, AfterValidator(_directory)]
FileName = Annotated[str, AfterValidator(_file_name)]
FileMode = Annotated[int, BeforeValidator(_mode), WithJsonSchema({"type": "string", "pattern": "^0[46][04][04]$"})]
FilePath = Annotated[str, AfterValidator(_needed_file)]
PlacePath = Annotated[FilePath, AfterValidator(_place)]
SecretFile = Annotated[str, AfterValidator(_secret_file)]
Mount = Annotated[str, AfterValidator(mount)]
KvPath = Annotated[str, AfterValidator(kv_path)]
Namespace = Annotated[str, AfterValidator(_namespace)]
Owner = Annotated[str, AfterValidator(_owner)]
Environment = Annotated[str, AfterValidator(_environment)]
Published = Annotated[str, AfterValidator(_published)]
