"""Every method of log-in on a real OpenBao, by the commands of docs/vault-logins.md, and the life of our token."""

from __future__ import annotations

import json
import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.config.references import SecretResolver
from aca_tokend.core.config import VaultConfig
from aca_tokend.core.errors import LookError
from aca_tokend.core.login import LoggedIn, LoginFailed, RenewalFailed, Renewed
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Passwords, Settings, Stage, wait_until
from aca_tokend.vault.session import VaultSession
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, assert_nothing_leaked
from tests.logins import METHODS, PASSWORD, Logins, Reviewer, commands
from tests.unit.scripted_server import Authority, ScriptedServer, response
from tests.unit.vault.bench import assert_hidden

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aca_tokend.core.login import LoginEvent
    from tests.unit.scripted_server import Talk

pytestmark = pytest.mark.xdist_group("vault-logins")

TTL = "8s"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Logins, Reviewer]]:
    """A server with every method, and the TokenReview API that it asks."""
    directory = tmp_path_factory.mktemp("logins")
    with Logins.begin(directory) as bao:
        reviewer = Reviewer(bao)
        with ScriptedServer(reviewer.talk, Authority(directory, "kubernetes ca").context("127.0.0.1")) as api:
            for method in METHODS[1:]:
                bao.enable(method, TTL, api.url)
            bao.write("kubernetes.jwt", bao.service_account_token())
            bao.write("jwt.jwt", bao.signed())
            yield bao, reviewer


@pytest.fixture(scope="module")
def bao(cluster: tuple[Logins, Reviewer]) -> Logins:
    """That server."""
    return cluster[0]


class Kept:
    """A session whose token is kept as the daemon keeps it: by a thread that comes when it is due."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.told: list[LoginEvent] = []
        self.due = threading.Condition()
        self.ended = False
        secrets = SecretResolver({})
        self.session = VaultSession("main", VaultConfig(**table), secrets.resolve, wall=time.time, on_login=self._tell)
        self._at = float("inf")
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def _tell(self, event: LoginEvent) -> None:
        self.told.append(event)
        if isinstance(event, LoggedIn | LoginFailed):
            with self.due:
                self._at = event.keep_at
                self.due.notify_all()

    def _keep(self) -> None:
        while True:
            with self.due:
                while not self.ended and self._at > time.monotonic():
                    self.due.wait(min(self._at - time.monotonic(), 60.0))
                if self.ended:
                    return
            at = self.session.keep()
            with self.due:
                self._at = at

    def end(self) -> None:
        with self.due:
            self.ended = True
            self.due.notify_all()
        self._thread.join()
        self.session.close()

    def works(self) -> bool:
        """Whether Vault can be read."""
        return self.session.read_kv("secret", "aca/absent").version == 0

    def count(self, kind: type[LoginEvent]) -> int:
        """How many events of a kind were told."""
        return sum(isinstance(event, kind) for event in self.told)

    def wait_for(self, kind: type[LoginEvent], count: int = 1) -> None:
        """Waits until so many events of a kind were told; our token works at every moment meanwhile."""
        wait_until(lambda: self.works() and self.count(kind) >= count, f"{count} times {kind.__name__}")

    def failure(self) -> LookError:
        """How a read fails; nothing secret is in anything that is shown of it."""
        with pytest.raises(LookError) as caught:
            self.works()
        assert_hidden(caught.value)
        assert PASSWORD not in str(self.told)
        return caught.value


@contextmanager
def kept(table: dict[str, Any]) -> Iterator[Kept]:
    """A session that is kept until the end."""
    made = Kept(table)
    try:
        yield made
    finally:
        made.end()


def test_every_method(bao: Logins) -> None:
    """By each method the daemon gets a token with its policy, renews it, and revokes it in the end if it is its own."""
    bao.enable("token", TTL)
    with ExitStack() as stack:
        sessions = {method: stack.enter_context(kept(bao.vault(method))) for method in METHODS}
        for method, ours in sessions.items():
            assert ours.works(), method
            own = ours.session.own_token()
            assert own.policies == ("aca-tokend", "default"), method
            assert (own.kind, own.renewable) == ("service", True), method
        for ours in sessions.values():
            ours.wait_for(Renewed, 2)
        for method, ours in sessions.items():
            assert ours.count(LoggedIn) == 1, method
            assert len(bao.accessors(method)) == (0 if method == "token" else 1), method
            with pytest.raises(LookError) as caught:
                ours.session.read_kv("secret", "elsewhere/absent")
            assert caught.value.reason is Reason.PERMISSION_DENIED, method
    assert [accessor for method in METHODS for accessor in bao.accessors(method)] == []


def role(bao: Logins, name: str, settings: str) -> dict[str, Any]:
    """The `[vault.NAME]` of a role of its own for AppRole, whose tokens have these settings."""
    bao.run(
        f"bao write auth/team/approle/role/{name} token_policies=aca-tokend {settings}; "
        f"bao read -field=role_id auth/team/approle/role/{name}/role-id > {name}.role-id; "
        f"bao write -force -field=secret_id auth/team/approle/role/{name}/secret-id > {name}.secret-id"
    )
    table = bao.vault("approle")
    ids = {key: {"file": str(bao.files / f"{name}.{key.replace('_', '-')}")} for key in ("role_id", "secret_id")}
    return table | {"auth": table["auth"] | ids}


def test_replaced_before_it_ends(bao: Logins) -> None:
    """A token whose longest life ends, or that cannot be renewed, is replaced while it still works."""
    with (
        kept(role(bao, "capped", "token_ttl=3s token_max_ttl=5s")) as capped,
        kept(role(bao, "batch", "token_ttl=3s token_type=batch")) as batch,
    ):
        assert capped.works()
        assert batch.works()
        assert batch.session.own_token().kind == "batch"
        capped.wait_for(LoggedIn, 3)
        batch.wait_for(LoggedIn, 3)
        assert capped.count(Renewed) >= 2
        assert batch.count(Renewed) == 0
        assert capped.count(LoginFailed) == batch.count(LoginFailed) == 0


def test_given_token(bao: Logins) -> None:
    """A token that cannot be renewed is told of and replaced from its file, and so is one that is dead already."""
    bao.run("bao token create -orphan -policy=aca-tokend -ttl=4s -renewable=false -field=token > vault-token")
    with kept(bao.vault("token")) as ours:
        ours.wait_for(RenewalFailed)
        bao.enable("token")
        ours.wait_for(LoggedIn, 2)
        client = bao.client()
        client.revoke_token((bao.files / "vault-token").read_text().strip())
        assert ours.failure().reason is Reason.VAULT_LOGIN_FAILED
        bao.enable("token")
        wait_until(lambda: ours.count(LoggedIn) == 3, "the third token")
        assert ours.works()


def test_revoked_token(cluster: tuple[Logins, Reviewer]) -> None:
    """A token that Vault revoked is replaced at once; a projected token that was rotated meanwhile is the one sent."""
    bao, reviewer = cluster
    with kept(bao.vault("kubernetes")) as ours:
        assert ours.works()
        bao.write("kubernetes.jwt", bao.service_account_token(2))
        (accessor,) = bao.accessors("kubernetes")
        bao.client().revoke_token(accessor, accessor=True)
        assert ours.works()
        assert reviewer.reviewed[-2:] == ["token-1", "token-2"]


def test_changed_certificate(bao: Logins) -> None:
    """After a change of the client certificate the token of the old one is not renewed, and the new one logs in."""
    with kept(bao.vault("cert")) as ours:
        # by then connections are kept that were opened with the old one
        ours.wait_for(Renewed, 2)
        bao.client_certificate()
        ours.wait_for(LoggedIn, 2)
        assert ours.count(LoginFailed) == 0


WRONG = {
    "token": ("vault-token", "s.canary-wrong"),
    "approle": ("secret-id", "canary-wrong"),
    "kubernetes": ("kubernetes.jwt", "canary.wrong.jwt"),
    "jwt": ("jwt.jwt", "canary.wrong.jwt"),
    "userpass": ("vault-password", "canary-wrong"),
}


@pytest.mark.parametrize("method", WRONG)
def test_wrong_credential(bao: Logins, method: str) -> None:
    """What is refused says what to check; what can be locked out is sent twice, whoever asks; a right one mends it."""
    bao.enable("token", "1h")
    name, wrong = WRONG[method]
    right = (bao.files / name).read_text().strip()
    bao.write(name, wrong)
    with kept(bao.vault(method)) as ours:
        error = ours.failure()
        assert error.reason is Reason.VAULT_LOGIN_FAILED
        assert f"vault main: log-in by {method}" in error.message
        assert "check" in error.message or "put a valid one" in error.message
        guarded = method in {"approle", "userpass"}
        if guarded:
            wait_until(lambda: ours.failure() is not None and ours.count(LoginFailed) == 2, "the second refusal")
            for _ in range(50):
                assert "is not sent again before it changes" in ours.failure().message
        bao.write(name, right)
        wait_until(lambda: ours.count(LoggedIn) == 1, "a log-in with what is right now")
        assert ours.works()
        if guarded:
            assert ours.count(LoginFailed) == 2


def test_keys_of_the_provider(bao: Logins) -> None:
    """A signed token is also taken where Vault reads the provider's keys by itself, and the role is the default one."""
    keys = json.dumps({"keys": [bao.key.as_dict(private=False)]}).encode()

    def talk(talk: Talk) -> None:
        while talk.read_request() is not None:
            talk.send(response(200, keys, ("Connection: close",)))
            return

    authority = Authority(bao.files, "provider ca")
    with ScriptedServer(talk, authority.context("127.0.0.1")) as provider:
        bao.run(
            "bao auth enable -path=team/jwks jwt; "
            f"bao write auth/team/jwks/config jwks_url={provider.url}/keys jwks_ca_pem=@provider-ca.pem "
            "default_role=aca-tokend; "
            "bao write auth/team/jwks/role/aca-tokend role_type=jwt user_claim=sub bound_audiences=vault "
            "token_policies=aca-tokend token_ttl=1h"
        )
        table = bao.vault("jwt")
        auth = {key: value for key, value in table["auth"].items() if key != "role"}
        with kept(table | {"auth": auth | {"mount": "team/jwks"}}) as ours:
            assert ours.works()


def test_namespace(bao: Logins, tmp_path: Path) -> None:
    """The log-in by each method, its policy and the secrets are those of the namespace."""
    kubernetes = bao.client().read("auth/team/kubernetes/config")["data"]["kubernetes_host"]
    bao.run("bao namespace create team-a")
    inside = bao.inside("team-a", tmp_path)
    inside.write("vault-password", "canary-of-the-namespace")
    inside.run("bao secrets enable -path=secret kv-v2; " + commands(""))
    inside.run("until bao kv put -mount=secret aca/here a=b; do sleep 0.1; done")  # the engine is not ready at once
    for method in reversed(METHODS):  # the token lives from now on: last made, first used
        inside.enable(method, TTL, kubernetes)
    with ExitStack() as stack:
        sessions = {method: stack.enter_context(kept(inside.vault(method))) for method in METHODS}
        for method, ours in sessions.items():
            assert ours.session.read_kv("secret", "aca/here").version == 1, method
        for ours in sessions.values():
            ours.wait_for(Renewed)
    with kept(inside.vault("userpass") | {"namespace": ""}) as elsewhere:
        assert elsewhere.failure().reason is Reason.VAULT_LOGIN_FAILED


def toml(value: object) -> str:
    """A value as it stands in a configuration."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def test_daemon(bao: Logins, tmp_path: Path) -> None:
    """The daemon publishes through log-ins by every method, while one Vault hangs, and leaves no token of its own."""
    bao.enable("token", "1h")
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with (
        ScriptedServer(lambda talk: talk.hang()) as hanging,
        Stage(tmp_path, lifetime=600.0, passwords=passwords) as stage,
    ):
        config = stage.config(["bookings", "signage"])
        text = config.read_text()
        for method in METHODS:
            table = bao.vault(method) | {"timeout": "20s"}
            text = text.replace("[rotation]", f"[vault.{method}]\n" + lines(table) + "[rotation]", 1)
            text += place(method, f"aca/{method}")
        away = bao.vault("userpass") | {"address": hanging.url, "timeout": "2s"}
        text = text.replace("[rotation]", "[vault.away]\n" + lines(away) + "[rotation]", 1)
        text += text[text.index("[[tokens]]") : text.index("[[tokens.publish]]")].replace('"bookings"', '"waits"', 1)
        text += place("away", "aca/waits")
        config.write_text(text)
        daemon = stage.daemon(config)
        daemon.wait_for("token_rotated", 2)
        for method in METHODS:
            assert daemon.wait_for("vault_logged_in", vault=method)["method"] == method
            held = bao.client().secrets.kv.v2.read_secret_version(f"aca/{method}", raise_on_deleted_version=True)
            assert held["data"]["data"]["token_type"] == "Bearer"
            assert daemon.metric("vault_token_expiration_timestamp_seconds", vault=method) > time.time() - 60
        daemon.wait_for("vault_token_renewed")
        failed = daemon.wait_for("vault_login_failed", vault="away")
        assert failed["reason"] == "timeout"
        assert daemon.metric("vault_login_total", vault="away", method="userpass", result="failed") >= 1
        assert daemon.get("/-/healthy")[0] == 200
        assert daemon.terminate() == 0
        for secret in (PASSWORD, (bao.files / "secret-id").read_text(), (bao.files / "jwt.jwt").read_text()):
            assert secret.strip() not in daemon.text
        assert_nothing_leaked(stage, daemon)
    assert [accessor for method in METHODS for accessor in bao.accessors(method)] == []


def lines(table: dict[str, Any]) -> str:
    """The lines of a table."""
    return "".join(f"{key} = {toml(value)}\n" for key, value in table.items())


def place(vault: str, path: str) -> str:
    """A further place to publish to."""
    return "[[tokens.publish]]\n" + lines({"to": "vault", "vault_name": vault, "mount": "secret", "path": path})


@pytest.mark.parametrize("where", ["here", "there"])
def test_mended_credential(bao: Logins, tmp_path: Path, where: str) -> None:
    """A token that waits an hour for a refused password is published at once when it is mended here, or by SIGHUP."""
    bao.write("vault-password", "canary-wrong")
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=600.0, passwords=passwords) as stage:
        config = stage.config(["bookings"], Settings(files=False))
        table = lines(bao.vault("userpass") | {"timeout": "20s"})
        text = config.read_text().replace("[rotation]", f"[vault.other]\n{table}[rotation]")
        config.write_text(text[: text.index("[[tokens.publish]]")] + place("other", f"aca/mended-{where}"))
        daemon = stage.daemon(config)
        assert daemon.wait_for("vault_login_suspended")["level"] == "error"
        if where == "here":
            bao.write("vault-password", PASSWORD)
        else:
            bao.run("bao write auth/team/userpass/users/aca-tokend/password password=canary-wrong")
            daemon.process.send_signal(signal.SIGHUP)
        rotated = daemon.wait_for("token_rotated")
        assert rotated["sinks"] == [f"vault.other:secret/aca/mended-{where}"]
        assert len(daemon.events("vault_login_failed")) == 1
        assert daemon.terminate() == 0
        assert "canary" not in daemon.text
        assert PASSWORD not in daemon.text
    bao.write("vault-password", PASSWORD)
    bao.run('bao write auth/team/userpass/users/aca-tokend/password password="$(cat vault-password)"')
