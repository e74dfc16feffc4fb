"""Any document: what is adopted of it can do no harm elsewhere, and what we publish is always adopted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from aca_tokend.core.formats import render
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import (
    MAX_LIFETIME_SECONDS,
    Document,
    NotADocumentError,
    fits_in_header,
    implausible,
    owned,
    parse_document,
)
from tests.changed import replace

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
USERNAME, AUTHORITY = "svc-bookings", "authority-ID"
ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=")

near = st.timedeltas(timedelta(days=-40), timedelta(days=40)).map(lambda delta: NOW + delta)
times = near | st.datetimes(timezones=st.just(UTC))
texts = st.text(max_size=20)
tokens = st.from_regex(r"\A[A-Za-z0-9._~+/-]{1,40}={0,2}\Z")
HOSTILE: dict[str, st.SearchStrategy[Any]] = {
    "access_token": (texts | st.text(st.sampled_from(sorted(ALPHABET)))).map(Secret),
    "issued_at": times,
    "expires_at": times,
    "refresh_after": times,
    "expires_in": st.integers(-10, 10**12),
    "scope": texts,
    "username": texts,
    "authority": texts,
    "account": texts,
    "token_type": texts,
    "token": texts,
}


@st.composite
def documents(draw: st.DrawFn, changes: int = 2) -> Document:
    """A document as we would publish it, of which somebody else changed up to so many fields."""
    issued = NOW - draw(st.timedeltas(timedelta(0), timedelta(days=31)))
    lifetime = draw(st.floats(1.0, 31 * 86400.0))
    sound = Document(
        access_token=Secret(draw(tokens)),
        issued_at=issued,
        expires_at=issued + timedelta(seconds=lifetime),
        refresh_after=issued + timedelta(seconds=lifetime * draw(st.floats(0.0, 1.0))),
        expires_in=draw(st.none() | st.integers(1, MAX_LIFETIME_SECONDS)),
        scope=draw(st.sampled_from(["", "public", "public admin"])),
        username=USERNAME,
        authority=AUTHORITY,
        account="0" * 32,
        token="bookings",
    )
    changed = draw(st.lists(st.sampled_from(sorted(HOSTILE)), max_size=changes))
    return replace(sound, **{name: draw(HOSTILE[name]) for name in changed})


def adopted(document: Document, max_lifetime: float) -> bool:
    return implausible(document, username=USERNAME, authority=AUTHORITY, now=NOW, max_lifetime=max_lifetime) is None


@given(documents(), st.floats(86400.0, 31 * 86400.0))
def test_what_is_adopted_is_bounded(document: Document, max_lifetime: float) -> None:
    """A document that may be adopted has nothing of its writer's choice but a token, a scope and times in bounds."""
    assume(adopted(document, max_lifetime))
    text = document.access_token.reveal()
    assert text.strip("=")
    assert set(text) <= ALPHABET
    assert document.token_type == "Bearer"
    assert (document.username, document.authority) == (USERNAME, AUTHORITY)
    assert document.scope.isascii()
    assert document.scope.isprintable()
    assert not set(document.scope) & set("\"'\\`$;{}()<>|&#*?!%~")
    assert document.issued_at <= NOW + timedelta(minutes=5)
    assert document.expires_at <= NOW + timedelta(minutes=5, seconds=max_lifetime)
    assert document.issued_at <= document.refresh_after <= document.expires_at


@given(documents(0))
def test_what_we_publish_is_adopted(document: Document) -> None:
    """A document as a grant makes it may be adopted at any time of its life, whatever its fraction."""
    assert adopted(document, 31 * 86400.0)


@given(documents())
def test_what_is_adopted_stays_in_its_line(document: Document) -> None:
    """Whatever may be adopted makes one header line, and one line of the environment for each field."""
    assume(adopted(document, 1e8))
    document = replace(document, account="0" * 32)  # compared with ours before it is adopted
    assert render(document, "header").decode().splitlines() == [
        f"Authorization: Bearer {document.access_token.reveal()}"
    ]
    lines = render(document, "env").decode().splitlines()
    assert len(lines) == len(document.reader_fields())
    assert all(line.startswith("ACA_") and line.endswith('"') for line in lines)


@given(documents())
def test_what_is_written_is_read_back(document: Document) -> None:
    """A document that can be read is the one that was written, name and all, also through JSON."""
    try:
        read = parse_document(json.loads(json.dumps(document.fields())))
    except NotADocumentError:
        assert not fits_in_header(document.access_token)
        return
    assert (read, read.token) == (document, document.token)


@given(texts, texts, texts, texts)
def test_the_name_decides_alone(token: str, account: str, other: str, name: str) -> None:
    """Where a document has a name, its account changes nothing about whose it is."""
    document = Document(Secret("a"), NOW, NOW, NOW, None, "", "", "", account, token=token)
    assume(token)
    assert owned(document, token=name, account=account) == owned(document, token=name, account=other) == (token == name)
