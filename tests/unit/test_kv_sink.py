"""The KV sink: what it asks of Vault, byte for byte, and how often."""

from __future__ import annotations

import json
import traceback
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.config import EnvReference, TokenAuth, VaultConfig, VaultPublish
from aca_tokend.core.errors import LookError, PublishError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document, Seen
from aca_tokend.sinks.kv import KvSink, Version
from aca_tokend.vault.session import VaultSession
from tests.unit.vault.stub import answer, vault_stub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.vault.stub import VaultStub

CANARY = "canary-access-token-93e7"
CANARY_VAULT_TOKEN = "canary-vault-token-0d5a"
PATH = "/v1/secret/data/aca/bookings"
DOCUMENT = Document(
    access_token=Secret(CANARY),
    issued_at=datetime(2026, 11, 24, 6, 0, tzinfo=UTC),
    expires_at=datetime(2026, 11, 24, 8, 0, tzinfo=UTC),
    refresh_after=datetime(2026, 11, 24, 7, 20, tzinfo=UTC),
    expires_in=7200,
    scope="public",
    username="svc-bookings",
    authority="authority-ID",
    account="00112233445566778899aabbccddeeff",
    token="bookings",
)


@pytest.fixture
def stub() -> Iterator[VaultStub]:
    """A Vault that holds the document as version 3, and takes version 4."""
    with vault_stub() as running:
        held = answer(200, {"data": {"data": DOCUMENT.fields(), "metadata": {"version": 3}}})
        taken = answer(200, {"data": {"version": 4}})
        running.rules[PATH] = lambda asked: held if asked.method == "GET" else taken
        yield running


@pytest.fixture
def session(stub: VaultStub) -> Iterator[VaultSession]:
    """A session with it that has not logged in yet."""
    config = VaultConfig(address=stub.address, timeout=30.0, auth=TokenAuth(token=EnvReference(env="VAULT_TOKEN")))
    made = VaultSession(
        "main", config, lambda _: Secret(CANARY_VAULT_TOKEN), wall=lambda: 0.0, on_login=lambda *_: None
    )
    yield made
    made.close()


def sink_of(session: VaultSession, **fields: str) -> KvSink:
    return KvSink(VaultPublish(mount="secret", path="aca/bookings", fields=fields), session)


def test_one_request_each(stub: VaultStub, session: VaultSession) -> None:
    """After the log-in a look is one read and a publish is one write: nothing else is asked."""
    sink = sink_of(session)
    sink.look()
    logged_in = len(stub.asked)
    seen = sink.look()
    sink.publish(DOCUMENT, seen)
    assert [(asked.method, asked.path) for asked in stub.asked[logged_in:]] == [("GET", PATH), ("POST", PATH)]


def test_what_is_written(stub: VaultStub, session: VaultSession) -> None:
    """A publish writes the fields of the document, with the version that was seen for check-and-set."""
    sink = sink_of(session)
    seen = sink.look()
    assert isinstance(seen.stamp, Version)
    assert seen == Seen(DOCUMENT, Version(3, seen.stamp.digest))
    assert sink.publish(DOCUMENT, seen) == Seen(DOCUMENT, Version(4, seen.stamp.digest))
    assert stub.asked[-1].body == {"data": DOCUMENT.fields(), "options": {"cas": 3}}


def test_renamed_fields(stub: VaultStub, session: VaultSession) -> None:
    """Renamed fields are written under their new names, and read back from them and from nowhere else."""
    names = {"access_token": "api_token", "scope": "scopes"}
    sink = sink_of(session, **names)
    written = {names.get(name, name): value for name, value in DOCUMENT.fields().items()}
    assert written["token"] == "bookings"
    seen = sink.look()
    assert (seen.document, seen.foreign) == (None, "access_token is missing")
    sink.publish(DOCUMENT, seen)
    assert stub.asked[-1].body["data"] == written
    stub.always(
        PATH, answer(200, {"data": {"data": written | {"access_token": "another"}, "metadata": {"version": 4}}})
    )
    seen = sink.look()
    assert seen.document is not None
    assert (seen.document, seen.document.token) == (DOCUMENT, "bookings")


def test_a_secret_under_other_names_says_whose_it_is(stub: VaultStub, session: VaultSession) -> None:
    """What cannot be read since the names of fields changed still tells the token it was written for, and no log."""
    seen = sink_of(session, access_token="api_token").look()
    assert (seen.document, seen.token) == (None, "bookings")
    assert "bookings" not in repr(seen)
    for token in (None, 7, ["bookings"]):
        held = {"token": token, "password": CANARY}
        stub.always(PATH, answer(200, {"data": {"data": held, "metadata": {"version": 3}}}))
        assert sink_of(session).look().token == ""


def test_a_stamp_is_of_exactly_this_content(stub: VaultStub, session: VaultSession) -> None:
    """Another content under the same number has another stamp, a deleted one too, and equal content the same."""
    sink = sink_of(session)
    published = sink.publish(DOCUMENT, sink.look())
    stamps = {published.stamp}
    for fields in (DOCUMENT.fields(), DOCUMENT.fields() | {"scope": "admin"}, {"password": CANARY}, {}, None):
        status = 404 if fields is None else 200
        stub.always(PATH, answer(status, {"data": {"data": fields, "metadata": {"version": 4}}}))
        stamps.add(sink.look().stamp)
    assert len(stamps) == 5
    assert CANARY not in repr(stamps)


def test_seen_by_another_sink(session: VaultSession) -> None:
    """What another kind of sink saw is not taken: that would be a mistake in the program."""
    with pytest.raises(TypeError):
        sink_of(session).publish(DOCUMENT, Seen(None, None))


@pytest.mark.parametrize("status", [200, 400, 403, 404, 500, 503])
def test_failures_are_hidden_and_of_their_step(stub: VaultStub, session: VaultSession, status: int) -> None:
    """Whatever Vault says, look raises a LookError and publish a PublishError, and neither shows what was said."""
    sink = sink_of(session)
    stub.always(PATH, answer(status, {"errors": [CANARY], "said": CANARY}))
    with pytest.raises(LookError) as look:
        sink.look()
    with pytest.raises(PublishError) as publish:
        sink.publish(DOCUMENT, Seen(None, Version(0)))
    for error in (look.value, publish.value):
        shown = str(error) + repr(error) + "".join(traceback.format_exception(error))
        assert CANARY not in shown
        assert CANARY_VAULT_TOKEN not in shown


def test_log_in_fails(stub: VaultStub, session: VaultSession) -> None:
    """A log-in that fails is a failure of the look or publish that needed it, with the reason of the log-in."""
    stub.always("/v1/auth/token/lookup-self", answer(403, {"errors": ["permission denied"]}))
    sink = sink_of(session)
    with pytest.raises(LookError) as look:
        sink.look()
    with pytest.raises(PublishError) as publish:
        sink.publish(DOCUMENT, Seen(None, Version(0)))
    assert [look.value.reason, publish.value.reason] == [Reason.VAULT_LOGIN_FAILED] * 2
    assert CANARY_VAULT_TOKEN not in "".join(traceback.format_exception(publish.value))


def test_lifetime_is_kept(stub: VaultStub, session: VaultSession) -> None:
    """A lifetime that the server did not name stays unnamed."""
    sink = sink_of(session)
    unnamed = Document(
        access_token=Secret(CANARY),
        issued_at=DOCUMENT.issued_at,
        expires_at=DOCUMENT.issued_at + timedelta(hours=1),
        refresh_after=DOCUMENT.issued_at,
        expires_in=None,
        scope="",
        username="",
        authority="",
        account="",
    )
    sink.publish(unnamed, Seen(None, Version(0)))
    (written,) = [asked.body for asked in stub.asked if asked.path == PATH]
    assert json.dumps(written["data"]["expires_in"]) == "null"
