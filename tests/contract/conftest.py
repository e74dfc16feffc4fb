"""A real OpenBao server for the contract suite, and its administrator's hand."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from aca_tokend.demo.child import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY_ROOT = "canary-root-token-5b1f"


class OpenBao:
    """A running server, and what its administrator does to it over HTTP."""

    def __init__(self, address: str, unseal_key: str) -> None:
        self.address = address
        self.unseal_key = unseal_key
        self._http = httpx.Client(
            base_url=f"{address}/v1/", headers={"X-Vault-Token": CANARY_ROOT}, timeout=60, trust_env=False
        )
        self._numbers = itertools.count(1)

    def unique(self, stem: str) -> str:
        """A name that nothing on this server has yet."""
        return f"{stem}-{next(self._numbers)}"

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Sends one request as root; the answer's JSON, empty where it has none or says 404."""
        answer = self._http.request(method, path, json=body)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        answer.raise_for_status()
        result: dict[str, Any] = answer.json() if answer.content else {}
        return result

    def fields(self, path: str) -> dict[str, Any] | None:
        """What a reader of `secret/PATH` finds."""
        answer = self.send("GET", f"secret/data/{path}")
        return answer["data"]["data"] if answer else None

    def kv2(self) -> str:
        """A new mount of a KV version 2 engine."""
        mount = self.unique("kv")
        self.send("POST", f"sys/mounts/{mount}", {"type": "kv", "options": {"version": "2"}})
        self.wait_for(mount)
        return mount

    def wait_for(self, mount: str) -> None:
        """Waits for a mount that is new: for a moment it refuses everything."""
        wait_until(lambda: self._http.get(f"{mount}/data/nothing").status_code == httpx.codes.NOT_FOUND, mount)

    def kv1(self) -> str:
        """The mount of a KV version 1 engine."""
        if "kv1/" not in self.send("GET", "sys/mounts"):
            self.send("POST", "sys/mounts/kv1", {"type": "kv", "options": {"version": "1"}})
        return "kv1"

    def token(self, policy: str, ttl: str = "1h") -> str:
        """A new token that may do what this policy says, and look itself up."""
        name = self.unique("policy")
        self.send("PUT", f"sys/policies/acl/{name}", {"policy": policy})
        token: str = self.send("POST", "auth/token/create", {"policies": [name], "ttl": ttl})["auth"]["client_token"]
        return token

    def alive(self, token: str) -> bool:
        """Whether a token still counts."""
        return self._http.get("auth/token/lookup-self", headers={"X-Vault-Token": token}).is_success

    def close(self) -> None:
        self._http.close()


@contextmanager
def running() -> Iterator[OpenBao]:
    """A development server in memory, with KV version 2 at `secret`."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("bao")),
        "server",
        "-dev",
        "-dev-no-store-token",
        f"-dev-root-token-id={CANARY_ROOT}",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout
        said: dict[str, str] = {}
        for line in lines:
            key, _, value = line.partition(":")
            said[key] = value.strip()
            if key == "Root Token":
                break
        else:
            pytest.fail(f"OpenBao did not start: {said}")
        # what it goes on to say has to be read, or it would block once the pipe is full
        drain = threading.Thread(target=lambda: [None for _ in lines], daemon=True)
        drain.start()
        server = OpenBao(f"http://127.0.0.1:{port}", said["Unseal Key"])
        try:
            server.wait_for("secret")
            yield server
        finally:
            server.close()
            process.terminate()
            process.wait()
            drain.join()


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBao]:
    """One server for all tests of a run; each test takes names of its own."""
    with running() as server:
        yield server
