"""The Vault session: what is read and written, and what each way of failing is called."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.config import AppRoleAuth, EnvReference
from aca_tokend.core.errors import PublishError, SecretError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.vault_answers import KvRead
from aca_tokend.vault.session import VERSIONED_SECONDS
from tests.unit.scripted_server import Authority, ScriptedServer, response
from tests.unit.vault.bench import HELD, LOGIN, PATH, SECOND, SECRET, SHORT, assert_hidden, bench
from tests.unit.vault.stub import CAPABILITIES, DENIED, LOOKUP, answer, vault_stub

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.scripted_server import Talk
    from tests.unit.vault.bench import Bench
    from tests.unit.vault.stub import VaultStub


# What is read and written


def test_reads(stub: VaultStub, by_token: Bench) -> None:
    """A missing secret is version 0; a deleted or destroyed one has no fields but a version; neither is a failure."""
    deleted = {"data": None, "metadata": {"version": 5, "deletion_time": "2026-11-24T06:00:00Z", "destroyed": False}}
    destroyed = {"data": None, "metadata": {"version": 6, "deletion_time": "", "destroyed": True}}
    found = []
    for status, body in ((404, {"errors": []}), (404, {"data": deleted}), (404, {"data": destroyed})):
        stub.always(PATH, answer(status, body))
        found.append(by_token.read())
    assert found == [KvRead(None, 0), KvRead(None, 5), KvRead(None, 6)]
    stub.always(PATH, HELD)
    assert by_token.read() == KvRead({"password": SECRET, "pin": 7}, 3)
    assert SECRET not in repr(by_token.read())


def test_mount_that_becomes_version_1(stub: VaultStub, by_token: Bench) -> None:
    """A mount that is enabled anew as version 1 is noticed before anything is written to `data/PATH` there."""
    by_token.read()
    stub.always(PATH, answer(404, {"errors": []}))
    kind = {"type": "kv", "path": "secret/", "options": {"version": "1"}}
    stub.always("/v1/sys/internal/ui/mounts/secret", answer(200, {"data": kind}))
    by_token.clock.advance(VERSIONED_SECONDS + 1.0)

    error = by_token.failure()
    assert (error.reason, "set kv_version = 1" in str(error)) == (Reason.MOUNT_MISSING, True)


def test_write(stub: VaultStub, by_token: Bench) -> None:
    """A write sends the fields with the version it replaces, and returns the new one."""
    stub.always(PATH, answer(200, {"data": {"version": 8}}))
    assert by_token.session.write_kv("secret", "aca/bookings", {"a": "1", "b": None}, 7).version == 8
    assert stub.asked[-1].body == {"data": {"a": "1", "b": None}, "options": {"cas": 7}}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"errors": ["check-and-set parameter did not match the current version"]}, Reason.CONFLICT),
        ({"errors": ["error parsing check-and-set parameter"]}, Reason.REQUEST_REFUSED),
        ({"errors": "check-and-set parameter did not match the current version"}, Reason.REQUEST_REFUSED),
        ({"errors": [SECRET, None, 3]}, Reason.REQUEST_REFUSED),
    ],
)
def test_refused_write(stub: VaultStub, by_token: Bench, body: object, reason: Reason) -> None:
    """A write over another version is a conflict; nothing else of a 400 is, and what was sent is not shown."""
    stub.always(PATH, answer(400, body))
    with pytest.raises(PublishError) as caught:
        by_token.session.write_kv("secret", "aca/bookings", {"password": SECRET}, 7)
    assert caught.value.reason is reason
    assert_hidden(caught.value)


@pytest.mark.parametrize(
    ("path", "field", "reason", "message"),
    [
        ("aca/absent", "password", Reason.SECRET_MISSING, "vault main: there is no secret at secret/aca/absent"),
        ("aca/bookings", "pass", Reason.SECRET_MISSING, "vault main: secret/aca/bookings has no field pass"),
        ("aca/bookings", "pin", Reason.SECRET_NOT_TEXT, "vault main: field pin of secret/aca/bookings is not text"),
    ],
)
def test_field_that_is_no_secret(by_token: Bench, path: str, field: str, reason: Reason, message: str) -> None:
    """A field that is not there, or is no text, is named and not shown."""
    with pytest.raises(SecretError) as caught:
        by_token.session.read_secret("secret", path)(field)
    assert (caught.value.reason, str(caught.value)) == (reason, message)
    assert_hidden(caught.value)


def test_field(stub: VaultStub, by_token: Bench) -> None:
    """A field of text is a secret; where Vault does not give it, that is a SecretError with Vault's reason."""
    assert by_token.session.read_secret("secret", "aca/bookings")("password") == Secret(SECRET)
    stub.always(PATH, answer(503, {"errors": ["Vault is sealed"]}))
    with pytest.raises(SecretError) as caught:
        by_token.session.read_secret("secret", "aca/bookings")("password")
    assert caught.value.reason is Reason.VAULT_SEALED


# What goes wrong


@pytest.mark.parametrize(
    ("reply", "reason", "text"),
    [
        (
            answer(301, None, "Location: /v1/elsewhere"),
            Reason.REDIRECTED,
            "it redirects, which is not followed (HTTP 301)",
        ),
        (answer(400, {"errors": [SECRET]}), Reason.REQUEST_REFUSED, "refused (HTTP 400)"),
        (
            answer(404, {"errors": ['no handler for route "secret/data/x"']}),
            Reason.MOUNT_MISSING,
            "nothing is mounted there",
        ),
        (response(404, SECRET.encode(), content_type="text/html"), Reason.NOT_FOUND, "there is nothing (HTTP 404)"),
        (answer(405, {"errors": [SECRET]}), Reason.REQUEST_REFUSED, "refused (HTTP 405)"),
        (answer(429, {"errors": [SECRET]}), Reason.RATE_LIMITED, "too many requests (HTTP 429)"),
        (answer(500, {"errors": [SECRET]}), Reason.SERVER_ERROR, "the server failed (HTTP 500)"),
        (response(502, f"<p>{SECRET}</p>".encode(), content_type="text/html"), Reason.UNAVAILABLE, "(HTTP 502)"),
        (answer(503, {"errors": ["Vault is sealed"]}), Reason.VAULT_SEALED, "Vault is sealed (HTTP 503)"),
        (answer(503, {"errors": [SECRET]}), Reason.UNAVAILABLE, "not available (HTTP 503)"),
        (answer(504), Reason.UNAVAILABLE, "not available (HTTP 504)"),
        (answer(600), Reason.UNEXPECTED_STATUS, "unexpected (HTTP 600)"),
        (answer(200, [SECRET]), Reason.NOT_JSON, "the answer is not one of Vault (HTTP 200)"),
        (response(200, b"\xff" + SECRET.encode(), content_type="text/html"), Reason.NOT_JSON, "not one of Vault"),
        (response(200, b"[" * 100_000), Reason.NOT_JSON, "not one of Vault"),
        (answer(200, {"data": {"password": SECRET}}), Reason.MOUNT_MISSING, "what is mounted there is no KV version 2"),
        (answer(204), Reason.MOUNT_MISSING, "what is mounted there is no KV version 2"),
        (None, Reason.CONNECTION_LOST, "the connection ended before a whole answer in HTTP"),
    ],
)
def test_answers(stub: VaultStub, by_token: Bench, reply: bytes | None, reason: Reason, text: str) -> None:
    """Each way of failing has its reason and its words; nothing that was answered is shown."""
    stub.always(PATH, reply)
    error = by_token.failure()
    assert error.reason is reason
    assert str(error).startswith("vault main: secret/data/aca/bookings: ")
    assert text in str(error)


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("soon", None), ("-1", None), ("1" * 30, None)])
def test_retry_after(stub: VaultStub, by_token: Bench, value: str, seconds: float | None) -> None:
    """What Vault asks to wait is handed on, if it is a number of seconds; after a log-in there is always a wait."""
    stub.always(PATH, answer(429, {"errors": []}, f"Retry-After: {value}"))
    assert by_token.failure().retry_after_seconds == seconds
    stub.always(LOOKUP, answer(429, {"errors": []}, f"Retry-After: {value}"))
    with bench(stub.address) as fresh:
        assert fresh.failure().retry_after_seconds == pytest.approx(seconds or 0.4, abs=0.2)


def test_vault_that_says_nothing() -> None:
    """A Vault that takes the request and never answers costs the timeout."""
    with ScriptedServer(lambda talk: talk.hang()) as server, bench(server.url, timeout=SHORT) as made:
        assert made.failure().reason is Reason.TIMEOUT


def test_vault_that_stops_in_the_middle() -> None:
    """A Vault that stops in the middle of its answer costs the timeout too."""

    def stops(talk: Talk) -> None:
        talk.read_request()
        talk.send(HELD[:-5])
        talk.hang()

    with ScriptedServer(stops) as server, bench(server.url, timeout=SHORT) as made:
        assert made.failure().reason is Reason.TIMEOUT


def test_vault_that_leaves_in_the_middle() -> None:
    """A Vault that closes the connection in the middle of its answer has not answered."""

    def leaves(talk: Talk) -> None:
        talk.read_request()
        talk.send(HELD[:-5])

    with ScriptedServer(leaves) as server, bench(server.url) as made:
        assert made.failure().reason is Reason.CONNECTION_LOST


def test_nobody_listens() -> None:
    """An address where nobody listens, and a name that does not resolve, are told apart."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with bench(f"http://127.0.0.1:{bound.getsockname()[1]}") as made:
            assert made.failure().reason is Reason.CONNECT_FAILED
    with bench("http://vault.invalid", allow_plain_http=True) as made:
        assert made.failure().reason is Reason.NAME_NOT_RESOLVED


def test_private_authority(tmp_path: Path) -> None:
    """With `ca_file` the server is trusted by it alone; without, or under another name, the connection is refused."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "another authority")
    with vault_stub(authority.context("127.0.0.1")) as stub:
        stub.always(PATH, HELD)
        with bench(stub.address, ca_file=str(authority.ca_file)) as made:
            assert made.read().version == 3
        for ca_file in ("", str(other.ca_file)):
            with bench(stub.address, ca_file=ca_file) as made:
                error = made.failure()
                assert error.reason is Reason.TLS_FAILED
                assert "TLS failed: " in str(error)
    with (
        vault_stub(authority.context("vault.example.com")) as stub,
        bench(stub.address, ca_file=str(authority.ca_file)) as made,
    ):
        assert "IP address mismatch" in str(made.failure())


def test_authority_that_cannot_be_read(tmp_path: Path) -> None:
    """A `ca_file` that is missing, or holds no certificate, is told of."""
    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate", encoding="utf-8")
    with vault_stub(Authority(tmp_path).context("127.0.0.1")) as stub:
        for ca_file in (str(broken), str(tmp_path / "absent.pem")):
            with bench(stub.address, ca_file=ca_file) as made:
                assert made.failure().reason is Reason.TLS_FAILED


def test_no_tls_there() -> None:
    """A server that speaks no TLS fails as TLS."""

    def answers_in_the_clear(talk: Talk) -> None:
        talk.connection.recv(1)
        talk.send(HELD)

    with ScriptedServer(answers_in_the_clear) as server, bench(server.url.replace("http://", "https://")) as made:
        assert made.failure().reason is Reason.TLS_FAILED


def test_environment_is_not_used(stub: VaultStub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither proxies, nor credentials of a netrc, nor a Vault token or address come from the environment."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login canary password canary\n", encoding="utf-8")
    (tmp_path / ".vault-token").write_text("canary-vault-token-of-the-environment", encoding="utf-8")
    for name, value in {
        "HTTP_PROXY": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
        "NETRC": str(netrc),
        "HOME": str(tmp_path),
        "VAULT_ADDR": "http://127.0.0.1:1",
        "VAULT_TOKEN": "canary-vault-token-of-the-environment",
    }.items():
        monkeypatch.setenv(name, value)
    stub.always(LOGIN, answer(200, {"auth": {"client_token": SECOND, "lease_duration": 90}}))
    with bench(stub.address, AppRoleAuth(role_id="role-1", secret_id=EnvReference(env="SECRET_ID"))) as made:
        made.read()
    assert [asked.token for asked in stub.asked][:2] == [None, SECOND]
    assert not any("authorization" in asked.headers for asked in stub.asked)


def test_cookies_are_not_kept(stub: VaultStub, by_token: Bench) -> None:
    """A cookie that something before Vault sets is not sent back."""
    stub.always(LOOKUP, answer(200, {"data": {"ttl": 3600}}, "Set-Cookie: canary=1; Path=/"))
    by_token.read()
    assert not any("cookie" in asked.headers for asked in stub.asked)


def test_look_up_fails_otherwise(stub: VaultStub, by_token: Bench) -> None:
    """Where it cannot be found out whether our token lives, that is what is told, and nobody logs in."""
    by_token.read()
    stub.always(PATH, answer(403, DENIED))
    stub.always(LOOKUP, answer(503, {"errors": ["Vault is sealed"]}))
    assert by_token.failure().reason is Reason.VAULT_SEALED
    assert len(by_token.logins) == 1


@pytest.mark.parametrize(
    "seconds", ["1" + "0" * 400, "-1", "true", '"60"', "1e400", "NaN", "[]"], ids=lambda it: str(it)[:10]
)
def test_odd_life_of_a_token(stub: VaultStub, seconds: str) -> None:
    """A log-in whose token lives for no time that there is fails as one without a token."""
    body = b'{"auth": {"client_token": "t", "lease_duration": ' + seconds.encode() + b"}}"
    stub.always(LOGIN, response(200, body))
    with bench(stub.address, AppRoleAuth(role_id="role-1", secret_id=EnvReference(env="SECRET_ID"))) as made:
        assert made.failure().reason is Reason.VAULT_LOGIN_FAILED


def test_odd_capabilities(stub: VaultStub, by_token: Bench) -> None:
    """Capabilities that are no words say nothing, neither do they end anything."""
    by_token.read()
    stub.always(PATH, answer(403, DENIED))
    stub.always(CAPABILITIES, answer(200, {"data": {"secret/data/aca/bookings": [[], {}, None, "read\n"]}}))
    assert by_token.failure().reason is Reason.PERMISSION_DENIED


@pytest.mark.parametrize("size", [b"-5", b"-1"])
def test_odd_chunks(stub: VaultStub, by_token: Bench, size: bytes) -> None:
    """A chunk of less than nothing is no answer, and nothing is read beyond it."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    stub.always(PATH, chunked + size + b"\r\n" + SECRET.encode() * 1000)
    assert by_token.failure().reason is Reason.CONNECTION_LOST
