"""Three OpenBao nodes whose leader is killed again and again, a daemon, and readers on every node.

`python -m tests.bench.vault_cluster` kills a leader every 20 seconds for three minutes, with tokens of 15 seconds, and
prints what readers met and what became of each write. A short form of it is a test.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from aca_tokend.core.secret import Secret
from aca_tokend.demo.reader import API_PATH
from aca_tokend.demo.stage import Settings, Stage
from tests.cluster import Cluster

if TYPE_CHECKING:
    from aca_tokend.demo.stage import DaemonProcess
    from tests.cluster import Node

LIFETIME_SECONDS = 15.0
DOWN_SECONDS = 6.0  # for how long a killed node stays away
# A token that expires sooner than this after Vault could be written again was not to be saved.
GRACE_SECONDS = 2.0
ROTATION = 'min_interval = "1s"\nbackoff = { initial = "200ms", cap = "1s" }'
VAULT = 'timeout = "2s"'


@dataclass
class Refusal:
    """A call that the API refused with a token that was just read."""

    node: str
    account: str
    at: float
    expires_at: float


@dataclass
class Seen:
    """What the readers and the writer met."""

    accepted: dict[str, int] = field(default_factory=dict)
    unavailable: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    writable: list[tuple[float, bool]] = field(default_factory=list)

    def could_not_write(self, refusal: Refusal) -> bool:
        """Whether an outage of Vault explains a refusal: it was over too late to save the token."""
        began = refusal.expires_at - GRACE_SECONDS
        return any(not good for at, good in self.writable if began <= at <= refusal.expires_at)

    def outages(self) -> list[float]:
        """How long Vault could not be written each time."""
        found: list[float] = []
        since: float | None = None
        for at, good in self.writable:
            if not good and since is None:
                since = at
            elif good and since is not None:
                found.append(at - since)
                since = None
        return found


class Trial:
    """The parts, and the threads that read, write and kill."""

    def __init__(self, directory: Path, cluster: Cluster, accounts: int) -> None:
        self.seen = Seen()
        self._ended = threading.Event()
        self._names = [f"svc-{number}" for number in range(accounts)]
        self.cluster = cluster
        self.stage = Stage(directory, lifetime=LIFETIME_SECONDS)
        self.cluster.send("POST", "secret/config", {"max_versions": 1000})
        self.daemon = self._daemon()
        self._threads = [threading.Thread(target=self._read, args=(node,)) for node in self.cluster.nodes]
        self._threads.append(threading.Thread(target=self._probe))

    def _daemon(self) -> DaemonProcess:
        """A daemon that knows all nodes of the cluster."""
        policy = 'path "secret/data/aca/*" { capabilities = ["create", "read", "update"] }'
        self.cluster.send("PUT", "sys/policies/acl/tokens", {"policy": policy})
        made = self.cluster.send("POST", "auth/token/create", {"policies": ["tokens"], "ttl": "1h"})
        self.stage.write_secret("vault-token", Secret(made["auth"]["client_token"]))
        config = self.stage.config(self._names, Settings(rotation=ROTATION, vault=VAULT, files=False))
        nodes = ", ".join(f'"{address}"' for address in self.cluster.addresses)
        config.write_text(config.read_text().replace(f'address = "{self.stage.bao.address}"', f"address = [{nodes}]"))
        return self.stage.daemon(config)

    def run(self, seconds: float, every: float) -> None:
        """Kills the leader every so many seconds, and brings it back each time."""
        self.daemon.wait_for("token_rotated", len(self._names))
        for thread in self._threads:
            thread.start()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                began = time.monotonic()
                leader = self.cluster.leader()
                leader.kill()
                self._ended.wait(DOWN_SECONDS)
                self.cluster.bring_back(leader)
                self._ended.wait(max(0.0, began + every - time.monotonic()))
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the daemon; the cluster stays."""
        self.stage.close()

    def ours(self) -> list[Refusal]:
        """The refusals that neither an outage of Vault nor a node behind the others explains."""
        behind = self.behind()
        return [it for it in self.seen.refusals if it not in behind and not self.seen.could_not_write(it)]

    def behind(self) -> list[Refusal]:
        """The refusals of a token in whose place Vault had another for longer: the node that was read did not yet."""
        written = {name: self._written(name) for name in self._names}
        return [
            it
            for it in self.seen.refusals
            if any(at < it.at and expires > it.at for at, expires in written[it.account])
        ]

    def _written(self, name: str) -> list[tuple[float, float]]:
        """When each version was written, and when its token expired."""
        return [
            (_epoch(it["metadata"]["created_time"]), _epoch(it["data"]["expires_at"])) for it in self._versions(name)
        ]

    def lost(self) -> list[str]:
        """The writes that the daemon was told are done and that Vault does not hold."""
        rotated = self.daemon.events("token_rotated")  # first: the daemon goes on while Vault is asked
        held = {name: {version["data"]["issued_at"] for version in self._versions(name)} for name in self._names}
        return [
            f"{event['token']} {event['issued_at']}"
            for event in rotated
            if event["sinks"] and event["issued_at"] not in held[event["token"]]
        ]

    def backwards(self) -> list[str]:
        """The tokens of which an earlier-issued one was written over a later."""
        issued = {name: [version["data"]["issued_at"] for version in self._versions(name)] for name in self._names}
        return [name for name, moments in issued.items() if moments != sorted(moments)]

    def _versions(self, name: str) -> list[dict[str, Any]]:
        """Each version of a secret so far, its fields with its metadata, the oldest first."""
        count = self.cluster.send("GET", f"secret/metadata/aca/{name}")["data"]["current_version"]
        path = f"secret/data/aca/{name}?version="
        return [self.cluster.send("GET", f"{path}{number}")["data"] for number in range(1, count + 1)]

    def _read(self, node: Node) -> None:
        """Reads each token through this node and uses it, as an application that knows no other node would."""
        api = httpx.Client(base_url=self.stage.lookalike.url, trust_env=False, timeout=10)
        headers = {"X-Vault-Token": self.cluster.root_token.reveal()}
        vault = httpx.Client(base_url=node.address, headers=headers, trust_env=False, timeout=10)
        with api, vault:
            while not self._ended.wait(0.05):
                for name in self._names:
                    self._use(node, name, vault, api)

    def _use(self, node: Node, name: str, vault: httpx.Client, api: httpx.Client) -> None:
        try:
            answer = vault.get(f"/v1/secret/data/aca/{name}")
        except httpx.HTTPError:
            self.seen.unavailable += 1
            return
        if not answer.is_success:
            self.seen.unavailable += 1
            return
        document = answer.json()["data"]["data"]
        called = api.get(API_PATH, headers={"Authorization": document["authorization"]})
        if called.status_code == httpx.codes.UNAUTHORIZED:
            expires = _epoch(document["expires_at"])
            self.seen.refusals.append(Refusal(node.name, name, time.time(), expires))
        else:
            self.seen.accepted[node.name] = self.seen.accepted.get(node.name, 0) + 1

    def _probe(self) -> None:
        """Writes through each node in turn until one does it, and notes whether one did."""
        headers = {"X-Vault-Token": self.cluster.root_token.reveal()}
        with httpx.Client(headers=headers, trust_env=False, timeout=2) as http:
            while not self._ended.wait(0.1):
                good = any(self._writes(http, node) for node in self.cluster.nodes)
                self.seen.writable.append((time.time(), good))

    @staticmethod
    def _writes(http: httpx.Client, node: Node) -> bool:
        try:
            return http.post(f"{node.address}/v1/secret/data/probe", json={"data": {"a": 1}}).is_success
        except httpx.HTTPError:
            return False


def _epoch(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--every", type=float, default=20.0)
    parser.add_argument("--accounts", type=int, default=5)
    parser.add_argument("--no-standby-reads", action="store_true", help="nodes that pass reads on too")
    parser.add_argument("--log", type=Path, help="where to keep the daemon's log")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        Cluster(Path(directory) / "cluster", disable_standby_reads=options.no_standby_reads) as cluster,
        Trial(Path(directory), cluster, options.accounts) as trial,
    ):
        trial.run(options.seconds, options.every)
        show(trial)
        if options.log:
            options.log.write_text(trial.daemon.text)


def show(trial: Trial) -> None:
    """What came of it."""
    seen, daemon, ours = trial.seen, trial.daemon, trial.ours()
    outages = ", ".join(f"{seconds:.1f}" for seconds in seen.outages())
    print(f"Vault could not be written for {outages} s")
    print(f"reads accepted by node: {seen.accepted}; Vault unavailable: {seen.unavailable}")
    print(
        f"refused: {len(seen.refusals)}, of these by a node that was behind: {len(trial.behind())}, ours: {len(ours)}"
    )
    for it in ours:
        print(f"  {it.account} through {it.node}, {it.at - it.expires_at:.2f} s after it expired")
    print(f"rotations: {len(daemon.events('token_rotated'))}, failed: {len(daemon.events('rotation_failed'))}")
    print(f"publishes failed: {len(daemon.events('publish_failed'))}, lost: {trial.lost()}, back: {trial.backwards()}")
    failures = [it for it in daemon.events() if it["event"] in {"rotation_failed", "publish_failed"}]
    for what, count in Counter(f"{it['event']} {it.get('step')} {it.get('reason')}" for it in failures).items():
        print(f"  {count} {what}")


if __name__ == "__main__":
    main()
