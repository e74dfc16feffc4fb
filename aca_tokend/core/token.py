"""The published document: what readers get, how it is written down, and when one document may replace another.

Pure: times come in as arguments. The fields are a contract with readers (docs/contract.md).
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aca_tokend.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

# A document issued further ahead of our clock than this was written by a clock that was wrong, or ours is.
PLAUSIBLE_SKEW = timedelta(minutes=5)

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

Value = str | int | None


class NotADocumentError(ValueError):
    """What was read is not a document of ours; the message says why and holds no value."""


@dataclass(frozen=True, slots=True)
class Document:
    """One published token with all that readers need. All times are aware UTC, to the microsecond."""

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

    def fields(self) -> dict[str, Value]:
        """The document as the fields of a KV secret or the keys of a JSON file. Reveals the access token."""
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

    def valid_at(self, now: datetime) -> bool:
        """Whether the token works at `now`, as far as its own times tell."""
        return self.expires_at > now

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
        stamp: the sink's own mark of exactly this content (a KV version, a file's identity), compared by `publish`.
        foreign: in a few words why what is there is not a document; None where it is one, or nothing.
        outdated: the document is there in another form than the sink would write it in now.
    """

    document: Document | None
    stamp: object
    foreign: str | None = None
    outdated: bool = False


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


def parse_document(fields: Mapping[str, object]) -> Document:
    """Reads back what `Document.fields` wrote, whichever daemon wrote it. Unknown further fields are ignored.

    Raises:
        NotADocumentError: a field is missing or not of its kind.
    """
    token = _text(fields, "access_token")
    if not re.fullmatch(r"[\x21-\x7E]+", token):
        message = "access_token does not fit in a header"
        raise NotADocumentError(message)
    expires_in = fields.get("expires_in")
    if expires_in is not None and (isinstance(expires_in, bool) or not isinstance(expires_in, int)):
        message = "expires_in is not a whole number"
        raise NotADocumentError(message)
    return Document(
        access_token=Secret(token),
        token_type=_text(fields, "token_type"),
        issued_at=_time(fields, "issued_at"),
        expires_at=_time(fields, "expires_at"),
        refresh_after=_time(fields, "refresh_after"),
        expires_in=expires_in,
        scope=_text(fields, "scope"),
        username=_text(fields, "username"),
        authority=_text(fields, "authority"),
        account=_text(fields, "account"),
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
