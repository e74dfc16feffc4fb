"""What a grant sends and what an answer to it means, row by row of the failure table."""

from __future__ import annotations

import base64
import json
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from aca_tokend.core.answer import LONGEST_RETRY_AFTER_SECONDS, Answer
from aca_tokend.core.errors import GrantError, VerifyError
from aca_tokend.core.grant import MAX_BODY_BYTES, Credentials, Grant, form, read_answer, read_verification
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import MAX_TOKEN_LENGTH

NOW = datetime(2026, 11, 24, 6, 0, 0, 500000, tzinfo=UTC)
CANARY = "canary-7f3a91"
HTML = f"<html><body>Oops {CANARY}</body></html>".encode()
PLACE = "acaengine.main (aca.example.com/auth/oauth/token)"
SEED_TOKEN = "5d41402abc4b2a76b9719d911017c592" * 2


def answer(body: object = b"", status: int = 200, /, **headers: str) -> Answer:
    """An answer; a body that is no bytes is sent as JSON, and `x_request_id` stands for the header `x-request-id`."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(PLACE, status, named, content, NOW)


def token(**fields: object) -> dict[str, object]:
    """What a server answers that grants a token; a field given as `...` is left out."""
    whole = {"access_token": SEED_TOKEN, "token_type": "bearer", "expires_in": 7200, **fields}
    return {name: value for name, value in whole.items() if value is not ...}


def jwt(payload: object) -> str:
    """Something with the shape of a JWT."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    middle = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return f"eyJhbGciOiJSUzI1NiJ9.{middle}.c2lnbmF0dXJl"


def granted(body: object, **headers: str) -> Grant:
    return read_answer(answer(body, 200, **headers), "public")


def failure(given: Answer) -> GrantError:
    """The error an answer turns into, after a look for the canary in everything that could be shown of it."""
    with pytest.raises(GrantError) as caught:
        read_answer(given, "public")
    error = caught.value
    shown = [str(error), repr(error), "".join(traceback.format_exception(error)), repr(given)]
    assert not any(CANARY in text for text in shown)
    assert PLACE in str(error)
    return error


def test_the_form_has_the_six_parameters_of_the_seed() -> None:
    """Without a scope exactly six parameters are sent, an empty authority too; with one it is the seventh."""
    credentials = Credentials("svc", Secret("p&+%ß"), "", "id", Secret("shh"), "")
    expected = {
        "grant_type": "password",
        "username": "svc",
        "password": "p&+%ß",
        "authority": "",
        "client_id": "id",
        "client_secret": "shh",
    }
    assert form(credentials) == expected
    scoped = Credentials("svc", Secret("p&+%ß"), "", "id", Secret("shh"), "public admin")
    assert form(scoped) == {**expected, "scope": "public admin"}


def test_the_token_of_the_seed_is_read() -> None:
    """A 200 of the oldest shape gives a grant, with the asked scope and nothing made up."""
    assert granted(token()) == Grant(Secret(SEED_TOKEN), 7200, 7200.0, "public", 200, None, None)


def test_everything_a_newer_server_says_is_taken_up_but_the_refresh_token() -> None:
    """Scope, request id and clock skew are kept; a refresh token is in nothing that is kept."""
    date = format_datetime(NOW.replace(microsecond=0) + timedelta(seconds=42), usegmt=True)
    body = token(scope="public admin", created_at=1, refresh_token=CANARY)
    grant = granted(body, x_request_id="0a1B-2.c_", date=date)
    assert (grant.scope, grant.request_id, grant.skew_seconds) == ("public admin", "0a1B-2.c_", 41.5)
    assert CANARY not in repr([getattr(grant, name) for name in Grant.__slots__])


@pytest.mark.parametrize("kind", ["bearer", "Bearer", "BEARER", None, ...])
def test_bearer_in_any_case_or_left_out(kind: object) -> None:
    """The token type is compared without case, and may be missing."""
    assert granted(token(token_type=kind)).access_token == Secret(SEED_TOKEN)


@pytest.mark.parametrize(
    "value",
    ["-" + "a" * 42, "x", "a" * MAX_TOKEN_LENGTH, "~+-._/09azAZ==", jwt({}), jwt([]), jwt(b"\xff"), "a.~~~.c", ".."],
    ids=range(9),
)
def test_tokens_are_opaque(value: str) -> None:
    """Any text of RFC 6750's alphabet up to 16 KB is a token, a half-made JWT too; its life is what the server says."""
    grant = granted(token(access_token=value))
    assert (grant.access_token, grant.lifetime_seconds) == (Secret(value), 7200.0)


@pytest.mark.parametrize(
    ("scope", "kept"),
    [
        (..., "public"),
        (None, "public"),
        ("", "public"),
        ("admin", "admin"),
        ("user.write:all https://api.example.com/rooms", "user.write:all https://api.example.com/rooms"),
        ("$(id)", "public"),
        ("admin;include${IFS}/tmp/x", "public"),
        (["admin"], "public"),
        ("a\nb", "public"),
        ("\ud800", "public"),
        ("a" * 5000, "public"),
    ],
)
def test_the_scope_is_the_servers_or_the_one_asked_for(scope: object, kept: str) -> None:
    """A scope that the server does not name, or names in other than plain words, is the one asked for."""
    assert granted(token(scope=scope)).scope == kept


@pytest.mark.parametrize(
    ("expires_in", "whole", "life"),
    [
        (7200, 7200, 7200.0),
        (1, 1, 1.0),
        (7200.9, 7200, 7200.0),
        (1.0e3, 1000, 1000.0),
        (None, None, None),
        (..., None, None),
    ],
)
def test_lifetimes_that_are_taken(expires_in: object, whole: int | None, life: float | None) -> None:
    """Whole seconds are kept, fractions cut off, and a server that names no lifetime gives none."""
    grant = granted(token(expires_in=expires_in))
    assert (grant.expires_in, grant.lifetime_seconds) == (whole, life)


@pytest.mark.parametrize(
    "expires_in",
    [b"0", b"-1", b"0.9", b"true", b"false", b'"7200"', b"NaN", b"Infinity", b"-Infinity", b"1e999", b"[7200]", b"{}",
     b"315360001", b"1e300", b"9" * 400],
    ids=str,
)  # fmt: skip
def test_lifetimes_that_are_refused(expires_in: bytes) -> None:
    """Zero, negative, absurd and what is not a JSON number are a failure with a name of its own."""
    body = b'{"access_token":"%s","token_type":"bearer","expires_in":%s}' % (CANARY.encode(), expires_in)
    error = failure(answer(body))
    assert (type(error), error.reason, error.status) == (GrantError, Reason.INVALID_EXPIRES_IN, 200)


@pytest.mark.parametrize(
    ("claims", "expires_in", "life"),
    [
        ({"iat": 1000, "exp": 4600}, 7200, 3600.0),  # shorter by its own account: no clock is needed for that
        ({"iat": 1000, "exp": 99000}, 7200, 7200.0),  # never longer
        ({"exp": 3600}, 7200, 3600.0),
        ({"exp": 3600.5}, 7200, 3600.5),
        ({"exp": 9000}, 7200, 7200.0),
        ({"iat": 4000, "exp": 3600}, 7200, 3600.0),  # issued after it expires: an odd `iat` is left out
        ({"iat": True, "exp": 3600}, 7200, 3600.0),
        ({"exp": "3600"}, 7200, 7200.0),
        ({"exp": True}, 7200, 7200.0),
        ({"exp": 10**400}, 7200, 7200.0),
        ({"iat": 0, "exp": 3600}, None, 3600.0),
        ({"iat": -7200, "exp": 100}, None, 100.0),  # handed out again, late in its life
        ({"exp": 10**12}, None, None),
    ],
)
def test_a_jwt_only_tightens(claims: dict[str, Any], expires_in: object, life: float | None) -> None:
    """A JWT's own claims shorten the life and never lengthen it; odd ones are left out. Times count from `Date`."""
    server_time = NOW.replace(microsecond=0) + timedelta(hours=3)
    epoch = int(server_time.timestamp())
    absolute = {
        name: value + epoch if not isinstance(value, bool | str) and abs(value) < 10**11 else value
        for name, value in claims.items()
    }
    # `iat` of the first two rows is far from the server's own clock, as if that were wrong
    if claims.get("iat") == 1000:
        absolute = {name: value + 50_000 for name, value in absolute.items()}
    body = token(access_token=jwt(absolute), expires_in=expires_in)
    grant = granted(body, date=format_datetime(server_time, usegmt=True))
    assert grant.lifetime_seconds == life
    assert grant.expires_in == expires_in


def test_without_a_date_a_jwt_is_measured_by_our_clock() -> None:
    """Where the server does not tell its time, what is left of a JWT counts from when the answer came."""
    body = token(access_token=jwt({"exp": NOW.timestamp() + 60}))
    assert granted(body).lifetime_seconds == pytest.approx(60.0)


@pytest.mark.parametrize("claims", [{"exp": 0}, {"exp": NOW.timestamp()}, {"iat": 0, "exp": NOW.timestamp() - 1}])
def test_a_jwt_that_has_expired_is_refused(claims: dict[str, float]) -> None:
    """A token that is dead on arrival is a failure, whatever `expires_in` says."""
    error = failure(answer(token(access_token=jwt({**claims, "sub": CANARY}))))
    assert error.reason is Reason.INVALID_EXPIRES_IN


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (HTML, Reason.NOT_JSON),
        (b"", Reason.NOT_JSON),
        (b'{"access_token":"' + CANARY.encode(), Reason.NOT_JSON),
        (b'\xef\xbb\xbf{"access_token":"x"}', Reason.NOT_JSON),
        (b'{"access_token":"\xff' + CANARY.encode() + b'"}', Reason.NOT_JSON),
        (CANARY.encode("utf-16"), Reason.NOT_JSON),
        (b"[" * 60_000, Reason.NOT_JSON),
        (b'{"a":' * 12_000, Reason.NOT_JSON),
        (b'{"expires_in":' + b"9" * 5000 + b"}", Reason.NOT_JSON),
        ([CANARY], Reason.NOT_JSON),
        (CANARY, Reason.NOT_JSON),
        (b"null", Reason.NOT_JSON),
        (b" " * MAX_BODY_BYTES + b" ", Reason.RESPONSE_TOO_LARGE),
        ({}, Reason.INVALID_ACCESS_TOKEN),
        (token(access_token=None), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token=""), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token=[CANARY]), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token=f"{CANARY} x"), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token=f'{CANARY}"'), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token=f"{CANARY}=x"), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token="="), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token=f"{CANARY}\n"), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token=f"{CANARY}\x7f"), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token=f"{CANARY}é"), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token="\ud800"), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token="a" * (MAX_TOKEN_LENGTH + 1)), Reason.INVALID_ACCESS_TOKEN),
        (token(access_token=CANARY, token_type="mac"), Reason.INVALID_TOKEN_TYPE),
        (token(access_token=CANARY, token_type=["bearer"]), Reason.INVALID_TOKEN_TYPE),
        (token(access_token=CANARY, token_type=""), Reason.INVALID_TOKEN_TYPE),
        ({"error": "invalid_grant", "error_description": CANARY}, Reason.INVALID_ACCESS_TOKEN),
    ],
    ids=range(30),
)  # fmt: skip
def test_a_200_without_a_usable_token_is_malformed(body: object, reason: Reason) -> None:
    """Whatever a 200 holds instead of a token is a failure with its own reason, and none of it is shown."""
    error = failure(answer(body))
    assert (type(error), error.reason, error.status) == (GrantError, reason, 200)


def oauth(code: object) -> dict[str, object]:
    return {"error": code, "error_description": CANARY, "error_uri": f"https://{CANARY}"}


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        # the server refuses this credential or request
        (400, oauth("invalid_grant"), Reason.INVALID_GRANT),
        (403, oauth("invalid_grant"), Reason.INVALID_GRANT),
        (401, oauth("invalid_client"), Reason.INVALID_CLIENT),
        (401, oauth("unauthorized_client"), Reason.UNAUTHORIZED_CLIENT),
        (400, oauth("unauthorized_client"), Reason.UNAUTHORIZED_CLIENT),
        (400, oauth("invalid_scope"), Reason.INVALID_SCOPE),
        (400, oauth("invalid_request"), Reason.INVALID_REQUEST),
        (422, oauth("invalid_request"), Reason.INVALID_REQUEST),
        (422, {"errors": [{"field": CANARY}]}, Reason.INVALID_REQUEST),
        (400, oauth("unsupported_grant_type"), Reason.UNSUPPORTED_GRANT_TYPE),
        (401, b"", Reason.UNAUTHORIZED),
        (401, HTML, Reason.UNAUTHORIZED),
        (401, oauth(CANARY), Reason.UNAUTHORIZED),
        # the same request may succeed later
        (400, HTML, Reason.UNEXPECTED_STATUS),
        (400, {"status": 400, "error": "Bad Request"}, Reason.UNEXPECTED_STATUS),
        (400, oauth(CANARY), Reason.UNEXPECTED_STATUS),
        (400, oauth(["invalid_grant"]), Reason.UNEXPECTED_STATUS),
        (400, b'{"error":"invalid_gr', Reason.UNEXPECTED_STATUS),
        (400, b"\xff\xfe", Reason.UNEXPECTED_STATUS),
        (400, b"[" * 60_000, Reason.UNEXPECTED_STATUS),
        (400, oauth("temporarily_unavailable"), Reason.UNAVAILABLE),
        (400, oauth("server_error"), Reason.SERVER_ERROR),
        (403, HTML, Reason.FORBIDDEN),
        (404, b"", Reason.NOT_FOUND),
        (404, oauth("invalid_grant"), Reason.NOT_FOUND),
        (405, b"", Reason.UNEXPECTED_STATUS),
        (407, b"", Reason.PROXY_FAILED),
        (408, b"", Reason.TIMEOUT),
        (413, b"", Reason.UNEXPECTED_STATUS),
        (421, b"", Reason.UNEXPECTED_STATUS),
        (429, CANARY.encode(), Reason.RATE_LIMITED),
        (500, HTML, Reason.SERVER_ERROR),
        (500, oauth("invalid_grant"), Reason.SERVER_ERROR),
        (501, b"", Reason.SERVER_ERROR),
        (502, HTML, Reason.UNAVAILABLE),
        (503, b"", Reason.UNAVAILABLE),
        (504, b"", Reason.UNAVAILABLE),
        (522, b"", Reason.SERVER_ERROR),
        (301, b"", Reason.REDIRECTED),
        (302, HTML, Reason.REDIRECTED),
        (303, b"", Reason.REDIRECTED),
        (307, b"", Reason.REDIRECTED),
        (308, b"", Reason.REDIRECTED),
        (304, b"", Reason.UNEXPECTED_STATUS),
        (201, token(access_token=CANARY), Reason.UNEXPECTED_STATUS),
        (204, b"", Reason.UNEXPECTED_STATUS),
        (999, b"", Reason.UNEXPECTED_STATUS),
    ],
)
def test_the_failure_table(status: int, body: object, reason: Reason) -> None:
    """Each answer without a token has one reason, by its status and the codes we know; no other word is shown."""
    error = failure(answer(body, status, x_request_id="req-1", retry_after="7"))
    assert (error.reason, error.status) == (reason, status)
    assert (error.request_id, error.retry_after_seconds) == ("req-1", 7.0)


def test_the_message_names_the_place_the_status_and_the_known_code() -> None:
    """A refusal reads as a sentence of endpoint, status and OAuth code."""
    assert str(failure(answer(oauth("invalid_grant"), 400))) == f"{PLACE} answered 400 invalid_grant"
    assert str(failure(answer(HTML, 502))) == f"{PLACE} answered 502"
    assert str(failure(answer(HTML))) == f"{PLACE} answered 200 with a body that is not a JSON object"


def http_date(seconds: float) -> str:
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "date", "seconds"),
    [
        ("120", None, 120.0),
        (" 120 ", None, 120.0),
        ("0", None, 0.0),
        ("-5", None, 0.0),
        ("99999999999999999999", None, LONGEST_RETRY_AFTER_SECONDS),
        (http_date(30), None, 29.5),  # our clock is half a second past
        (http_date(30), http_date(-7200), LONGEST_RETRY_AFTER_SECONDS),  # the server is two hours behind us
        (http_date(-7170), http_date(-7200), 30.0),
        (http_date(-30), None, 0.0),
        (http_date(86400), None, LONGEST_RETRY_AFTER_SECONDS),
        ("Tuesday, 24-Nov-26 06:00:30 GMT", None, 29.5),
        ("Tue Nov 24 06:00:30 2026", None, 29.5),
        ("1.5", None, None),
        ("soon", None, None),
        ("", None, None),
        ("١٢", None, None),
        ("9" * 500, None, None),
        ("Tue, 99 Nov 2026 06:00:30 GMT", None, None),
        ("Tue, 24 Nov 99999999999999999999 06:00:30 GMT", None, None),
        (None, None, None),
    ],
)
def test_retry_after_in_both_forms(retry_after: str | None, date: str | None, seconds: float | None) -> None:
    """Seconds and dates are read, from 0 to an hour; a date counts from the server's clock where that is known."""
    headers = {"retry_after": retry_after, "date": date}
    given = answer(b"", 429, **{name: value for name, value in headers.items() if value is not None})
    assert failure(given).retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("request_id", "kept"),
    [
        ("abc-1.2_X", "abc-1.2_X"),
        ("a" * 128, "a" * 128),
        ("a" * 129, None),
        ("a b", None),
        ("a\nb", None),
        ("é", None),
        ("", None),
    ],
)
def test_a_request_id_is_kept_where_it_is_plain(request_id: str, kept: str | None) -> None:
    """A request id goes to logs, so one that is long or has anything but plain characters is dropped."""
    assert failure(answer(b"", 500, x_request_id=request_id)).request_id == kept


@pytest.mark.parametrize(
    ("date", "skew"), [(http_date(-90), -90.5), ("yesterday", None), ("Tue, 24 Nov 2026 06:00:00 -0000", -0.5)]
)
def test_the_skew_is_on_every_error(date: str, skew: float | None) -> None:
    """The server's clock is compared with ours on failures too, unless its `Date` makes no sense."""
    assert failure(answer(b"", 503, date=date)).skew_seconds == skew


def test_headers_are_found_in_any_case() -> None:
    """Header names are compared without case."""
    given = Answer(PLACE, 503, {"Retry-After": "3", "X-Request-Id": "r"}, b"", NOW)
    assert (failure(given).retry_after_seconds, failure(given).request_id) == (3.0, "r")


@pytest.mark.parametrize("status", [200, 204, 299])
def test_a_token_that_works_is_verified(status: int) -> None:
    """Any 2xx means that the token works, whatever the body."""
    read_verification(answer(HTML, status))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, Reason.TOKEN_REFUSED),
        (403, Reason.TOKEN_REFUSED),
        (404, Reason.NOT_FOUND),
        (302, Reason.REDIRECTED),
        (429, Reason.RATE_LIMITED),
        (500, Reason.SERVER_ERROR),
        (503, Reason.UNAVAILABLE),
        (422, Reason.UNEXPECTED_STATUS),
    ],
)
def test_what_a_failed_verification_means(status: int, reason: Reason) -> None:
    """401 and 403 refuse the token; everything else says nothing about it. The body is never shown."""
    with pytest.raises(VerifyError) as caught:
        read_verification(answer({"error": CANARY}, status, x_request_id="r", retry_after="9"))
    error = caught.value
    assert (error.reason, error.request_id, error.retry_after_seconds) == (reason, "r", 9.0)
    assert CANARY not in "".join(traceback.format_exception(error))
