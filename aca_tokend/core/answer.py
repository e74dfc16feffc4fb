"""An HTTP answer as far as every request reads it alike: whose clock, when to ask again, what its status alone means.

Pure. Everything here was written by someone else: whatever is not understood is left out, never an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

# A server that asks for more is asked again after this: a Retry-After of a week would outlive the published token.
LONGEST_RETRY_AFTER_SECONDS = 3600.0

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_DELAY = re.compile(r"-?[0-9]{1,20}")
_LONGEST_DATE = 64

_REASONS: dict[int, Reason] = {
    HTTPStatus.UNAUTHORIZED: Reason.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN: Reason.FORBIDDEN,
    HTTPStatus.NOT_FOUND: Reason.NOT_FOUND,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: Reason.PROXY_FAILED,
    HTTPStatus.REQUEST_TIMEOUT: Reason.TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS: Reason.RATE_LIMITED,
    HTTPStatus.BAD_GATEWAY: Reason.UNAVAILABLE,
    HTTPStatus.SERVICE_UNAVAILABLE: Reason.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: Reason.UNAVAILABLE,
    **dict.fromkeys((301, 302, 303, 307, 308), Reason.REDIRECTED),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and when.

    Attributes:
        place: who answered, for messages: the endpoint's name, address and path.
        body: at most one byte more than the largest body that is of interest.
        received_at: our clock when the headers were there.
    """

    place: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    received_at: datetime

    @property
    def request_id(self) -> str | None:
        """The server's `x-request-id`, where it is short and plain enough for a log."""
        value = self._header("x-request-id")
        return value if _REQUEST_ID.fullmatch(value) else None

    @property
    def server_time(self) -> datetime | None:
        """The server's own clock: its `Date`."""
        return _http_date(self._header("date"))

    @property
    def skew_seconds(self) -> float | None:
        """The server's clock minus ours, to about a second."""
        server_time = self.server_time
        return None if server_time is None else (server_time - self.received_at).total_seconds()

    @property
    def retry_after_seconds(self) -> float | None:
        """How long the server asks to wait, from 0 to an hour; a date counts from the server's own clock."""
        value = self._header("retry-after")
        if _DELAY.fullmatch(value):
            seconds = float(value)
        elif (moment := _http_date(value)) is not None:
            seconds = (moment - (self.server_time or self.received_at)).total_seconds()
        else:
            return None
        return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)

    def _header(self, name: str) -> str:
        return next((value.strip() for key, value in self.headers.items() if key.lower() == name), "")


def status_reason(status: int) -> Reason:
    """What a status other than success means where nothing else tells."""
    if (reason := _REASONS.get(status)) is not None:
        return reason
    return Reason.SERVER_ERROR if 500 <= status <= 599 else Reason.UNEXPECTED_STATUS  # noqa: PLR2004 - HTTP's own range


def _http_date(value: str) -> datetime | None:
    if not value or len(value) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(value)
        # RFC 9110 knows only GMT; the parser leaves "-0000" without a zone
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
