"""The published document: what readers get, how it is written down, and when one document may replace another.

Pure: times come in as arguments. The fields are a contract with readers (docs/contract.md).
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aca_tokend.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

# A document issued further ahead of our clock than this was written by a clock that was wrong, or ours is.
PLAUSIBLE_SKEW = timedelta(minutes=5)
MAX_TOKEN_LENGTH = 16 * 1024
MAX_SCOPE_LENGTH = 4096
# Longer than any token of this software lives, and short enough for every calendar.
MAX_LIFETIME_SECONDS = 10 * 365 * 86400

# What readers get in every format, what templates know, and what a KV secret may call by another name.
FIELDS = (
    "access_token",
    "token_type",
    "authorization",
    "expires_at",
    "issued_at",
    "refresh_after",
    "expires_in",
    "scope",
    "username",
    "authority",
    "account",
)
# The name of the token in the configuration, beside them in JSON and in KV secrets, always under this name: daemons
# alone need it, and a file in another format must not change where only this one is new.
OWNER = "token"

_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
# Narrower than RFC 6749, section 3.3: a template may print it where `;` or `$(` begins something else.
_SCOPE = re.compile(r"[A-Za-z0-9._:/+-]+( [A-Za-z0-9._:/+-]+)*")

Value = str | int | None


class NotADocumentError(ValueError):
    """What was read is not a document of ours; the message says why and holds no value."""


@dataclass(frozen=True, slots=True)
class Document:
    """One published token with all that readers need. All times are aware UTC, to the microsecond.

    `account` is whose token it is, and decides what may be adopted. `token` is the name of the `[[tokens]]` that wrote
    it, and decides what may be replaced; it is empty in a document from before this field. Two documents that differ in
    it alone are equal: they hold the same token.
    """

    access_token: Secret
    issued_at: datetime
    expires_at: datetime
    refresh_after: datetime
    expires_in: int | None
    scope: str
    username: str
    authority: str
    account: str
    token_type: str = "Bearer"  # noqa: S105 -- a scheme, not a password
    token: str = field(default="", compare=False)

    def fields(self) -> dict[str, Value]:
        """The document as the fields of a KV secret or the keys of a JSON file. Reveals the access token."""
        return self.reader_fields() | ({OWNER: self.token} if self.token else {})

    def reader_fields(self) -> dict[str, Value]:
        """What every format has of it: `FIELDS`, without the field for daemons. Reveals the access token."""
        return {
            "access_token": self.access_token.reveal(),
            "token_type": self.token_type,
            "authorization": f"{self.token_type} {self.access_token.reveal()}",
            "expires_at": rfc3339(self.expires_at),
            "issued_at": rfc3339(self.issued_at),
            "refresh_after": rfc3339(self.refresh_after),
            "expires_in": self.expires_in,
            "scope": self.scope,
            "username": self.username,
            "authority": self.authority,
            "account": self.account,
        }

    def plausible_at(self, now: datetime) -> bool:
        """Whether its issue time can be believed: one in the future was written by a clock that was wrong."""
        return self.issued_at <= now + PLAUSIBLE_SKEW

    def issued_after(self, other: Document) -> bool:
        """Whether this token was issued later than `other`; of two issued at once, the one that expires later is."""
        return (self.issued_at, self.expires_at) > (other.issued_at, other.expires_at)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a sink held when it was read.

    Attributes:
        document: None where there is nothing, or nothing that can be read as a document.
        stamp: the sink's own mark of exactly this content (a KV version with its time, a digest of a file), compared by
            `publish`. Two equal stamps mean the same content.
        foreign: in a few words why what is there is not a document; None where it is one, or nothing.
        outdated: the document is there in another form than the sink would write it in now. A document that lacks only
            `token` is not.
        token: where what is there is not a document, the name it says it was written for: a KV secret whose `fields`
            had other names says so. It may be anything of anybody's, so it is compared and never shown.
    """

    document: Document | None
    stamp: object
    foreign: str | None = None
    outdated: bool = False
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """Whose token it is. Two documents with one fingerprint come from the same server, tenant, user and client."""

    host: str
    authority: str
    username: str
    client_id: str

    @property
    def fingerprint(self) -> str:
        """128 bits of SHA-256 over the parts, each with its length, as 32 hexadecimal digits. No part is secret."""
        parts = (self.host.lower(), self.authority, self.username, self.client_id)
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def moment(wall: float | None) -> datetime | None:
    """A wall time, in seconds; None for never, and for what is beyond any calendar."""
    if wall is None or not math.isfinite(wall):
        return None
    try:
        return datetime.fromtimestamp(wall, UTC)
    except (OverflowError, ValueError):
        return None


def rfc3339(moment: datetime) -> str:
    """An aware time as RFC 3339 in UTC, such as `2026-11-24T06:00:00.250000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def fits_in_header(token: Secret) -> bool:
    """Whether a token is one that RFC 6750, section 2.1, lets stand behind `Bearer `, and at most 16 KB long.

    Nothing of this alphabet has a meaning in a header, in a shell's or systemd's double quotes, or in JSON.
    """
    text = token.reveal()
    return len(text) <= MAX_TOKEN_LENGTH and _B64TOKEN.fullmatch(text) is not None


def is_scope(text: str) -> bool:
    """Whether a text is a list of scopes, each a plain word: the only ones that we ask for, take and adopt."""
    return len(text) <= MAX_SCOPE_LENGTH and _SCOPE.fullmatch(text) is not None


def owned(document: Document, *, token: str, account: str) -> bool:
    """Whether a document was written for this token, by whichever daemon, and so may be replaced.

    The name decides, whatever became of the account since. A document from before that field is ours where its account
    is.
    """
    return document.token == token if document.token else document.account == account


def implausible(document: Document, *, username: str, authority: str, now: datetime, max_lifetime: float) -> str | None:
    """Why a document may not be adopted, in words without its values; None where it may.

    Every field that could reach another place is held to what a grant of our own could have put there, so whoever can
    write one place can put neither words into the files of another nor a token there that ends in years. Whether the
    account is ours and the token has not expired is asked elsewhere. `max_lifetime` is in seconds.
    """
    lifetime = document.expires_at - document.issued_at
    scoped = not document.scope or is_scope(document.scope)
    # only bounded: a JWT may end sooner than the server says
    named = document.expires_in is None or 1 <= document.expires_in <= MAX_LIFETIME_SECONDS
    rules = (
        (document.token_type == "Bearer", "its token_type is not Bearer"),  # noqa: S105 -- a scheme, not a password
        (fits_in_header(document.access_token), "its access_token has a character or a length that no token has"),
        (document.username == username, "its username is not the configured one"),
        (document.authority == authority, "its authority is not the configured one"),
        (scoped, "its scope is not a list of plain words"),
        (named, "its expires_in is below 1 second or above 10 years"),
        (document.plausible_at(now), "it was issued in the future"),
        (lifetime > timedelta(0), "it expires before it was issued"),
        (lifetime <= timedelta(seconds=max_lifetime), "it is valid for longer than max_lifetime"),
        (
            document.issued_at <= document.refresh_after <= document.expires_at,
            "its refresh_after is not between issued_at and expires_at",
        ),
    )
    return next((why for holds, why in rules if not holds), None)


def parse_document(fields: Mapping[str, object]) -> Document:
    """Reads back what `Document.fields` wrote, whichever daemon wrote it. Unknown further fields are ignored.

    Raises:
        NotADocumentError: a field is missing or not of its kind. `token` alone may be missing.
    """
    token = Secret(_text(fields, "access_token"))
    if not fits_in_header(token):
        message = "access_token does not fit in a header"
        raise NotADocumentError(message)
    expires_in = fields.get("expires_in")
    if expires_in is not None and (isinstance(expires_in, bool) or not isinstance(expires_in, int)):
        message = "expires_in is not a whole number"
        raise NotADocumentError(message)
    return Document(
        access_token=token,
        token_type=_text(fields, "token_type"),
        issued_at=_time(fields, "issued_at"),
        expires_at=_time(fields, "expires_at"),
        refresh_after=_time(fields, "refresh_after"),
        expires_in=expires_in,
        scope=_text(fields, "scope"),
        username=_text(fields, "username"),
        authority=_text(fields, "authority"),
        account=_text(fields, "account"),
        token=_text(fields, OWNER) if OWNER in fields else "",
    )


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        message = f"{name} is missing" if value is None else f"{name} is not text"
        raise NotADocumentError(message)
    try:
        value.encode()
    except UnicodeEncodeError:  # half a character, as JSON can spell it
        message = f"{name} is not text"
        raise NotADocumentError(message) from None
    return value


def _time(fields: Mapping[str, object], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(fields, name))
    except ValueError:
        message = f"{name} is not an RFC 3339 time"
        raise NotADocumentError(message) from None
    if moment.tzinfo is None:
        message = f"{name} has no time zone"
        raise NotADocumentError(message)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        message = f"{name} is out of range"
        raise NotADocumentError(message) from None
