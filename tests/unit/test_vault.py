"""The Vault session: log-in, log-in again, and what each way of failing is called."""

from __future__ import annotations

import socket
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import AppRoleAuth, EnvReference, TokenAuth, VaultConfig
from aca_tokend.core.errors import LookError, PublishError, SecretError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.vault import VaultSession
from aca_tokend.vault_kv import KvRead
from tests.unit.scripted_server import Authority, ScriptedServer, response
from tests.unit.vault_stub import DENIED, LOOKUP, answer, vault_stub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aca_tokend.core.config import Reference
    from tests.unit.scripted_server import Talk
    from tests.unit.vault_stub import Asked, VaultStub

FIRST, SECOND = "canary-vault-token-1", "canary-vault-token-2"
SECRET_ID = "canary-secret-id"
SECRET = "canary-secret"
PATH = "/v1/secret/data/aca/bookings"
LOGIN = "/v1/auth/approle/login"
HELD = answer(200, {"data": {"data": {"password": SECRET, "pin": 7}, "metadata": {"version": 3}}})

# For tests in which the server never answers, and for those in which it must.
SHORT = 0.3
LONG = 30.0


class Keeper:
    """Resolves references to what the test put there, and counts."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.resolved: list[str] = []

    def __call__(self, reference: Reference) -> Secret:
        self.resolved.append(str(reference))
        if not isinstance(reference, EnvReference) or reference.env not in self.values:
            raise SecretError(Reason.SECRET_MISSING, f"{reference} is not set")
        return Secret(self.values[reference.env])


class Bench:
    """A session, with what it resolves and tells of."""

    def __init__(self, address: str, auth: TokenAuth | AppRoleAuth, **config: Any) -> None:  # noqa: ANN401
        self.keeper = Keeper(VAULT_TOKEN=FIRST, ROLE_ID="role-1", SECRET_ID=SECRET_ID)
        self.logins: list[tuple[str, str, bool, float | None]] = []
        self.session = VaultSession(
            "main",
            VaultConfig(address=address, auth=auth, **{"timeout": LONG, **config}),
            self.keeper,
            wall=lambda: 1000.0,
            on_login=lambda *login: self.logins.append(login),
        )

    def read(self) -> KvRead:
        return self.session.read_kv("secret", "aca/bookings")

    def failure(self) -> LookError:
        """How a read fails; nothing secret may be in anything that is shown of it."""
        with pytest.raises(LookError) as caught:
            self.read()
        assert_hidden(caught.value)
        return caught.value


def assert_hidden(error: BaseException) -> None:
    shown = str(error) + repr(error) + "".join(traceback.format_exception(error))
    assert "canary" not in shown


@contextmanager
def bench(
    address: str,
    auth: TokenAuth | AppRoleAuth | None = None,
    **config: Any,  # noqa: ANN401
) -> Iterator[Bench]:
    made = Bench(address, auth or TokenAuth(token=EnvReference(env="VAULT_TOKEN")), **config)
    try:
        yield made
    finally:
        made.session.close()


@pytest.fixture
def stub() -> Iterator[VaultStub]:
    """A Vault that holds a secret as version 3."""
    with vault_stub() as running:
        running.always(PATH, HELD)
        yield running


@pytest.fixture
def by_token(stub: VaultStub) -> Iterator[Bench]:
    """A session that logs in by token."""
    with bench(stub.address) as made:
        yield made


@pytest.fixture
def by_approle(stub: VaultStub) -> Iterator[Bench]:
    """A session that logs in by approle, and gets tokens that live for 90 seconds."""
    stub.always(LOGIN, answer(200, {"auth": {"client_token": SECOND, "lease_duration": 90}}))
    with bench(stub.address, AppRoleAuth(role_id="role-1", secret_id=EnvReference(env="SECRET_ID"))) as made:
        yield made


def only_for(token: str) -> Any:  # noqa: ANN401  # a rule of the stub
    """A rule: the held secret for this token, 403 for any other."""
    return lambda asked: HELD if asked.token == token else answer(403, DENIED)


# Log-in


def test_log_in_when_first_used(stub: VaultStub, by_token: Bench) -> None:
    """Nothing is asked of Vault or of the secrets before the first call; after it the token is known to live."""
    assert (stub.asked, by_token.keeper.resolved, by_token.session.expires_at) == ([], [], None)
    assert by_token.read().fields == {"password": SECRET, "pin": 7}
    by_token.read()
    assert [asked.path for asked in stub.asked] == [LOOKUP, PATH, PATH]
    assert {asked.token for asked in stub.asked} == {FIRST}
    assert by_token.session.expires_at == 4600.0
    assert by_token.logins == [("main", "token", True, 4600.0)]


def test_token_that_never_expires(stub: VaultStub, by_token: Bench) -> None:
    """A token without an end, which Vault says as 0, has no expiry here either."""
    stub.always(LOOKUP, answer(200, {"data": {"ttl": 0}}))
    by_token.read()
    assert by_token.session.expires_at is None
    assert by_token.logins == [("main", "token", True, None)]


def test_dead_token_is_read_again(stub: VaultStub, by_token: Bench) -> None:
    """Once our token is dead the reference is resolved again, and the call goes through with what it gives now."""
    by_token.read()
    stub.rules[PATH] = only_for(SECOND)
    stub.rules[LOOKUP] = lambda asked: (
        answer(200, {"data": {"ttl": 60}}) if asked.token == SECOND else answer(403, DENIED)
    )
    by_token.keeper.values["VAULT_TOKEN"] = SECOND
    assert by_token.read().version == 3
    assert [asked.path for asked in stub.asked[2:]] == [PATH, LOOKUP, LOOKUP, PATH]
    assert by_token.session.expires_at == 1060.0


def test_dead_token_and_nothing_better(stub: VaultStub, by_token: Bench) -> None:
    """A token that is dead and was not replaced fails the log-in; the next call tries it anew."""
    by_token.read()
    stub.always(PATH, answer(403, DENIED))
    stub.always(LOOKUP, answer(403, DENIED))
    for _ in range(2):
        error = by_token.failure()
        assert error.reason is Reason.VAULT_LOGIN_FAILED
        assert str(error) == "vault main: log-in by token: permission denied (HTTP 403)"
    assert [login[2] for login in by_token.logins] == [True, False, False]
    assert by_token.session.expires_at is None


def test_live_token_that_policy_denies(stub: VaultStub, by_approle: Bench) -> None:
    """A 403 with a token that lives comes from the policy: no log-in, and the error says what the policy must grant."""
    stub.always(PATH, answer(403, DENIED))
    error = by_approle.failure()
    assert error.reason is Reason.PERMISSION_DENIED
    assert str(error) == 'vault main: secret/data/aca/bookings: permission denied (HTTP 403); needs "read"'
    with pytest.raises(PublishError) as caught:
        by_approle.session.write_kv("secret", "aca/bookings", {"password": SECRET}, 0)
    assert str(caught.value).endswith('needs "create" and "update"')
    assert_hidden(caught.value)
    assert stub.count(LOGIN) == 1


def test_denied_after_a_new_log_in_too(stub: VaultStub, by_approle: Bench) -> None:
    """A call is sent again only once: denied with a brand-new token, it is denied."""
    stub.always(PATH, answer(403, DENIED))
    stub.always(LOOKUP, answer(403, DENIED))
    assert by_approle.failure().reason is Reason.PERMISSION_DENIED
    assert (stub.count(LOGIN), stub.count(PATH)) == (2, 2)


def test_approle(stub: VaultStub, by_approle: Bench) -> None:
    """An approle log-in sends role and secret id without a token, and uses the token it gets until it expires."""
    by_approle.read()
    login, read = stub.asked
    assert (login.method, login.path, login.token) == ("POST", LOGIN, None)
    assert login.body == {"role_id": "role-1", "secret_id": SECRET_ID}
    assert read.token == SECOND
    assert by_approle.logins == [("main", "approle", True, 1090.0)]
    assert by_approle.session.expires_at == 1090.0


def test_approle_elsewhere(stub: VaultStub) -> None:
    """The role id may be a reference, the method may be mounted elsewhere, and all goes into the namespace."""
    stub.always("/v1/auth/team/approle/login", answer(200, {"auth": {"client_token": SECOND, "lease_duration": 0}}))
    auth = AppRoleAuth(
        role_id=EnvReference(env="ROLE_ID"), secret_id=EnvReference(env="SECRET_ID"), mount="team/approle"
    )
    with bench(stub.address, auth, namespace="team-a") as made:
        made.read()
        assert made.session.expires_at is None
    assert stub.asked[0].body["role_id"] == "role-1"
    assert {asked.headers["x-vault-namespace"] for asked in stub.asked} == {"team-a"}


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, {"errors": ["invalid role or secret ID"]}, Reason.VAULT_LOGIN_FAILED),
        (403, DENIED, Reason.VAULT_LOGIN_FAILED),
        (
            404,
            {"errors": ['no handler for route "auth/approle/login". route entry not found.']},
            Reason.VAULT_LOGIN_FAILED,
        ),
        (200, {"auth": None}, Reason.VAULT_LOGIN_FAILED),
        (200, {"auth": {"client_token": f"{SECOND}\r\nX-Evil: 1", "lease_duration": 1}}, Reason.VAULT_LOGIN_FAILED),
        (204, None, Reason.VAULT_LOGIN_FAILED),
        (429, {"errors": ["slow down"]}, Reason.RATE_LIMITED),
        (500, {"errors": [SECRET_ID]}, Reason.SERVER_ERROR),
        (503, {"errors": ["Vault is sealed"]}, Reason.VAULT_SEALED),
    ],
)
def test_log_in_is_refused(stub: VaultStub, by_approle: Bench, status: int, body: object, reason: Reason) -> None:
    """A log-in that fails says so, tells a refusal from a Vault that cannot answer, and leaves no token."""
    stub.always(LOGIN, answer(status, body))
    error = by_approle.failure()
    assert error.reason is reason
    assert str(error).startswith("vault main: log-in by approle: ")
    assert by_approle.logins == [("main", "approle", False, None)]
    assert stub.count(PATH) == 0


def test_log_in_without_its_secret(stub: VaultStub, by_approle: Bench) -> None:
    """Where the reference does not resolve the log-in fails with the reference's reason, and Vault is not asked."""
    del by_approle.keeper.values["SECRET_ID"]
    error = by_approle.failure()
    assert error.reason is Reason.SECRET_MISSING
    assert str(error) == "vault main: log-in by approle: env SECRET_ID is not set"
    assert stub.asked == []


@pytest.mark.parametrize("token", ["", "canary\n", "canary token", "canary\u20ac", "canary\x00"])
def test_token_that_cannot_be_one(stub: VaultStub, by_token: Bench, token: str) -> None:
    """What cannot be a token is never put into a header: an error about the header would show it."""
    by_token.keeper.values["VAULT_TOKEN"] = token
    error = by_token.failure()
    assert error.reason is Reason.VAULT_LOGIN_FAILED
    assert stub.asked == []


def test_threads_that_meet_a_dead_token_log_in_once(stub: VaultStub, by_approle: Bench) -> None:
    """However many threads find the token dead at the same moment, there is one log-in, and every call goes through."""
    threads = 6
    by_approle.read()
    tokens = iter(["canary-vault-token-3", "canary-vault-token-4"])
    together = threading.Barrier(threads)

    def denied_together(asked: Asked) -> bytes:
        if asked.token == SECOND:
            together.wait(LONG)
            return answer(403, DENIED)
        return HELD

    stub.rules[PATH] = denied_together
    stub.rules[LOOKUP] = lambda asked: (
        answer(403, DENIED) if asked.token == SECOND else answer(200, {"data": {"ttl": 1}})
    )
    stub.rules[LOGIN] = lambda _: answer(200, {"auth": {"client_token": next(tokens), "lease_duration": 90}})
    with ThreadPoolExecutor(threads) as pool:
        reads = [pool.submit(by_approle.read) for _ in range(threads)]
        assert {read.result().version for read in reads} == {3}
    assert stub.count(LOGIN) == 2


def test_threads_share_a_failed_log_in(stub: VaultStub, by_approle: Bench) -> None:
    """A Vault that refuses the log-in is asked once for all threads that wait for it, each of which fails by itself."""
    threads = 6
    by_approle.read()
    together = threading.Barrier(threads)

    def denied_together(_: Asked) -> bytes:
        together.wait(LONG)
        return answer(403, DENIED)

    stub.rules[PATH] = denied_together
    stub.always(LOOKUP, answer(403, DENIED))
    stub.always(LOGIN, answer(503, {"errors": []}))
    with ThreadPoolExecutor(threads) as pool:
        errors = list(pool.map(lambda _: by_approle.failure(), range(threads)))
    assert {error.reason for error in errors} == {Reason.UNAVAILABLE}
    assert len({id(error.__cause__) for error in errors}) == threads
    assert stub.count(LOGIN) == 2


# What is read and written


def test_reads(stub: VaultStub, by_token: Bench) -> None:
    """A missing secret is version 0; a deleted or destroyed one has no fields but a version; neither is a failure."""
    deleted = {"data": None, "metadata": {"version": 5, "deletion_time": "2026-11-24T06:00:00Z", "destroyed": False}}
    destroyed = {"data": None, "metadata": {"version": 6, "deletion_time": "", "destroyed": True}}
    found = []
    for status, body in ((404, {"errors": []}), (404, {"data": deleted}), (404, {"data": destroyed})):
        stub.always(PATH, answer(status, body))
        found.append(by_token.read())
    assert found == [KvRead(None, 0, False), KvRead(None, 5, True), KvRead(None, 6, True)]
    stub.always(PATH, HELD)
    assert by_token.read() == KvRead({"password": SECRET, "pin": 7}, 3, False)
    assert SECRET not in repr(by_token.read())


def test_write(stub: VaultStub, by_token: Bench) -> None:
    """A write sends the fields with the version it replaces, and returns the new one."""
    stub.always(PATH, answer(200, {"data": {"version": 8}}))
    assert by_token.session.write_kv("secret", "aca/bookings", {"a": "1", "b": None}, 7) == 8
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
        by_token.session.read_field("secret", path, field)
    assert (caught.value.reason, str(caught.value)) == (reason, message)
    assert_hidden(caught.value)


def test_field(stub: VaultStub, by_token: Bench) -> None:
    """A field of text is a secret; where Vault does not give it, that is a SecretError with Vault's reason."""
    assert by_token.session.read_field("secret", "aca/bookings", "password") == Secret(SECRET)
    stub.always(PATH, answer(503, {"errors": ["Vault is sealed"]}))
    with pytest.raises(SecretError) as caught:
        by_token.session.read_field("secret", "aca/bookings", "password")
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
        (None, Reason.CONNECTION_LOST, "the connection broke before the whole answer was there"),
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
    """What Vault asks to wait is handed on, if it is a number of seconds."""
    stub.always(PATH, answer(429, {"errors": []}, f"Retry-After: {value}"))
    assert by_token.failure().retry_after_seconds == seconds
    stub.always(LOOKUP, answer(429, {"errors": []}, f"Retry-After: {value}"))
    with bench(stub.address) as fresh:
        assert fresh.failure().retry_after_seconds == seconds


def test_redirect_does_not_take_the_token_along(stub: VaultStub, by_token: Bench) -> None:
    """A redirect is not followed: the Vault token would go to wherever it points."""
    with vault_stub() as elsewhere:
        stub.always(PATH, answer(307, None, f"Location: {elsewhere.address}{PATH}"))
        assert by_token.failure().reason is Reason.REDIRECTED
        assert elsewhere.asked == []


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
                assert "no TLS connection: " in str(error)
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
    assert [asked.token for asked in stub.asked] == [None, SECOND]
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
