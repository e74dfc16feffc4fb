"""The printed policy on a real OpenBao: it is enough, and with any one capability less it is not."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import hvac
import pytest

from aca_tokend import sinks
from aca_tokend.config.files import load
from aca_tokend.config.references import SecretResolver
from aca_tokend.core.config import VaultPublish
from aca_tokend.core.errors import ReasonedError
from aca_tokend.core.guard import RECORD
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document
from aca_tokend.core.vault_policy import policies
from aca_tokend.demo.stage import CLIENT_ID, Passwords, Stage
from aca_tokend.vault.session import VaultSession
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aca_tokend.core.config import Config

CONFIG = """
[admin]
listen = ""
[acaengine.main]
url = "{url}"
[vault.main]
address = "{address}"
namespace = "{namespace}"
auth = {{ method = "token", token = {{ file = "{directory}/least-token" }} }}
[[tokens]]
name = "bookings"
authority = "authority-1"
username = "bookings"
password = {{ vault = "secret/{base}/password#value" }}
client_id = "{client_id}"
client_secret = {{ file = "{directory}/client-secret" }}
scope = "public"
publish = [{{ to = "vault", mount = "{mount}", path = "{base}/bookings", kv_version = {version} }}]
"""
# Paths below the base of a case, and each capability without which something must fail.
WRITTEN = ("bookings", "bookings.attempts")
NEEDED = [*itertools.product(WRITTEN, ("create", "read", "update")), ("password", "read")]


class Bao:
    """A real server, with KV version 2 at `secret` and version 1 at `old`; each case has paths of its own."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.root = stage.bao.client()
        self.root.sys.enable_secrets_engine("kv", path="old", options={"version": "1"})
        self._numbers = itertools.count(1)

    def config(self, mount: str = "secret", version: int = 2, namespace: str = "") -> tuple[Config, Path, str]:
        """A configuration of a token that nobody has published yet: itself, its file, and the base of its paths."""
        base = f"case-{next(self._numbers)}"
        path = self.stage.directory / f"{base}.toml"
        path.write_text(
            CONFIG.format(
                url=self.stage.lookalike.url,
                address=self.stage.bao.address,
                namespace=namespace,
                directory=self.stage.directory,
                base=base,
                client_id=CLIENT_ID,
                mount=mount,
                version=version,
            )
        )
        client = self.client(namespace)
        client.secrets.kv.v2.create_or_update_secret(
            f"{base}/password", {"value": CANARY_PASSWORD}, mount_point="secret"
        )
        return load(path), path, base

    def client(self, namespace: str) -> hvac.Client:
        """The administrator, in a namespace."""
        client = hvac.Client(url=self.stage.bao.address, token=self.root.token, namespace=namespace or None)
        client.adapter.session.trust_env = False
        return client

    def log_in_with(self, policy: str, name: str, namespace: str = "") -> str:
        """A new token that has this policy, and the one that every token has."""
        client = self.client(namespace)
        client.sys.create_or_update_acl_policy(name, policy)
        token: str = client.auth.token.create(policies=[name], ttl="1h")["auth"]["client_token"]
        self.stage.write_secret("least-token", Secret(token))
        return token


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    """One server and one look-alike for all these tests."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path_factory.mktemp("policy"), lifetime=600.0, passwords=passwords) as stage:
        stage.add_accounts(["bookings"])
        yield Bao(stage)


def document(number: int) -> Document:
    """A token as the daemon would publish it."""
    issued = datetime.now(UTC) + timedelta(seconds=number)
    return Document(
        access_token=Secret(f"canary-token-{number}"),
        issued_at=issued,
        expires_at=issued + timedelta(hours=1),
        refresh_after=issued + timedelta(minutes=40),
        expires_in=3600,
        scope="public",
        username="bookings",
        authority="authority-1",
        account="0" * 32,
    )


def do_all_that_is_needed(config: Config) -> None:
    """Every request to Vault that the daemon ever makes for these tokens, each for the first and a second time."""
    vaults: dict[str, VaultSession] = {}
    resolver = SecretResolver(vaults)
    session = vaults["main"] = VaultSession(
        "main", config.vault["main"], resolver.resolve, wall=time.time, on_login=lambda _event: None
    )
    token = config.tokens[0]
    try:
        resolver.resolve(token.password)
        sink = sinks.build(token.publish[0], vaults)
        for number in (1, 2):
            sink.publish(document(number), sink.look())
            sink.write_record(RECORD, {"credential": {"spent": number}}, sink.read_record(RECORD).stamp)
    finally:
        session.close()


def without(policy: str, path: str, capability: str) -> str:
    """The policy with one capability of one path taken away."""
    lines = policy.splitlines()
    (index,) = [number for number, line in enumerate(lines) if line.startswith(f'path "{path}"')]
    left = [it for it in re.findall(r'"(\w+)"', lines[index].partition("[")[2]) if it != capability]
    lines[index] = f'path "{path}" {{ capabilities = [{", ".join(f"{chr(34)}{it}{chr(34)}" for it in left)}] }}'
    return "\n".join(lines)


@pytest.mark.parametrize(("mount", "version"), [("secret", 2), ("old", 1)])
def test_enough(bao: Bao, mount: str, version: int) -> None:
    """A token with the printed policy alone can do all that the daemon does."""
    config, _, base = bao.config(mount, version)
    bao.log_in_with(policies(config)[0], base)

    do_all_that_is_needed(config)


@pytest.mark.parametrize(("path", "capability"), NEEDED, ids=lambda value: value)
@pytest.mark.parametrize(("mount", "version"), [("secret", 2), ("old", 1)], ids=["v2", "v1"])
def test_one_capability_less(bao: Bao, mount: str, version: int, path: str, capability: str) -> None:
    """Without any one of the printed capabilities something that the daemon does is denied, and it is named."""
    config, _, base = bao.config(mount, version)
    mount = "secret" if path == "password" else mount
    place = f"{mount}/data/{base}/{path}" if mount == "secret" else f"{mount}/{base}/{path}"
    token = bao.log_in_with(without(policies(config)[0], place, capability), base)

    with pytest.raises(ReasonedError) as denied:
        do_all_that_is_needed(config)

    assert denied.value.reason is Reason.PERMISSION_DENIED
    assert f'{place}: permission denied; the policy lacks "{capability}"' in denied.value.message
    for secret in (token, CANARY_PASSWORD, "canary-token-1", "canary-token-2"):
        assert secret not in denied.value.message


def test_every_capability_was_tried(bao: Bao) -> None:
    """The list of capabilities above is that of the printed policy."""
    config, _, base = bao.config()
    printed = {
        (found[1].partition(f"{base}/")[2], capability)
        for line in policies(config)[0].splitlines()
        if (found := re.match(r'path "([^"]+)"', line))
        for capability in re.findall(r'"(\w+)"', line.partition("[")[2])
    }
    assert printed == set(NEEDED)


def test_the_daemon_lives_on_it(bao: Bao) -> None:
    """What the command prints is enough for a whole rotation of the daemon, and for the next start, which adopts."""
    _, path, base = bao.config()
    printed = subprocess.run(
        [sys.executable, "-m", "aca_tokend", "policy", "--config", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    token = bao.log_in_with(printed.stdout, base)

    for event in ("token_rotated", "token_adopted"):
        daemon = bao.stage.daemon(path, "--once", log=f"{base}.log")
        assert daemon.process.wait(120) == 0, daemon.text
        assert daemon.events(event), daemon.text
        assert token not in daemon.text
    held = bao.root.secrets.kv.v2.read_secret_metadata(f"{base}/bookings", mount_point="secret")
    assert not held["data"]["custom_metadata"], "the note is optional"


def test_the_note_in_the_metadata(bao: Bao) -> None:
    """The lines that are printed as comments allow what they say."""
    config, path, base = bao.config()
    bao.log_in_with(re.sub(r"^# path", "path", policies(config)[0], flags=re.MULTILINE), base)

    daemon = bao.stage.daemon(path, "--once", log=f"{base}.log")

    assert daemon.process.wait(120) == 0, daemon.text
    held = bao.root.secrets.kv.v2.read_secret_metadata(f"{base}/bookings", mount_point="secret")
    assert held["data"]["custom_metadata"]["managed_by"] == "aca-tokend"


def test_in_a_namespace(bao: Bao) -> None:
    """The paths of a policy are those within its namespace."""
    bao.root.adapter.post("/v1/sys/namespaces/team-a")
    bao.client("team-a").sys.enable_secrets_engine("kv", path="secret", options={"version": "2"})
    config, _, base = bao.config(namespace="team-a")
    (policy,) = policies(config)
    assert "-namespace=team-a" in policy
    bao.log_in_with(policy, base, "team-a")

    do_all_that_is_needed(config)


def test_readers(bao: Bao) -> None:
    """A reader's policy reads the token and neither its records nor its password, and without it nothing is read."""
    config, _, base = bao.config()
    (policy,) = policies(config, reader=config.tokens[0])
    place = config.tokens[0].publish[0]
    assert isinstance(place, VaultPublish)
    bao.root.secrets.kv.v2.create_or_update_secret(place.path, {"x": "y"}, mount_point="secret")

    reader = hvac.Client(url=bao.stage.bao.address, token=bao.log_in_with(policy, f"{base}-reader"))
    reader.adapter.session.trust_env = False
    read: Any = reader.secrets.kv.v2.read_secret_version
    assert read(place.path, mount_point="secret", raise_on_deleted_version=True)["data"]["data"] == {"x": "y"}
    for other in (f"{place.path}.attempts", f"{base}/password"):
        with pytest.raises(hvac.exceptions.Forbidden):
            read(other, mount_point="secret", raise_on_deleted_version=True)
    with pytest.raises(hvac.exceptions.Forbidden):
        reader.secrets.kv.v2.create_or_update_secret(place.path, {"x": "z"}, mount_point="secret")

    bao.log_in_with(without(policy, f"secret/data/{place.path}", "read"), f"{base}-reader")
    with pytest.raises(hvac.exceptions.Forbidden):
        read(place.path, mount_point="secret", raise_on_deleted_version=True)


MERGE = {"PATCH": {"Content-Type": "application/merge-patch+json"}}


def test_reader_gets_nothing_else(bao: Bao) -> None:
    """A reader's token reads versions of its own document, and neither lists, writes, nor reads anything else."""
    config, path, base = bao.config()
    bao.log_in_with(policies(config)[0], base)
    daemon = bao.stage.daemon(path, "--once", log=f"{base}.log")
    assert daemon.process.wait(120) == 0, daemon.text
    kv = bao.root.secrets.kv.v2
    kv.create_or_update_secret(f"{base}/other", {"access_token": "canary-of-another"}, mount_point="secret")
    (policy,) = policies(config, reader=config.tokens[0])
    token = bao.log_in_with(policy, f"{base}-reader")

    def ask(method: str, place: str, body: object = None) -> int:
        """The status of a request with the reader's token."""
        url = f"{bao.stage.bao.address}/v1/{place}"
        answer: int = bao.root.session.request(
            method, url, headers={"X-Vault-Token": token, **MERGE.get(method, {})}, json=body, timeout=60
        ).status_code
        return answer

    own, write = f"{base}/bookings", {"data": {"access_token": "mine"}}
    assert ask("GET", f"secret/data/{own}") == ask("GET", f"secret/data/{own}?version=1") == 200
    denied = [
        *(("GET", f"secret/data/{base}/{it}") for it in ("other", "password", "bookings.attempts")),
        *(("LIST", f"secret/metadata/{it}") for it in ("", base, own)),
        *(("GET", f"secret/{it}/{own}") for it in ("metadata", "subkeys")),
        *((method, f"secret/data/{own}") for method in ("POST", "PUT", "PATCH", "DELETE")),
        *(("POST", f"secret/{it}/{own}") for it in ("metadata", "delete", "undelete", "destroy")),
        *(("GET", f"sys/{it}") for it in ("mounts", "auth", "policies/acl/root", "audit", "config/ui")),
        *(
            ("LIST", it)
            for it in ("auth/token/accessors", "identity/entity/id", "sys/policies/acl", "sys/leases/lookup")
        ),
        ("POST", "auth/token/create"),
        ("POST", "sys/seal"),
    ]
    assert {(method, place): ask(method, place, write) for method, place in denied} == dict.fromkeys(denied, 403)
