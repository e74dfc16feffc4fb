"""At level debug, through every fault there is: no secret in log, pages or process, nor in a file but the sinks."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.core.secret import Secret
from aca_tokend.demo.levers import ANSWER_KINDS, FAULT_KINDS
from aca_tokend.demo.stage import Passwords, Settings, Stage, wait_until
from tests.integration.conftest import of_process
from tests.integration.test_faults import give_each_its_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aca_tokend.demo.stage import DaemonProcess

PASSWORD = "canary-p&ss+w%rd=ü-91d0"
CLIENT_SECRET = "canary client/secret+3e77"
ROTATION = (
    'min_interval = "1s"\nassumed_lifetime = "60s"\nbackoff = { initial = "200ms", cap = "1s" }\nretry_rejected = "1s"'
)
# What a token of ACAEngine begins with here, and what one of OpenBao does: so any is recognised, also one that nobody
# but the daemon has ever seen.
ACCESS_TOKEN = re.compile(r"eyJ[\w-]{10}")
VAULT_TOKEN = re.compile(r"\b(s|b|r|hvs|hvb)\.[A-Za-z0-9_-]{20}")

# A server that repeats what it was sent, wherever a client may be tempted to tell of it.
ECHO = json.dumps(
    {"error": "invalid_grant", "error_description": f"{PASSWORD} is wrong", "errors": [CLIENT_SECRET], "code": PASSWORD}
)
DETAILS: Mapping[str, Mapping[str, object]] = {
    "answer": {"status": 400, "body": ECHO, "headers": {"WWW-Authenticate": f'Basic realm="{CLIENT_SECRET}"'}},
    "rate_limited": {"retry_after": CLIENT_SECRET},
    "unavailable_html": {"retry_after": "1"},
    "drip_headers": {"seconds": 0.2},
    "drip_body": {"seconds": 0.2},
    "delay": {"seconds": 0.2},
    "gzip_bomb": {"megabytes": 5},
    "huge_body": {"megabytes": 5},
    **{
        kind: {"location": f"http://127.0.0.1:9/?password={urllib.parse.quote(PASSWORD)}"}
        for kind in ANSWER_KINDS
        if kind.startswith("redirect")
    },
}


def forms(secret: str) -> Iterator[str]:
    """How a secret may be written: as it is, in a form, in JSON, in Python, and as Basic authentication."""
    yield from (secret, urllib.parse.quote_plus(secret), urllib.parse.quote(secret), json.dumps(secret)[1:-1])
    yield from (secret.encode("unicode_escape").decode(), repr(secret.encode())[2:-1])
    yield base64.b64encode(secret.encode()).decode().rstrip("=")


def everything_observable(stage: Stage, daemon: DaemonProcess, tokens: list[str]) -> Iterator[tuple[str, str]]:
    """All that somebody who must not know the secrets may see: where, and the text."""
    yield "log", daemon.text
    pages = ["/", "/metrics", "/-/healthy", "/-/ready", "/-/ready?verbose", "/api/v1/schema", "/nothing"]
    pages += [f"/api/v1/status?page={page}&per_page=1000" for page in (1, 2)]
    pages += [path for name in tokens for path in (f"/tokens/{name}", f"/api/v1/status/{name}")]
    for page in pages:
        yield page, daemon.get(page)[1]
    proc = Path(f"/proc/{daemon.process.pid}")
    for name in ("cmdline", "environ", "limits"):
        yield name, of_process(daemon.process.pid, name)
    yield "names of threads", " ".join((it / "comm").read_text() for it in (proc / "task").iterdir() if it.exists())
    for path in stage.directory.rglob("*"):
        whose = path.relative_to(stage.directory).parts[0]
        is_secret = path.suffix == ".password" or path.name in {"client-secret", "vault-token", "secret-id"}
        # also while it is being written, beside what it will replace
        is_sink = whose.startswith("published") and path.suffix in {".json", ".tmp"}
        if path.is_file() and not is_secret and not is_sink and whose not in {"openbao", "lookalike.log"}:
            yield str(path), path.read_bytes().decode(errors="replace")


def assert_no_secret(stage: Stage, daemon: DaemonProcess, tokens: list[str], *more: str) -> None:
    """Searches everything for every secret; `more` are those beside the canaries."""
    secrets = [
        form for secret in (PASSWORD, CLIENT_SECRET, stage.bao.root_token.reveal(), *more) for form in forms(secret)
    ]
    for where, text in everything_observable(stage, daemon, tokens):
        for number, secret in enumerate(secrets):
            assert secret not in text, f"secret {number} is in {where}"
        for kind in (ACCESS_TOKEN, VAULT_TOKEN):
            assert kind.search(text) is None, f"a token is in {where}"


def assert_no_secret_in(log: str) -> None:
    """The last lines of a daemon that has ended."""
    assert [form for secret in (PASSWORD, CLIENT_SECRET) for form in forms(secret) if form in log] == []
    assert ACCESS_TOKEN.search(log) is None


def staged(directory: Path) -> Stage:
    """The servers, with canaries for secrets and with tokens that are recognised."""
    stage = Stage(directory, lifetime=600.0, raft=True, passwords=Passwords(Secret(PASSWORD), Secret(CLIENT_SECRET)))
    stage.lookalike.levers(token_kind="jwt", refresh_token=True)
    return stage


def test_every_fault_of_an_endpoint(tmp_path: Path) -> None:
    """Every fault that the look-alike knows, of its token endpoint and of its API, shows no secret anywhere."""
    with staged(tmp_path) as stage:
        by_area = {
            area: {f"{area}-{kind}".replace("_", "-"): kind for kind in sorted(FAULT_KINDS)}
            for area in ("token", "api")
        }
        names = [name for tokens in by_area.values() for name in tokens]
        config = stage.config(names, Settings(rotation=ROTATION))
        give_each_its_endpoint(config, stage.lookalike.url)
        verified = re.sub(
            r'(name = "api-.*?)(?=\[\[tokens.publish)',
            r'\1verify = { path = "/api/engine/v2/users/current", every = "1s" }\n',
            config.read_text(),
            flags=re.DOTALL,
        )
        config.write_text(verified)
        stage.lookalike.levers(lifetime=8.0)
        daemon = stage.daemon(config)
        daemon.wait_for("token_rotated", len(names))
        stage.lookalike.levers(
            faults=[
                {"kind": kind, "on": area, "username": name, **DETAILS.get(kind, {})}
                for area, tokens in by_area.items()
                for name, kind in tokens.items()
            ]
        )

        wait_until(lambda: stage.lookalike.counts().faults.keys() >= FAULT_KINDS, "every fault")
        for name in by_area["token"]:
            daemon.wait_for("grant_answered", 2, token=name)
        for step in ("grant", "verify"):
            daemon.wait_for("rotation_failed", step=step)
        failing = {line["token"] for line in daemon.events("rotation_failed")}
        assert_no_secret(stage, daemon, [name for name in names if name in failing][:20])
        assert daemon.terminate() == 0
        assert all(ACCESS_TOKEN.search(stage.file_of(name).read_text()) for name in names), "a token is recognised"
        assert_no_secret_in(daemon.text)


def test_every_fault_of_a_vault(tmp_path: Path) -> None:
    """A Vault that is sealed, silent, gone, or takes away policy, token or log-in, shows no secret anywhere."""
    with staged(tmp_path) as stage:
        client = stage.bao.client()
        allowed = 'path "secret/data/aca/*" { capabilities = ["create", "read", "update"] }'
        client.sys.create_or_update_policy("tokens", allowed)
        client.sys.enable_auth_method("approle")
        client.auth.approle.create_or_update_approle("daemon", token_policies=["tokens"], token_ttl="1h")
        role_id = client.auth.approle.read_role_id("daemon")["data"]["role_id"]
        secret_id = client.auth.approle.generate_secret_id("daemon")["data"]["secret_id"]
        stage.write_secret("secret-id", Secret(secret_id))
        auth = f'method = "approle", role_id = "{role_id}", secret_id = {{ file = "{tmp_path}/secret-id" }}'
        config = stage.config(["bookings"], Settings(rotation=ROTATION, vault='timeout = "1s"', auth=auth))
        stage.lookalike.levers(lifetime=4.0)
        daemon = stage.daemon(config)
        daemon.wait_for("token_rotated")

        stage.bao.seal()
        daemon.wait_for("publish_failed", reason="vault_sealed")
        stage.bao.unseal()
        daemon.wait_for("publish_recovered", 1)
        os.kill(stage.bao.pid, signal.SIGSTOP)
        daemon.wait_for("publish_failed", reason="timeout")
        os.kill(stage.bao.pid, signal.SIGCONT)
        daemon.wait_for("publish_recovered", 2)
        client.sys.create_or_update_policy("tokens", 'path "secret/data/aca/*" { capabilities = ["read"] }')
        daemon.wait_for("publish_failed", reason="permission_denied")
        client.sys.create_or_update_policy("tokens", allowed)
        daemon.wait_for("publish_recovered", 3)
        stage.bao.stop()
        daemon.wait_for("publish_failed", reason="connect_failed")
        stage.bao.restart()
        daemon.wait_for("publish_recovered", 4)
        stage.bao.client().secrets.kv.v2.create_or_update_secret("aca/bookings", {"a": PASSWORD}, mount_point="secret")
        daemon.wait_for("publish_failed", reason="foreign_document")
        stage.bao.client().secrets.kv.v2.delete_metadata_and_all_versions("aca/bookings", mount_point="secret")
        daemon.wait_for("publish_recovered", 5)
        # our own token is revoked, and the secret id is of no use any more
        stage.bao.client().write("auth/approle/role/daemon/secret-id/destroy", secret_id=secret_id)
        stage.bao.client().sys.revoke_prefix("auth/approle")
        daemon.wait_for("vault_login_failed")
        daemon.wait_for("vault_login_suspended")
        assert VAULT_TOKEN.search(stage.bao.root_token.reveal()), "a token is recognised"
        assert_no_secret(stage, daemon, ["bookings"], secret_id)
        assert daemon.terminate() == 0
        assert_no_secret_in(daemon.text)
