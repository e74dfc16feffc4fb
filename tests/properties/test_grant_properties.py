"""Whatever a server answers, it becomes a grant that can be published or an expected error that shows none of it."""

from __future__ import annotations

import base64
import json
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from hypothesis import example, given, settings
from hypothesis import strategies as st

from aca_tokend.core.answer import LONGEST_RETRY_AFTER_SECONDS, Answer
from aca_tokend.core.errors import GrantError, TokendError, VerifyError
from aca_tokend.core.grant import Grant, read_answer, read_verification
from aca_tokend.core.token import MAX_LIFETIME_SECONDS, fits_in_header

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

NOW = datetime(2026, 11, 24, 6, 0, 0, tzinfo=UTC)
CANARY = "canary-7f3a91"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(CANARY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
times = st.integers(-10, 2**40) | st.floats() | json_values
claims = st.fixed_dictionaries({}, optional={"exp": times, "iat": times})
jwts = claims.map(
    lambda payload: ".".join(("e30", base64.urlsafe_b64encode(json.dumps(payload).encode()).decode(), "sig"))
)
known_codes = st.sampled_from(
    ["invalid_grant", "invalid_client", "unauthorized_client", "unsupported_grant_type", "server_error", "Bad Request"]
)
token_answers = st.fixed_dictionaries(
    {},
    optional={
        "access_token": st.text(st.characters(codec="ascii"), max_size=60) | jwts | json_values,
        "token_type": st.sampled_from(["bearer", "Bearer", "mac"]) | json_values,
        "expires_in": st.integers(-5, 10**10) | st.floats() | json_values,
        "scope": st.text() | json_values,
        "error": known_codes | json_values,
        "refresh_token": st.just(CANARY),
    },
)
bodies = (
    st.binary()
    | token_answers.map(lambda value: json.dumps(value).encode())
    | json_values.map(lambda value: json.dumps(value).encode())
    | token_answers.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    | st.text().map(lambda text: (CANARY + text).encode("utf-8", "surrogatepass"))
)
statuses = st.sampled_from([200, 301, 400, 401, 403, 404, 422, 429, 500, 503]) | st.integers(100, 999)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - HTTP's dates name their zone
header_values = (
    st.text(st.characters(max_codepoint=255), max_size=70)
    | st.integers().map(str)
    | moments.map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
)
headers = st.dictionaries(st.sampled_from(["date", "Retry-After", "x-request-id", "X"]), header_values)


@settings(deadline=None)  # a busy machine may take its time
@given(statuses, headers, bodies)
@example(200, {}, b"[" * 60_000)
@example(200, {}, b'{"a":' + b"9" * 5000 + b"}")
@example(200, {"date": "Mon, 01 Jan 0001 00:00:00 +1400"}, b"{}")
@example(429, {"Retry-After": "Fri, 31 Dec 9999 23:59:59 -2359"}, b"")
def test_any_answer_is_a_grant_or_an_expected_error(status: int, headers: dict[str, str], body: bytes) -> None:
    """No answer raises anything but a GrantError, none is shown in it, and a grant is one that can be published."""
    outcome = outcome_of(lambda: read_answer(Answer("place", status, headers, body, NOW), "public"))
    if isinstance(outcome, Grant):
        assert status == 200
        check_grant(outcome)
    else:
        assert isinstance(outcome, GrantError)
        assert CANARY not in "".join(traceback.format_exception(outcome))
        assert outcome.status == status
        assert outcome.retry_after_seconds is None or 0 <= outcome.retry_after_seconds <= LONGEST_RETRY_AFTER_SECONDS
        assert outcome.request_id is None or outcome.request_id.isascii()


@settings(deadline=None)  # a busy machine may take its time
@given(statuses, headers, bodies)
def test_any_answer_to_a_verification_is_a_yes_or_an_expected_error(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    """A verification passes for 2xx alone, and its error shows nothing of the answer."""
    outcome = outcome_of(lambda: read_verification(Answer("place", status, headers, body, NOW)))
    assert (outcome is None) == (200 <= status <= 299)
    if outcome is not None:
        assert isinstance(outcome, VerifyError)
        assert CANARY not in "".join(traceback.format_exception(outcome))


def outcome_of(read: Callable[[], T]) -> T | TokendError:
    try:
        return read()
    except TokendError as error:
        return error


def check_grant(grant: Grant) -> None:
    assert fits_in_header(grant.access_token)
    assert grant.scope.isascii()
    assert grant.scope.isprintable()
    assert grant.expires_in is None or 1 <= grant.expires_in <= MAX_LIFETIME_SECONDS
    if grant.lifetime_seconds is not None:
        assert 0 < grant.lifetime_seconds <= MAX_LIFETIME_SECONDS
        assert grant.expires_in is None or grant.lifetime_seconds <= grant.expires_in
