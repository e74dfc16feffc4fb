"""One Vault and what happens to it under a daemon: the last token stays, nothing is lost, the message names the fix."""

from __future__ import annotations

import json
import re
import selectors
import socket
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Settings, Stage, wait_until
from tests.integration.conftest import assert_nothing_leaked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from aca_tokend.demo.stage import DaemonProcess

ROTATION = 'min_interval = "1s"\nbackoff = { initial = "100ms", cap = "500ms" }'
ASKED = re.compile(rb"(GET|POST|PUT|LIST|DELETE|PATCH) (/v1/\S+) HTTP/1\.1\r\n")


class Counting:
    """A relay before a Vault that counts the connections and requests that reach it."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self.asked: Counter[str] = Counter()
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no further connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as server:
            ends = {client: server, server: client}
            with selectors.DefaultSelector() as ready:
                for each in ends:
                    ready.register(each, selectors.EVENT_READ, each)
                while True:
                    for key, _ in ready.select():
                        end = key.data
                        if not (data := end.recv(65536)):
                            return
                        if end is client:
                            self.asked.update(f"{verb.decode()} {path.decode()}" for verb, path in ASKED.findall(data))
                        ends[end].sendall(data)


@contextmanager
def counting(stage: Stage, config: Path) -> Iterator[Counting]:
    """Puts a relay before the stage's Vault and has the configuration go through it."""
    relay = Counting(stage.bao.port)
    config.write_text(config.read_text().replace(stage.bao.address, relay.address))
    try:
        yield relay
    finally:
        relay.close()


def policy_token(stage: Stage, *rules: str, **options: Any) -> Secret:  # noqa: ANN401  # of a token
    """A token that may do what these rules say, written where the daemon reads its own."""
    client = stage.bao.client()
    client.sys.create_or_update_policy("tokens", "\n".join(rules))
    made = client.auth.token.create(policies=["tokens"], **{"ttl": "1h", **options})
    token = Secret(made["auth"]["client_token"])
    stage.write_secret("vault-token", token)
    return token


def rule(path: str, *capabilities: str) -> str:
    listed = ", ".join(f'"{it}"' for it in capabilities)
    return f'path "{path}" {{ capabilities = [{listed}] }}'


def held(stage: Stage, account: str) -> Mapping[str, Any]:
    """What a reader finds."""
    answer = stage.bao.client().secrets.kv.v2.read_secret_version(
        f"aca/{account}", mount_point="secret", raise_on_deleted_version=True
    )
    fields: Mapping[str, Any] = answer["data"]["data"]
    return fields


def rotations(daemon: DaemonProcess, more: int) -> None:
    """Waits for so many more rotations."""
    daemon.wait_for("token_rotated", len(daemon.events("token_rotated")) + more)


def publishes_failed(daemon: DaemonProcess) -> float:
    """How often publishing to Vault failed so far."""
    return daemon.metric("publish_total", token="bookings", sink="vault:secret/aca/bookings", result="failed")


def test_one_look_and_one_write_a_rotation(stage: Stage) -> None:
    """After start each rotation costs Vault one read and one write, all over one connection that is kept."""
    policy_token(stage, rule("secret/data/aca/*", "create", "read", "update"))
    stage.lookalike.levers(lifetime=3.0)
    config = stage.config(["bookings"], Settings(rotation=ROTATION, files=False))
    with counting(stage, config) as relay:
        daemon = stage.daemon(config)
        rotations(daemon, 1)
        begun, connections = Counter(relay.asked), relay.connections
        rotated = len(daemon.events("token_rotated"))
        rotations(daemon, 5)
        daemon.terminate()
        rotated = len(daemon.events("token_rotated")) - rotated
        asked = relay.asked - begun
        path = "/v1/secret/data/aca/bookings"
        # the last rotation may have been ended between its look and its write
        assert asked[f"POST {path}"] == rotated
        assert asked[f"GET {path}"] in {rotated, rotated + 1}
        others = {it for it in asked if not it.endswith(path) and "auth/token" not in it}
        assert others == set()
        assert relay.connections == connections


def test_policy_taken_away(stage: Stage) -> None:
    """A policy that loses a capability is told of by path and capability; given back, what waits is published."""
    policy_token(stage, rule("secret/data/aca/*", "create", "read", "update"))
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=ROTATION)))
    daemon.wait_for("token_rotated")
    before = held(stage, "bookings")
    client = stage.bao.client()
    client.sys.create_or_update_policy("tokens", rule("secret/data/aca/*", "create", "read"))

    failed = daemon.wait_for("publish_failed", reason="permission_denied")

    assert 'secret/data/aca/bookings: permission denied; the policy lacks "update"' in failed["message"]
    # the grants go on for the file, until it has a token that lives on; Vault waits for that one
    stage.lookalike.levers(lifetime=600.0)
    file = stage.file_of("bookings")
    wait_until(lambda: json.loads(file.read_text())["expires_in"] == 600, "a token that lives on")
    grants, failed_before = stage.lookalike.counts().grants, publishes_failed(daemon)
    wait_until(lambda: publishes_failed(daemon) >= failed_before + 2, "two more attempts")
    assert held(stage, "bookings") == before, "the last token stays"
    client.sys.create_or_update_policy("tokens", rule("secret/data/aca/*", "create", "read", "update"))
    daemon.wait_for("publish_recovered", kind="vault")
    assert held(stage, "bookings") == json.loads(file.read_text())
    assert stage.lookalike.counts().grants == grants, "publishing was tried again without a grant"
    assert_nothing_leaked(stage, daemon)


def test_version_deleted_by_somebody(stage: Stage) -> None:
    """A version that somebody deletes or destroys is there again with the next look."""
    stage.lookalike.levers(lifetime=3.0)
    policy_token(stage, rule("secret/data/aca/*", "create", "read", "update"))
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=ROTATION, files=False)))
    daemon.wait_for("token_rotated")
    kv = stage.bao.client().secrets.kv.v2
    for delete in (kv.delete_latest_version_of_secret, kv.delete_metadata_and_all_versions):
        delete("aca/bookings", mount_point="secret")
        rotations(daemon, 1)
        assert held(stage, "bookings")["username"] == "bookings"
    assert not daemon.events("publish_failed")


def test_kv_version_1(stage: Stage) -> None:
    """With `kv_version = 1` a token is rotated there, adopted after a restart, and a wrong version named at once."""
    client = stage.bao.client()
    stage.lookalike.levers(lifetime=3.0)
    client.sys.enable_secrets_engine("kv", path="one", options={"version": "1"})
    policy_token(stage, rule("one/aca/*", "create", "read", "update"))
    config = stage.config(["bookings"], Settings(rotation=ROTATION, files=False))
    text = config.read_text().replace('mount = "secret"', 'mount = "one"')
    config.write_text(text)
    wrong = stage.daemon(config, log="wrong.log")
    failed = wrong.wait_for("rotation_failed", step="look", reason="mount_missing")
    assert "KV version 1 is mounted there; set kv_version = 1" in failed["message"]
    wrong.terminate()
    assert stage.lookalike.counts().grants == 0

    config.write_text(text.replace('mount = "one"', 'mount = "one"\nkv_version = 1'))
    daemon = stage.daemon(config)
    rotations(daemon, 1)
    daemon.kill()
    again = stage.daemon(config, log="again.log")
    wait_until(lambda: bool(again.events("token_adopted") or again.events("token_rotated")), "the token taken over")
    found = client.secrets.kv.v1.read_secret("aca/bookings", mount_point="one")["data"]
    assert found["username"] == "bookings"
    rotations(again, 1)
    assert_nothing_leaked(stage, again)


@pytest.mark.parametrize("missing", ["mount", "policy"])
def test_nothing_works_at_first(stage: Stage, missing: str) -> None:
    """Where the mount or the policy is missing at start no token is asked for; once it is there one is published."""
    client = stage.bao.client()
    client.sys.disable_secrets_engine("secret")
    rules = [rule("secret/data/aca/*", "create", "read", "update")]
    policy_token(stage, *(rules if missing == "mount" else [rule("secret/data/other", "read")]))
    if missing == "policy":
        client.sys.enable_secrets_engine("kv", path="secret", options={"version": "2"})
    daemon = stage.daemon(stage.config(["bookings"], Settings(rotation=ROTATION, files=False)))
    failed = daemon.wait_for("rotation_failed", step="look")
    assert failed["reason"] in ({"mount_missing"} if missing == "mount" else {"permission_denied", "unavailable"})
    assert stage.lookalike.counts().grants == 0
    if missing == "mount":
        client.sys.enable_secrets_engine("kv", path="secret", options={"version": "2"})
    client.sys.create_or_update_policy("tokens", *rules)
    daemon.wait_for("token_rotated")
    assert_nothing_leaked(stage, daemon)
