"""One contract for every sink: what rotator.py relies on when it looks and publishes, and what readers rely on."""

from __future__ import annotations

import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pytest

from aca_tokend.core.config import AppRoleAuth, EnvReference, FilePublish, TokenAuth, VaultConfig, VaultPublish
from aca_tokend.core.errors import LookError, PublishError
from aca_tokend.core.guard import parse_record
from aca_tokend.core.login import LoggedIn
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document, NotADocumentError, Seen
from aca_tokend.demo.child import wait_until
from aca_tokend.sinks import FileSink, KvSink, build
from aca_tokend.sinks.kv import Version
from aca_tokend.sinks.mounts import pool_of
from aca_tokend.vault.session import VaultSession
from tests.contract import places
from tests.contract.conftest import CANARY_ROOT, running
from tests.contract.places import DirectoryPlace, FilePlace, MemoryPlace, Vault1Place, VaultPlace, session_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aca_tokend.core.login import LoginEvent
    from aca_tokend.core.ports import Sink
    from tests.contract.conftest import OpenBao
    from tests.contract.places import Place

CANARY = "canary-access-token-81c2"
ISSUED = datetime(2026, 11, 24, 6, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _closed_sessions() -> Iterator[None]:
    """No session of a test keeps its connections."""
    yield
    while places.SESSIONS:
        places.SESSIONS.pop().close()


@pytest.fixture(params=["vault", "vault1", "file", "env", "template", "directory", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place of each kind."""
    yield from _place(request, tmp_path)


@pytest.fixture(params=["vault", "file", "env", "template", "directory", "memory"])
def fenced_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place of each kind that knows what came since a look: KV version 1 does not."""
    yield from _place(request, tmp_path)


@pytest.fixture(params=["vault", "file", "env", "template", "directory"])
def real_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place where several threads may meet."""
    yield from _place(request, tmp_path)


def _place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place: Place
    match request.param:
        case "vault":
            place = VaultPlace(request.getfixturevalue("openbao"))
        case "vault1":
            place = Vault1Place(request.getfixturevalue("openbao"))
        case "file":
            place = FilePlace(tmp_path)
        case "env" | "template":
            place = FilePlace(tmp_path, request.param)
        case "directory":
            place = DirectoryPlace(tmp_path)
        case _:
            place = MemoryPlace()
    yield place
    place.close()


def document(number: int = 1, **changes: Any) -> Document:  # noqa: ANN401  # any field of a document
    """The token that was issued `number` seconds after the first."""
    issued = ISSUED + timedelta(seconds=number)
    values: dict[str, Any] = {
        "access_token": Secret(f"{CANARY}-{number}"),
        "issued_at": issued,
        "expires_at": issued + timedelta(hours=2),
        "refresh_after": issued + timedelta(hours=1),
        "expires_in": 7200,
        "scope": "public",
        "username": "svc-bookings",
        "authority": "authority-ID",
        "account": "00112233445566778899aabbccddeeff",
    }
    return Document(**(values | changes))


def assert_hidden(error: BaseException) -> None:
    """Neither the document nor the Vault token is in anything that may be logged of an error."""
    shown = str(error) + repr(error) + "".join(traceback.format_exception(error))
    assert CANARY not in shown
    assert CANARY_ROOT not in shown


def test_nothing_there(place: Place) -> None:
    """Where nothing was published, look sees no document and nothing foreign."""
    seen = place.sink().look()
    assert seen.document is None
    assert seen.foreign is None


@pytest.mark.parametrize(
    "published",
    [
        document(),
        document(expires_in=None, scope=""),
        document(username='Jürgen "J" O\\Neil', authority="域", issued_at=ISSUED + timedelta(microseconds=1)),
        document(access_token=Secret("-" + CANARY * 400)),
    ],
    ids=["usual", "no lifetime or scope", "any text", "a long JWT"],
)
def test_published_is_what_is_seen(place: Place, published: Document) -> None:
    """What one daemon published, another one sees: the equal document, under the stamp that publish returned."""
    sink = place.sink()
    written = sink.publish(published, sink.look())
    assert written.document == published
    assert place.sink().look() == written


def test_reader_gets_the_fields_of_the_contract(place: Place) -> None:
    """A reader finds exactly the fields of the document."""
    sink = place.sink()
    sink.publish(document(), sink.look())
    assert place.fields() == document().fields()


def test_published_again_from_what_publish_returned(place: Place) -> None:
    """What publish returned is enough to publish the next document without another look."""
    sink = place.sink()
    seen = sink.look()
    for number in range(3):
        seen = sink.publish(document(number), seen)
    assert place.sink().look().document == document(2)


def test_changed_since_it_was_seen(fenced_place: Place) -> None:
    """What somebody else wrote since the look is not replaced: the publish fails as a conflict."""
    sink, other = fenced_place.sink(), fenced_place.sink()
    seen = sink.publish(document(1), sink.look())
    other.publish(document(2), other.look())
    with pytest.raises(PublishError) as caught:
        sink.publish(document(3), seen)
    assert caught.value.reason is Reason.CONFLICT
    assert_hidden(caught.value)
    assert fenced_place.fields() == document(2).fields()


def test_appeared_since_nothing_was_seen(fenced_place: Place) -> None:
    """What appeared where the look saw nothing is not replaced."""
    sink = fenced_place.sink()
    nothing = sink.look()
    fenced_place.put(document(2).fields())
    with pytest.raises(PublishError) as caught:
        sink.publish(document(1), nothing)
    assert caught.value.reason is Reason.CONFLICT
    assert fenced_place.fields() == document(2).fields()


@pytest.mark.parametrize(
    "foreign",
    [
        {},
        {"password": CANARY},
        {**document().fields(), "access_token": ""},
        {**document().fields(), "access_token": {"value": CANARY}},
        {**document().fields(), "issued_at": CANARY},
        {**document().fields(), "expires_at": "2026-11-24T06:00:00"},
        {**document().fields(), "expires_at": 1_800_000_000},
        {**document().fields(), "expires_in": "7200"},
        {name: value for name, value in document().fields().items() if name != "account"},
    ],
    ids=[
        "empty",
        "other",
        "no token",
        "token is no text",
        "no time",
        "no zone",
        "epoch",
        "lifetime text",
        "no account",
    ],
)
def test_foreign_content_is_reported(place: Place, foreign: dict[str, Any]) -> None:
    """What is no document is never taken for one, is told of without its values, and can be replaced as it was seen."""
    place.put(foreign)
    sink = place.sink()
    seen = sink.look()
    assert seen.document is None
    assert seen.foreign
    assert CANARY not in repr(seen)
    sink.publish(document(), seen)
    assert place.fields() == document().fields()


def test_foreign_content_changed_since_it_was_seen(fenced_place: Place) -> None:
    """Foreign content too is only replaced if it is what was seen."""
    fenced_place.put({"password": "first"})
    sink = fenced_place.sink()
    seen = sink.look()
    fenced_place.put({"password": "second"})
    with pytest.raises(PublishError) as caught:
        sink.publish(document(), seen)
    assert caught.value.reason is Reason.CONFLICT
    assert fenced_place.fields() == {"password": "second"}


def test_further_fields_do_no_harm(real_place: Place) -> None:
    """A document with fields of a later version is still a document."""
    real_place.put({**document().fields(), "later": [1, 2, 3]})
    assert real_place.sink().look().document == document()


def test_deleted_counts_as_nothing(place: Place) -> None:
    """However it was deleted, what is deleted counts as nothing there and can be published over."""
    for number, delete in enumerate(place.deletions()):
        sink = place.sink()
        sink.publish(document(number), sink.look())
        delete()
        seen = place.sink().look()
        assert (seen.document, seen.foreign) == (None, None)
        assert sink.publish(document(number), seen).document == document(number)
        assert place.fields() == document(number).fields()


def test_deleted_since_it_was_seen(fenced_place: Place) -> None:
    """What was deleted without a trace since the look is not written again unseen: the publish fails as a conflict."""
    sink = fenced_place.sink()
    seen = sink.publish(document(1), sink.look())
    fenced_place.deletions()[-1]()
    with pytest.raises(PublishError) as caught:
        sink.publish(document(2), seen)
    assert caught.value.reason is Reason.CONFLICT


def test_failure_leaves_what_was_there(place: Place) -> None:
    """A publish that fails leaves the last document whole, and a later one goes through from the same look."""
    sink = place.sink()
    seen = sink.publish(document(1), sink.look())
    with place.refusing() as refusing:
        assert refusing.look() == seen
        with pytest.raises(PublishError) as caught:
            refusing.publish(document(2), seen)
    assert_hidden(caught.value)
    assert place.fields() == document(1).fields()
    sink.publish(document(2), seen)
    assert place.fields() == document(2).fields()


def test_readers_always_see_a_whole_document(real_place: Place) -> None:
    """During 200 publishes every read finds one whole document, and never an older one than the read before."""
    sink = real_place.sink()
    seen = sink.publish(document(0), sink.look())
    reading, stop = threading.Event(), threading.Event()

    def read() -> list[str]:
        found = []
        while not stop.is_set():
            fields = real_place.fields()
            assert fields is not None
            number = int(fields["access_token"].rpartition("-")[2])
            assert fields == document(number).fields()
            found.append(fields["issued_at"])
            reading.set()
        return found

    with ThreadPoolExecutor() as pool:
        reader = pool.submit(read)
        try:
            while not reading.wait(0.1):
                assert not reader.done()
            for number in range(1, 201):
                seen = sink.publish(document(number), seen)
        finally:
            stop.set()
        found = reader.result()
    assert found == sorted(found)


def test_of_two_writers_one_wins(real_place: Place) -> None:
    """Of two that publish from the same look exactly one succeeds, and its document is what is there."""
    first, second = real_place.sink(), real_place.sink()
    together = threading.Barrier(2)

    def publish(sink: Sink, number: int, seen: Seen) -> Seen | PublishError:
        together.wait()
        try:
            return sink.publish(document(number), seen)
        except PublishError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        for number in range(0, 40, 2):
            seen = first.look()
            one = pool.submit(publish, first, number, seen)
            other = pool.submit(publish, second, number + 1, seen)
            results = [one.result(), other.result()]
            (won,) = [result for result in results if isinstance(result, Seen)]
            (lost,) = [result for result in results if isinstance(result, PublishError)]
            assert lost.reason in {Reason.CONFLICT, Reason.LOCKED}
            assert_hidden(lost)
            assert first.look() == won


# What a real server says: the sentences and statuses that vault/client.py knows.


def kv_sink(server: OpenBao, mount: str = "secret", path: str = "aca/bookings", token: str = CANARY_ROOT) -> KvSink:
    """A sink somewhere on the server."""
    return KvSink(VaultPublish(mount=mount, path=path), session_with(server.address, token))


@pytest.mark.parametrize("published", [True, False])
def test_mount_is_missing(openbao: OpenBao, published: bool) -> None:
    """Where nothing is mounted, look and publish name the missing mount."""
    sink = kv_sink(openbao, mount="absent")
    with pytest.raises((LookError, PublishError)) as caught:
        sink.publish(document(), Seen(None, Version(0))) if published else sink.look()
    assert caught.value.reason is Reason.MOUNT_MISSING
    assert str(caught.value) == "vault main: absent/data/aca/bookings: nothing is mounted there (HTTP 404)"
    assert_hidden(caught.value)


@pytest.mark.parametrize("published", [True, False])
def test_mount_is_kv_version_1(openbao: OpenBao, published: bool) -> None:
    """A KV version 1 engine is told apart at the first look, whatever is there, and nothing is written."""
    mount, path = openbao.kv1(), openbao.unique("contract/one")
    if published:
        openbao.send("PUT", f"{mount}/data/{path}", {"mine": CANARY})
    with pytest.raises(LookError) as caught:
        kv_sink(openbao, mount=mount, path=path).look()
    assert caught.value.reason is Reason.MOUNT_MISSING
    assert "set kv_version = 1" in str(caught.value)
    assert_hidden(caught.value)
    assert bool(openbao.send("GET", f"{mount}/data/{path}")) is published


def test_mount_is_kv_version_2(openbao: OpenBao) -> None:
    """Taken for version 1, a KV version 2 engine says itself that it is not, to a look and to a publish."""
    sink = KvSink(
        VaultPublish(mount="secret", path="aca/one", kv_version=1), session_with(openbao.address, CANARY_ROOT)
    )
    for attempt in (sink.look, lambda: sink.publish(document(), Seen(None, b""))):
        with pytest.raises((LookError, PublishError)) as caught:
            attempt()
        assert caught.value.reason is Reason.MOUNT_MISSING
        assert str(caught.value).endswith(
            "secret/aca/one: KV version 2 is mounted there; set kv_version = 2 (HTTP 404)"
        )
        assert_hidden(caught.value)
    assert openbao.fields("aca/one") is None


@pytest.mark.parametrize(("wrong", "right"), [(1, "secret/data/aca/bookings"), (2, "kv1/aca/bookings")])
def test_mount_is_of_the_other_version_and_denied(openbao: OpenBao, wrong: Literal[1, 2], right: str) -> None:
    """A policy for the right version denies what the wrong one asks; the error names the version all the same."""
    openbao.kv1()
    token = openbao.token(f'path "{right}" {{ capabilities = ["create", "read", "update"] }}')
    config = VaultPublish(mount=right.partition("/")[0], path="aca/bookings", kv_version=wrong)
    with pytest.raises(LookError) as caught:
        KvSink(config, session_with(openbao.address, token)).look()
    assert caught.value.reason is Reason.MOUNT_MISSING
    assert str(caught.value).endswith(f"KV version {3 - wrong} is mounted there; set kv_version = {3 - wrong}")


def test_mount_is_no_kv(openbao: OpenBao) -> None:
    """Another engine is told apart too."""
    mount = openbao.unique("transit")
    openbao.send("POST", f"sys/mounts/{mount}", {"type": "transit"})
    with pytest.raises(LookError) as caught:
        kv_sink(openbao, mount=mount).look()
    assert caught.value.reason is Reason.MOUNT_MISSING
    assert "what is mounted there is no KV engine" in str(caught.value)


def test_policy_denies(openbao: OpenBao) -> None:
    """Where the policy denies, the error names the path and the capability that is missing, and that alone."""
    path = openbao.unique("aca/denied")
    sink = kv_sink(openbao, path=path, token=openbao.token('path "secret/data/other" { capabilities = ["read"] }'))
    with pytest.raises(LookError) as look:
        sink.look()
    assert look.value.reason is Reason.PERMISSION_DENIED
    assert str(look.value) == f'vault main: secret/data/{path}: permission denied; the policy lacks "read"'
    reader = openbao.token(f'path "secret/data/{path}" {{ capabilities = ["create", "read"] }}')
    sink = kv_sink(openbao, path=path, token=reader)
    seen = sink.publish(document(), sink.look())
    with pytest.raises(PublishError) as publish:
        sink.publish(document(2), seen)
    assert publish.value.reason is Reason.PERMISSION_DENIED
    assert str(publish.value) == f'vault main: secret/data/{path}: permission denied; the policy lacks "update"'
    assert_hidden(publish.value)


def test_policy_is_changed(openbao: OpenBao) -> None:
    """Once the policy grants what was missing, the same session goes on."""
    path, name = openbao.unique("aca/changed"), openbao.unique("policy")
    openbao.send("PUT", f"sys/policies/acl/{name}", {"policy": 'path "x" { capabilities = ["read"] }'})
    token = openbao.send("POST", "auth/token/create", {"policies": [name]})["auth"]["client_token"]
    sink = kv_sink(openbao, path=path, token=token)
    with pytest.raises(LookError):
        sink.look()
    policy = f'path "secret/data/{path}" {{ capabilities = ["create", "read", "update"] }}'
    openbao.send("PUT", f"sys/policies/acl/{name}", {"policy": policy})
    assert sink.publish(document(), sink.look()).document == document()


@pytest.mark.parametrize("settings", [{"cas_required": True}, {"max_versions": 1}])
def test_mount_settings(openbao: OpenBao, settings: dict[str, Any]) -> None:
    """A mount that demands check-and-set, or keeps one version, is published to again and again."""
    mount = openbao.kv2()
    openbao.send("POST", f"{mount}/config", settings)
    sink = kv_sink(openbao, mount=mount)
    seen = sink.look()
    for number in range(3):
        seen = sink.publish(document(number), seen)
    assert kv_sink(openbao, mount=mount).look() == seen


@pytest.mark.parametrize("may", [True, False])
def test_custom_metadata(openbao: OpenBao, may: bool) -> None:
    """A secret that we made says so in its metadata, once and if we may; the publish goes through anyway."""
    path = openbao.unique("aca/described")
    policy = f'path "secret/data/{path}" {{ capabilities = ["create", "read", "update"] }}\n'
    if may:
        policy += f'path "secret/metadata/{path}" {{ capabilities = ["update"] }}\n'
    sink = kv_sink(openbao, path=path, token=openbao.token(policy))
    seen = sink.publish(document(1), sink.look())
    found = openbao.send("GET", f"secret/metadata/{path}")["data"]["custom_metadata"]
    assert found == ({"managed_by": "aca-tokend", "account": document().account} if may else None)
    openbao.send("POST", f"secret/metadata/{path}", {"custom_metadata": {"mine": "stays"}})
    sink.publish(document(2), seen)
    assert openbao.send("GET", f"secret/metadata/{path}")["data"]["custom_metadata"] == {"mine": "stays"}


def test_custom_metadata_of_others(openbao: OpenBao) -> None:
    """What somebody noted at a path before the first publish stays as it is."""
    path = openbao.unique("aca/noted")
    openbao.send("POST", f"secret/metadata/{path}", {"custom_metadata": {"mine": "stays"}})
    sink = kv_sink(openbao, path=path)
    sink.publish(document(1), sink.look())
    assert openbao.send("GET", f"secret/metadata/{path}")["data"]["custom_metadata"] == {"mine": "stays"}


def test_rate_limit_quota(openbao: OpenBao) -> None:
    """A rate-limit quota is told of with the wait that Vault asks for, and what was published stays."""
    mount = openbao.kv2()
    sink = kv_sink(openbao, mount=mount)
    seen = sink.publish(document(), sink.look())
    openbao.send("POST", "sys/quotas/config", {"enable_rate_limit_response_headers": True})
    quota = openbao.unique("quota")
    openbao.send("POST", f"sys/quotas/rate-limit/{quota}", {"rate": 1, "interval": "600s", "path": mount})
    assert sink.look() == seen
    with pytest.raises(PublishError) as caught:
        sink.publish(document(2), seen)
    assert caught.value.reason is Reason.RATE_LIMITED
    assert 0 < (caught.value.retry_after_seconds or 0) <= 600
    assert_hidden(caught.value)
    openbao.send("DELETE", f"sys/quotas/rate-limit/{quota}")
    assert sink.look() == seen


def test_token_is_revoked(openbao: OpenBao) -> None:
    """A session by approle whose token was revoked logs in again and goes on; its token's expiry is known."""
    mount = openbao.unique("approle")
    openbao.send("POST", f"sys/auth/{mount}", {"type": "approle"})
    policy = openbao.unique("policy")
    openbao.send("PUT", f"sys/policies/acl/{policy}", {"policy": 'path "secret/*" { capabilities = ["read"] }'})
    openbao.send("POST", f"auth/{mount}/role/aca", {"token_policies": [policy], "token_ttl": "90"})
    role_id = openbao.send("GET", f"auth/{mount}/role/aca/role-id")["data"]["role_id"]
    secret_id = openbao.send("POST", f"auth/{mount}/role/aca/secret-id")["data"]["secret_id"]
    logins: list[LoginEvent] = []
    session = VaultSession(
        "main",
        VaultConfig(
            address=openbao.address,
            timeout=60.0,
            auth=AppRoleAuth(role_id=role_id, secret_id=EnvReference(env="SECRET_ID"), mount=mount),
        ),
        lambda _: Secret(secret_id),
        wall=lambda: 1000.0,
        on_login=logins.append,
    )
    assert session.read_kv("secret", "absent").version == 0
    accessors = openbao.send("LIST", "auth/token/accessors")["data"]["keys"]
    for accessor in accessors:
        found = openbao.send("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
        if found["path"] == f"auth/{mount}/login":
            openbao.send("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    assert session.read_kv("secret", "absent").version == 0
    assert [type(login) for login in logins] == [LoggedIn] * 2
    assert session.expires_at == pytest.approx(1090.0, abs=60)
    session.close()


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_token_dies_between_look_and_write(openbao: OpenBao, how: str) -> None:
    """A Vault token that dies between look and write is replaced in the same call, and the write goes through."""
    path = openbao.unique("aca/dies")
    policy = f'path "secret/data/{path}" {{ capabilities = ["create", "read", "update"] }}'
    tokens = [openbao.token(policy, ttl="1h" if how == "revoked" else "1s"), openbao.token(policy)]
    session = VaultSession(
        "main",
        VaultConfig(address=openbao.address, timeout=60.0, auth=TokenAuth(token=EnvReference(env="VAULT_TOKEN"))),
        lambda _: Secret(tokens[0]),
        wall=time.time,
        on_login=lambda *_: None,
    )
    sink = KvSink(VaultPublish(mount="secret", path=path), session)
    seen = sink.look()
    dead = tokens.pop(0)
    if how == "revoked":
        openbao.send("POST", "auth/token/revoke", {"token": dead})
    wait_until(lambda: not openbao.alive(dead), "the end of the token")
    assert sink.publish(document(), seen).document == document()
    session.close()


def test_vault_is_sealed() -> None:
    """A sealed Vault is named as such, and once it is unsealed nothing has to be done here."""
    with running() as server:
        sink = kv_sink(server)
        seen = sink.publish(document(), sink.look())
        server.send("PUT", "sys/seal")
        for attempt in (sink.look, kv_sink(server).look, lambda: sink.publish(document(), seen)):
            with pytest.raises((LookError, PublishError)) as caught:
                attempt()
            assert caught.value.reason is Reason.VAULT_SEALED
            assert_hidden(caught.value)
        server.send("PUT", "sys/unseal", {"key": server.unseal_key})
        assert sink.publish(document(2), sink.look()).document == document(2)


def test_sinks_are_built_from_their_configuration(tmp_path: Path) -> None:
    """Each kind of configuration gives its sink, with a name that tells it from the others of a token."""
    sessions = {name: session_with("http://127.0.0.1:1", CANARY_ROOT, name) for name in ("main", "dr")}
    sinks = [
        build(VaultPublish(vault_name="main", mount="team/kv", path="aca/bookings"), sessions),
        build(VaultPublish(vault_name="dr", mount="secret", path="a"), sessions),
        build(FilePublish(path=f"{tmp_path}/bookings.json"), sessions),
    ]
    assert [(sink.name, sink.kind, sink.pool) for sink in sinks] == [
        ("vault:team/kv/aca/bookings", "vault", "vault.main"),
        ("vault.dr:secret/a", "vault", "vault.dr"),
        (f"file:{tmp_path}/bookings.json", "file", pool_of(str(tmp_path))),
    ]


def test_record_is_nothing_at_first(place: Place) -> None:
    """Where no record was written there is none, and the first one can be written."""
    sink = place.sink()

    seen = sink.read_record("attempts")

    assert seen.fields is None
    sink.write_record("attempts", {"f": {"spent": 1}}, seen.stamp)


def test_record_is_read_back(place: Place) -> None:
    """Another process reads the record that was written, and replaces it; the token beside it is untouched."""
    first, second = place.sink(), place.sink()
    token = first.publish(document(1), first.look()).document
    stamp = first.write_record("attempts", {"f": {"spent": 1}}, first.read_record("attempts").stamp)

    seen = second.read_record("attempts")
    assert seen.fields == {"f": {"spent": 1}}
    assert seen.stamp == stamp
    second.write_record("attempts", {}, seen.stamp)
    assert not first.read_record("attempts").fields
    assert first.look().document == token


def test_record_of_another_name_is_another(place: Place) -> None:
    """Records of two names beside one token are told apart."""
    sink = place.sink()
    sink.write_record("attempts", {"f": {"spent": 1}}, sink.read_record("attempts").stamp)

    assert sink.read_record("another").fields is None


def test_record_changed_since_is_a_conflict(fenced_place: Place) -> None:
    """Of two that write from one look the second is refused: a claim is never overwritten unseen."""
    first, second = fenced_place.sink(), fenced_place.sink()
    stamp = first.read_record("attempts").stamp
    second.write_record("attempts", {"f": {"spent": 1}}, stamp)

    with pytest.raises(PublishError) as caught:
        first.write_record("attempts", {"f": {"spent": 1}}, stamp)

    assert caught.value.reason is Reason.CONFLICT


def test_record_that_is_none_can_be_cleared(tmp_path: Path) -> None:
    """A record file that somebody spoilt is no empty record, and `resume` can clear it."""
    sink = FileSink(FilePublish(path=str(tmp_path / "bookings.json")))
    (tmp_path / ".bookings.json.attempts").write_text("not JSON")

    seen = sink.read_record("attempts")

    with pytest.raises(NotADocumentError):
        parse_record(seen.fields or {})
    sink.write_record("attempts", {}, seen.stamp)
    assert sink.read_record("attempts").fields == {}
    assert (tmp_path / ".bookings.json.attempts").stat().st_mode & 0o777 == 0o600
