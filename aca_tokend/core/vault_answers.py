"""What the answers of a Vault mean, read from their JSON. Pure.

Each was written by somebody else and may be anything: what is not exactly what Vault says is None, never an error.
Nobody else looks into an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeGuard

from aca_tokend.core.login import OwnToken
from aca_tokend.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Json = Mapping[str, object]

# A century: Vault's own longest life of a token is a month, unless somebody changes it.
_MOST_SECONDS = 3_155_760_000
_MOST_VERSION = 2**53
# What a Vault token is made of. Anything else makes an invalid header.
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_WORD = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class KvRead:
    """The latest version of one KV secret.

    Attributes:
        fields: None where there is nothing, or where the latest version is deleted or destroyed.
        version: what a write must name as the version it replaces; 0 where there is nothing.
    """

    fields: Json | None = field(repr=False)
    version: int


@dataclass(frozen=True, slots=True)
class KvWritten:
    """The version that a write made, and whether there is custom metadata beside the secret."""

    version: int
    has_note: bool


@dataclass(frozen=True, slots=True)
class LoginAnswer:
    """A token that a log-in gave. `seconds` is 0 where it never expires; a batch token cannot be revoked."""

    token: Secret
    seconds: float
    renewable: bool
    batch: bool


@dataclass(frozen=True, slots=True)
class Health:
    """The state of one node. A standby passes what it is asked on to the active node."""

    initialised: bool
    sealed: bool
    standby: bool


def is_token(token: Secret) -> bool:
    """Whether a Vault token fits in a header."""
    return _TOKEN.fullmatch(token.reveal()) is not None


def secret_of(answer: Json) -> KvRead | None:
    """A secret of KV version 2."""
    match answer:
        case {"data": {"data": dict() as fields, "metadata": {"version": version}}} if _is_version(version):
            return KvRead(fields, version)
    return None


def absent_of(answer: Json) -> int | None:
    """The version of a secret that a 404 says is not there to read: 0, or that of the latest one, which is deleted."""
    match answer:
        case {"data": {"data": None, "metadata": {"version": version}}} if _is_version(version):
            return version
        case {"errors": []}:
            return 0
    return None


def written_of(answer: Json) -> KvWritten | None:
    """What a write to KV version 2 made."""
    match answer:
        case {"data": {"version": version, **rest}} if _is_version(version):
            return KvWritten(version, has_note=bool(rest.get("custom_metadata")))
    return None


def fields_of(answer: Json) -> Json | None:
    """A secret of KV version 1."""
    match answer:
        case {"data": dict() as fields}:
            return fields
    return None


def capabilities_of(answer: Json, paths: Sequence[str]) -> Mapping[str, frozenset[str]] | None:
    """What our token may do on each of these paths."""
    match answer:
        case {"data": dict() as found} if all(isinstance(found.get(path), list) for path in paths):
            return {path: frozenset(_words(found[path])) for path in paths}
    return None


def kv_version_of(answer: Json, mount: str) -> int | None:
    """The version of the KV engine mounted there; None also where another engine is."""
    match answer:
        case {"data": {"type": "kv", "path": str() as path, **rest}} if path.strip("/") == mount:
            match rest.get("options"):
                case {"version": "2"}:
                    return 2
                case None | {"version": "1"}:
                    return 1
                case dict() as options if "version" not in options:
                    return 1
    return None


def login_of(answer: Json) -> LoginAnswer | None:
    """What a log-in gave."""
    match answer:
        case {"auth": {"client_token": str() as text, "lease_duration": seconds, **rest}} if _is_seconds(seconds):
            token = Secret(text)
            if is_token(token):
                batch = rest.get("token_type") == "batch"
                return LoginAnswer(token, float(seconds), rest.get("renewable") is True, batch)
    return None


def renewal_of(answer: Json) -> tuple[float, bool] | None:
    """How long our token lives from now on, and whether it can be renewed again."""
    match answer:
        case {"auth": {"lease_duration": seconds, "renewable": bool() as renewable}} if _is_seconds(seconds):
            return float(seconds), renewable
    return None


def own_token_of(answer: Json, asked_at: float) -> OwnToken | None:
    """What Vault says of our token, asked at this moment of the wall clock."""
    match answer:
        case {"data": {"ttl": seconds, **rest}} if _is_seconds(seconds):
            # 0 is said of a token that never expires, and of one that does within the second
            ttl = float(seconds) if seconds or rest.get("expire_time") else None
            return OwnToken(
                ttl_seconds=ttl,
                renewable=rest.get("renewable") is True,
                kind="batch" if rest.get("type") == "batch" else "service",
                policies=_words(rest.get("policies")),
                expires_at=None if ttl is None else asked_at + ttl,
            )
    return None


def health_of(answer: Json) -> Health | None:
    """What a node says of its own state."""
    match answer:
        case {"initialized": bool() as initialised, "sealed": bool() as sealed, "standby": bool() as standby}:
            return Health(initialised, sealed, standby)
    return None


def _is_version(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_VERSION


def _is_seconds(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_SECONDS


def _words(value: object) -> tuple[str, ...]:
    """The words among what should be a list of them."""
    words = value if isinstance(value, list) else ()
    return tuple(word for word in words if isinstance(word, str) and _WORD.fullmatch(word))
