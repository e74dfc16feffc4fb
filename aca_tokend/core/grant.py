"""What a password grant sends, and what an answer to it means. Pure: bytes and headers in, a `Grant` or an error out.

Tokens are opaque: nothing is asked of them but the alphabet of RFC 6750. Where one happens to be a JWT, its own claims
may only shorten the life that the server named. A `refresh_token` is dropped: the first use of a refreshed token would
revoke the one that readers still hold.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.answer import Answer, status_reason
from aca_tokend.core.errors import GrantError, VerifyError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import MAX_LIFETIME_SECONDS, fits_in_header, is_scope

if TYPE_CHECKING:
    from collections.abc import Mapping

# Far above any token with its JSON, far below what could hurt. An answer is read this far and one byte more.
MAX_BODY_BYTES = 64 * 1024

OK = 200

# The statuses whose body may name an OAuth error (RFC 6749, section 5.2, and what proxies and rewrites make of it).
_TELLING_STATUSES = frozenset({400, 401, 403, 422})
_CODES = {
    "invalid_grant": Reason.INVALID_GRANT,
    "invalid_client": Reason.INVALID_CLIENT,
    "unauthorized_client": Reason.UNAUTHORIZED_CLIENT,
    "invalid_scope": Reason.INVALID_SCOPE,
    "invalid_request": Reason.INVALID_REQUEST,
    "unsupported_grant_type": Reason.UNSUPPORTED_GRANT_TYPE,
    "temporarily_unavailable": Reason.UNAVAILABLE,
    "server_error": Reason.SERVER_ERROR,
}

_JWT_PARTS = 3


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one grant sends, resolved a moment before."""

    username: str
    password: Secret
    authority: str
    client_id: str
    client_secret: Secret
    scope: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A granted token.

    Attributes:
        expires_in: the lifetime in seconds as the server gave it; None where it named none.
        lifetime_seconds: how long the token works from the moment the request was sent; a JWT's own claims may make it
            shorter than `expires_in`. None where nothing tells.
        scope: the scope the server names, else the one asked for.
        request_id: the server's `x-request-id`.
        skew_seconds: the server's `Date` minus our clock; None where it sent none.
    """

    access_token: Secret
    expires_in: int | None
    lifetime_seconds: float | None
    scope: str
    status: int
    request_id: str | None
    skew_seconds: float | None


def form(credentials: Credentials) -> dict[str, str]:
    """The parameters of a password grant, with the secrets revealed: for the line that encodes and sends them."""
    parameters = {
        "grant_type": "password",
        "username": credentials.username,
        "password": credentials.password.reveal(),
        "authority": credentials.authority,
        "client_id": credentials.client_id,
        "client_secret": credentials.client_secret.reveal(),
    }
    if credentials.scope:
        parameters["scope"] = credentials.scope
    return parameters


def read_answer(answer: Answer, asked_scope: str) -> Grant:
    """The token in an answer to a password grant.

    Raises:
        GrantError: its reason says whether the server refused the credential, failed, or gave no token to use.
    """
    if answer.status != OK:
        raise _refusal(answer)
    if len(answer.body) > MAX_BODY_BYTES:
        raise _malformed(answer, Reason.RESPONSE_TOO_LARGE, f"more than {MAX_BODY_BYTES} bytes")
    fields = _json_object(answer.body)
    if fields is None:
        raise _malformed(answer, Reason.NOT_JSON, "a body that is not a JSON object")
    token = _access_token(answer, fields)
    expires_in = _expires_in(answer, fields)
    return Grant(
        access_token=token,
        expires_in=expires_in,
        lifetime_seconds=_lifetime(answer, expires_in, token),
        scope=_scope(fields, asked_scope),
        status=answer.status,
        request_id=answer.request_id,
        skew_seconds=answer.skew_seconds,
    )


def read_verification(answer: Answer) -> None:
    """Whether the new token works, by the answer to an authenticated GET.

    Raises:
        VerifyError: with TOKEN_REFUSED for 401 and 403; anything but 2xx besides says nothing about the token.
    """
    if 200 <= answer.status <= 299:  # noqa: PLR2004 - HTTP's own range
        return
    refused = answer.status in {401, 403}
    raise VerifyError(
        Reason.TOKEN_REFUSED if refused else status_reason(answer.status),
        f"{answer.place} answered {answer.status}{' to the new token' if refused else ''}",
        retry_after_seconds=answer.retry_after_seconds,
        request_id=answer.request_id,
    )


def _refusal(answer: Answer) -> GrantError:
    """The error in an answer other than 200: by its status, and by an OAuth code where the status may carry one."""
    fields = _json_object(answer.body) if answer.status in _TELLING_STATUSES else None
    code = fields.get("error") if fields else None
    if isinstance(code, str) and code in _CODES:
        reason, told = _CODES[code], f"{answer.status} {code}"
    elif answer.status == 422:  # noqa: PLR2004 - newer servers say so, in a shape of their own, of a missing parameter
        reason, told = Reason.INVALID_REQUEST, "422"
    else:
        reason, told = status_reason(answer.status), str(answer.status)
    return _error(answer, reason, told)


def _malformed(answer: Answer, reason: Reason, what: str) -> GrantError:
    return _error(answer, reason, f"{answer.status} with {what}")


def _error(answer: Answer, reason: Reason, told: str) -> GrantError:
    error = GrantError(
        reason,
        f"{answer.place} answered {told}",
        retry_after_seconds=answer.retry_after_seconds,
        request_id=answer.request_id,
    )
    error.status = answer.status
    error.skew_seconds = answer.skew_seconds
    return error


def _json_object(body: bytes) -> Mapping[str, object] | None:
    """The body as a JSON object, None for anything else. No exception is kept: json's own hold the whole body."""
    try:
        value: object = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):  # ValueError also for numbers of thousands of digits
        return None
    return value if isinstance(value, dict) else None


def _access_token(answer: Answer, fields: Mapping[str, object]) -> Secret:
    value = fields.get("access_token")
    token = Secret(value) if isinstance(value, str) else None
    if token is None or not fits_in_header(token):
        raise _malformed(answer, Reason.INVALID_ACCESS_TOKEN, "no access_token that fits in a header")
    kind = fields.get("token_type")
    if kind is not None and not (isinstance(kind, str) and kind.lower() == "bearer"):
        raise _malformed(answer, Reason.INVALID_TOKEN_TYPE, "a token_type other than Bearer")
    return token


def _expires_in(answer: Answer, fields: Mapping[str, object]) -> int | None:
    value = fields.get("expires_in")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is None:
        raise _malformed(answer, Reason.INVALID_EXPIRES_IN, "an expires_in that is not a number")
    if not 1 <= seconds <= MAX_LIFETIME_SECONDS:
        raise _malformed(answer, Reason.INVALID_EXPIRES_IN, "an expires_in below 1 second or above 10 years")
    return math.floor(seconds)


def _lifetime(answer: Answer, expires_in: int | None, token: Secret) -> float | None:
    """The shorter of what the server names and what a JWT says of itself."""
    named = None if expires_in is None else float(expires_in)
    claims = _jwt_claims(token)
    expiry = _number(claims.get("exp"))
    if expiry is None:
        return named
    left = expiry - (answer.server_time or answer.received_at).timestamp()
    if left <= 0:
        raise _malformed(answer, Reason.INVALID_EXPIRES_IN, "a token whose own expiry has passed")
    life = left
    issued = _number(claims.get("iat"))
    if issued is not None and issued < expiry:
        # needs no clock but the server's own; of a token that is handed out again it is too long, though, so it stands
        # alone only beside a lifetime that the server named
        life = expiry - issued if named is not None else min(expiry - issued, left)
    if life > MAX_LIFETIME_SECONDS:
        return named
    return life if named is None else min(named, life)


def _jwt_claims(token: Secret) -> Mapping[str, object]:
    """The claims of a JWT, unverified; none where the token is not one, or an odd one."""
    parts = token.reveal().split(".")
    if len(parts) != _JWT_PARTS:
        return {}
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except ValueError:
        return {}
    return _json_object(payload) or {}


def _scope(fields: Mapping[str, object], asked: str) -> str:
    value = fields.get("scope")
    if isinstance(value, str) and is_scope(value):
        return value
    return asked


def _number(value: object) -> float | None:
    """A finite JSON number; None for anything else, `true` and text with digits too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
