"""The published document: what it says of itself, what may be adopted of it, and whose it is to replace."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aca_tokend.core.config import RotationConfig
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import (
    FIELDS,
    MAX_TOKEN_LENGTH,
    OWNER,
    PLAUSIBLE_SKEW,
    Document,
    NotADocumentError,
    fits_in_header,
    implausible,
    owned,
    parse_document,
)

CANARY = "canary-4e1b"
NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NO_TOKEN = "its access_token has a character or a length that no token has"
MAX_LIFETIME = RotationConfig().max_lifetime
DOCUMENT = Document(
    access_token=Secret("1f0af717"),
    issued_at=NOW,
    expires_at=NOW + 2 * HOUR,
    refresh_after=NOW + HOUR,
    expires_in=7200,
    scope="public",
    username="svc-bookings",
    authority="authority-ID",
    account="00112233445566778899aabbccddeeff",
    token="bookings",
)


def why(**changes: Any) -> str | None:  # noqa: ANN401  # any field of a document
    """Why the document with these changes may not be adopted."""
    changed = replace(DOCUMENT, **changes)
    return implausible(changed, username="svc-bookings", authority="authority-ID", now=NOW, max_lifetime=MAX_LIFETIME)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"access_token": Secret("a" * MAX_TOKEN_LENGTH)},
        {"scope": ""},
        {"scope": "public user.write:all https://api.example.com/rooms"},
        {"expires_in": None},
        {"expires_in": 365 * 86400},  # of a JWT that ends sooner
        {"issued_at": NOW + PLAUSIBLE_SKEW, "refresh_after": NOW + PLAUSIBLE_SKEW},
        {"issued_at": NOW - DAY, "refresh_after": NOW - DAY},
        {"expires_at": NOW + 31 * DAY},
        {"expires_at": NOW + timedelta(microseconds=1), "refresh_after": NOW},
        {"refresh_after": NOW + 2 * HOUR},
        {"account": "another"},  # asked elsewhere
        {"token": ""},
        {"token": "rooms"},
    ],
)
def test_plausible(changes: dict[str, Any]) -> None:
    """What a grant of ours could have published may be adopted, up to each bound."""
    assert why(**changes) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"token_type": "bearer"}, "its token_type is not Bearer"),
        ({"token_type": f"Bearer\nX-{CANARY}: 1"}, "its token_type is not Bearer"),
        ({"access_token": Secret(f'{CANARY}";')}, NO_TOKEN),
        ({"access_token": Secret("a" * (MAX_TOKEN_LENGTH + 1))}, NO_TOKEN),
        ({"username": CANARY}, "its username is not the configured one"),
        ({"username": ""}, "its username is not the configured one"),
        ({"authority": CANARY}, "its authority is not the configured one"),
        ({"scope": f'"{CANARY}'}, "its scope is not a list of plain words"),
        ({"scope": "public; include /tmp/x"}, "its scope is not a list of plain words"),
        ({"scope": "$(id)"}, "its scope is not a list of plain words"),
        ({"scope": "public\n"}, "its scope is not a list of plain words"),
        ({"scope": "a" * 4097}, "its scope is not a list of plain words"),
        ({"expires_in": 0}, "its expires_in is below 1 second or above 10 years"),
        ({"expires_in": 10**30}, "its expires_in is below 1 second or above 10 years"),
        ({"issued_at": NOW + PLAUSIBLE_SKEW + timedelta(microseconds=1)}, "it was issued in the future"),
        ({"expires_at": NOW}, "it expires before it was issued"),
        ({"expires_at": datetime(1, 1, 1, tzinfo=UTC)}, "it expires before it was issued"),
        ({"expires_at": NOW + 31 * DAY + timedelta(microseconds=1)}, "it is valid for longer than max_lifetime"),
        ({"expires_at": datetime(2099, 1, 1, tzinfo=UTC)}, "it is valid for longer than max_lifetime"),
        ({"issued_at": datetime(1, 1, 1, tzinfo=UTC)}, "it is valid for longer than max_lifetime"),
        ({"refresh_after": NOW - HOUR}, "its refresh_after is not between issued_at and expires_at"),
        ({"refresh_after": NOW + 3 * HOUR}, "its refresh_after is not between issued_at and expires_at"),
    ],
)  # fmt: skip
def test_implausible(changes: dict[str, Any], expected: str) -> None:
    """Each field that no grant of ours could have published is told, without its value."""
    told = why(**changes)
    assert told == expected
    assert CANARY not in told


@pytest.mark.parametrize(
    "token",
    [
        "1f0af717251950dbd4d73154fdf0a474a5c5119adad999683f5b450c460726aa",
        "-Dq3vXk0Zb_l5mG2r8sYtUw1oPcEaHjKdN4fT6gVxQy",
        "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJQT1MiLCJpYXQiOjE2MDB9." + "c2ln-_" * 57,
        "b64+/x==",
        "~",
    ],
    ids=["hexadecimal", "base64url", "RS256 JWT", "base64", "shortest"],
)
def test_shapes_of_tokens(token: str) -> None:
    """The shapes that ACAEngine and PlaceOS grant, and the others that RFC 6750 allows, are tokens."""
    assert fits_in_header(Secret(token))
    assert parse_document(DOCUMENT.fields() | {"access_token": token}).access_token == Secret(token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "=",
        "a=b",
        "a b",
        " a",
        "a\n",
        "a\r\nX: 1",
        'a"',
        "a'",
        "a\\",
        "$(id)",
        "`id`",
        "a;b",
        "a,b",
        "é",
        "a%2F",
        "٣",
    ],
)
def test_what_is_no_token(token: str) -> None:
    """What could mean something to a header, a shell or a template is no token, and its document is none."""
    assert not fits_in_header(Secret(token))
    with pytest.raises(NotADocumentError, match="access_token does not fit in a header"):
        parse_document(DOCUMENT.fields() | {"access_token": token})


def test_the_name_stands_last_and_is_read_back() -> None:
    """The name of the token is the last field, and what was written is read back with it."""
    fields = DOCUMENT.fields()
    assert tuple(fields) == (*FIELDS, OWNER)
    assert parse_document(fields).token == "bookings"
    assert tuple(DOCUMENT.reader_fields()) == FIELDS


def test_a_document_from_before_the_name() -> None:
    """A document without the name is one, has an empty name, and is written back without it: nothing of it changed."""
    before = DOCUMENT.reader_fields()
    read = parse_document(before)
    assert read.token == ""
    assert read.fields() == before
    assert read == DOCUMENT, "the name alone makes no other token, or an upgrade would write every place"


@pytest.mark.parametrize("name", [None, 7, ["bookings"], "\ud800"])
def test_a_name_that_is_no_text(name: object) -> None:
    """What has something else in place of the name is no document."""
    with pytest.raises(NotADocumentError, match="token is"):
        parse_document(DOCUMENT.fields() | {"token": name})


@pytest.mark.parametrize(
    ("name", "account", "ours"),
    [
        ("bookings", "mine", True),
        ("bookings", "of before", True),
        ("rooms", "mine", False),
        ("rooms", "of before", False),
        ("", "mine", True),
        ("", "of before", False),
    ],
)
def test_whose_it_is(name: str, account: str, ours: bool) -> None:
    """The name decides what may be replaced, whatever the account; where there is none, the account does."""
    document = replace(DOCUMENT, token=name, account=account)
    assert owned(document, token="bookings", account="mine") is ours
