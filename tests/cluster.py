"""Three OpenBao servers on 127.0.0.1 that are one raft cluster: its nodes can be killed, sealed and brought back."""

from __future__ import annotations

import contextlib
import json
from contextlib import ExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

import httpx

from aca_tokend.core.secret import Secret
from aca_tokend.demo.child import Child, free_port, wait_until
from aca_tokend.demo.openbao import _binary

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 3
STANDBY = HTTPStatus.TOO_MANY_REQUESTS  # what the health of a standby is called


class Node:
    """One server of the cluster."""

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        self.directory = directory
        self.port = free_port()
        self.name = directory.name
        self._settings = settings
        self._child: Child | None = None
        self.http = httpx.Client(base_url=f"{self.address}/v1/", timeout=30, trust_env=False)
        (directory / "raft").mkdir(parents=True)

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        """Starts it; it is sealed then."""
        cluster = f"127.0.0.1:{self.port + 1}"
        raft = {
            "path": str(self.directory / "raft"),
            "node_id": self.name,
            "performance_multiplier": 1,  # by default an election takes five times as long
            "autopilot_reconcile_interval": "500ms",  # how soon a node that joined gets its vote
            "autopilot_update_interval": "250ms",
        }
        listener = {"address": f"127.0.0.1:{self.port}", "cluster_address": cluster, "tls_disable": True}
        config = {
            "storage": {"raft": raft},
            "listener": {"tcp": listener},
            "api_addr": self.address,
            "cluster_addr": f"https://{cluster}",
            **self._settings,
        }
        path = self.directory / "config.json"
        path.write_text(json.dumps(config))
        self._child = Child([_binary(), "server", f"-config={path}"], log=self.directory / "bao.log", tied=True)
        wait_until(lambda: self.health() is not None, f"node {self.name}")

    def kill(self) -> None:
        """Ends it by SIGKILL."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def health(self) -> int | None:
        """The status of its health, None where it does not answer."""
        with contextlib.suppress(httpx.HTTPError):
            return self.http.get("sys/health").status_code
        return None


class Cluster:
    """A running cluster with KV version 2 at `secret`."""

    def __init__(self, directory: Path, **settings: Any) -> None:  # noqa: ANN401  # of the server's configuration
        self.root_token = Secret("")
        self._key = ""
        self.nodes = []
        with ExitStack() as undo:
            undo.callback(self.stop)
            for number in range(SIZE):
                node = Node(directory / f"node{number}", settings)
                self.nodes.append(node)
                node.start()
            self._form(*self.nodes)
            undo.pop_all()

    def _form(self, first: Node, *others: Node) -> None:
        keys = first.http.put("sys/init", json={"secret_shares": 1, "secret_threshold": 1}).raise_for_status().json()
        self._key, self.root_token = keys["keys"][0], Secret(keys["root_token"])
        for node in self.nodes:
            node.http.headers["X-Vault-Token"] = self.root_token.reveal()
        self.unseal(first)
        wait_until(lambda: first.health() == HTTPStatus.OK, "the first leader")
        # by default a node that joins may not vote for ten seconds
        settings = {"server_stabilization_time": "0s"}
        self.send("POST", "sys/storage/raft/autopilot/configuration", settings)
        self.send("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        for node in others:
            node.http.post("sys/storage/raft/join", json={"leader_api_addr": first.address}).raise_for_status()
            self.unseal(node)
        self.settle()

    def settle(self) -> None:
        """Waits until one node is active, the others stand by with a vote, and each takes writes."""
        wait_until(self._whole, "three nodes with a vote each")
        wait_until(self._writable, "a KV engine that is ready")

    def _whole(self) -> bool:
        servers = self.send("GET", "sys/storage/raft/configuration")["data"]["config"]["servers"]
        voters = sum(server["voter"] for server in servers)
        return voters == SIZE and sorted(node.health() or 0 for node in self.nodes) == [200, STANDBY, STANDBY]

    def _writable(self) -> bool:
        return all(
            node.http.post("secret/data/ready", json={"data": {"by": node.name}}).is_success for node in self.nodes
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends all nodes."""
        for node in self.nodes:
            node.kill()
            node.http.close()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where its nodes answer."""
        return tuple(node.address for node in self.nodes)

    def leader(self) -> Node:
        """The active node; waits until there is one."""
        found: list[Node] = []

        def active() -> bool:
            found[:] = [node for node in self.nodes if node.running and node.health() == HTTPStatus.OK]
            return bool(found)

        wait_until(active, "an active node")
        return found[0]

    def standbys(self) -> list[Node]:
        """The nodes that run and are not active."""
        leader = self.leader()
        return [node for node in self.nodes if node.running and node is not leader]

    def unseal(self, node: Node) -> None:
        """Unseals a node."""
        node.http.put("sys/unseal", json={"key": self._key}).raise_for_status()

    def bring_back(self, node: Node) -> None:
        """Starts a node that was killed, and waits until it is of use."""
        node.start()
        self.unseal(node)
        wait_until(lambda: node.health() in {HTTPStatus.OK, STANDBY}, f"node {node.name} unsealed")

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Sends one request to the active node as root; the answer's JSON."""
        answer = self.leader().http.request(method, path, json=body).raise_for_status()
        result: dict[str, Any] = answer.json() if answer.content else {}
        return result
