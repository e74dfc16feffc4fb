"""Three OpenBao nodes as one Vault: leaders that die, nodes that are sealed, standbys that pass on or are behind."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.config import EnvReference, TokenAuth, VaultConfig, VaultPublish
from aca_tokend.core.errors import LookError, PublishError
from aca_tokend.core.outcome import Reason
from aca_tokend.demo.child import wait_until
from aca_tokend.sinks import KvSink
from aca_tokend.vault.session import VaultSession
from tests.bench.vault_cluster import Trial, show
from tests.cluster import Cluster
from tests.unit.file_writer import document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aca_tokend.core.token import Document, Seen
    from tests.cluster import Node

pytestmark = pytest.mark.xdist_group("vault-cluster")
OUTAGE = {Reason.CONNECT_FAILED, Reason.CONNECTION_LOST, Reason.UNAVAILABLE, Reason.TIMEOUT, Reason.SERVER_ERROR}
# a look through a standby that is behind what a write without an answer did
OUTAGE |= {Reason.CONFLICT}


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests here."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """It, once it got over what the test before did to it."""
    shared_cluster.settle()
    return shared_cluster


@contextmanager
def sink(cluster: Cluster, path: str, *addresses: str, timeout: float = 10.0) -> Iterator[KvSink]:
    """A sink that knows these nodes, or all in their order."""
    auth = TokenAuth(token=EnvReference(env="VAULT_TOKEN"))
    config = VaultConfig(
        address=addresses or cluster.addresses, redirect_hosts=("127.0.0.1",), auth=auth, timeout=timeout
    )
    session = VaultSession("main", config, lambda _: cluster.root_token, wall=time.time, on_login=lambda *_: None)
    try:
        yield KvSink(VaultPublish(mount="secret", path=path), session)
    finally:
        session.close()


def versions(cluster: Cluster, path: str) -> int:
    """How many versions were ever written of a secret."""
    count: int = cluster.send("GET", f"secret/metadata/{path}")["data"]["current_version"]
    return count


def published(kv: KvSink, new: Document) -> Seen:
    """Publishes as a rotation does: looks first, and again for as long as it fails."""
    done: list[Seen] = []

    def attempt() -> bool:
        try:
            seen = kv.look()
            done.append(seen if seen.document == new else kv.publish(new, seen))
        except (LookError, PublishError) as error:
            failures.append(error)
        return bool(done)

    failures: list[LookError | PublishError] = []
    wait_until(attempt, "a publish")
    assert "canary" not in "".join(map(str, failures))
    assert {it.reason for it in failures} <= OUTAGE
    return done[-1]


def test_leader_dies_between_look_and_publish(cluster: Cluster) -> None:
    """A leader that dies costs a few attempts and nothing else: each token is written once, over the one before."""
    leader = cluster.leader()
    first = (leader.address, *(node.address for node in cluster.standbys()))
    with sink(cluster, "aca/leader", *first) as kv:
        kv.publish(document(1), kv.look())
        leader.kill()
        assert published(kv, document(2)).document == document(2)
        assert kv.look().document == document(2)
        cluster.bring_back(leader)
        kv.publish(document(3), kv.look())
    assert versions(cluster, "aca/leader") == 3


def test_leader_hangs(cluster: Cluster) -> None:
    """A leader that takes requests and is silent costs one timeout; the next attempt goes to another node."""
    leader = cluster.leader()
    first = (leader.address, *(node.address for node in cluster.standbys()))
    with sink(cluster, "aca/hang", *first, timeout=1.0) as kv:
        seen = kv.publish(document(1), kv.look())
        os.kill(leader.pid, signal.SIGSTOP)
        try:
            with pytest.raises(PublishError) as caught:
                kv.publish(document(2), seen)
            assert caught.value.reason is Reason.TIMEOUT
        finally:
            os.kill(leader.pid, signal.SIGCONT)
        assert published(kv, document(2)).document == document(2)


def test_sealed_node(cluster: Cluster) -> None:
    """A node that is sealed is passed over in the same call."""
    node = cluster.standbys()[0]
    rest = [other.address for other in cluster.nodes if other is not node]
    with sink(cluster, "aca/sealed", node.address, *rest) as kv:
        seen = kv.publish(document(1), kv.look())
        node.http.put("sys/seal").raise_for_status()
        try:
            seen = kv.publish(document(2), seen)
            assert kv.look() == seen
        finally:
            cluster.unseal(node)


def test_standby_passes_on(cluster: Cluster) -> None:
    """Through a standby alone everything works: it has the active node write."""
    standby = cluster.standbys()[0]
    with sink(cluster, "aca/standby", standby.address) as kv:
        seen = kv.look()
        for number in range(20):
            seen = kv.publish(document(number), seen)
            assert kv.look() == seen
    assert versions(cluster, "aca/standby") == 20


def test_standby_that_is_behind(cluster: Cluster) -> None:
    """What we wrote is what we read next through a standby, however far behind it is; bare reads there are older."""
    standby = cluster.standbys()[0]
    behind = 0
    with sink(cluster, "aca/behind", standby.address) as kv:
        seen = kv.look()
        for number in range(100):
            seen = kv.publish(document(number), seen)
            bare = standby.http.get("secret/data/aca/behind")
            behind += bare.status_code == 404 or bare.json()["data"]["metadata"]["version"] < number + 1
            assert kv.look() == seen
    # how often depends on the machine; that it happens at all is why the index is sent
    print(f"{behind} of 100 bare reads were behind")


def test_standby_redirects(cluster: Cluster) -> None:
    """A standby that must not pass on redirects to the active node, which is followed to the end."""
    with no_forwarding(cluster.standbys()[0]) as relay, sink(cluster, "aca/redirected", relay.address) as kv:
        seen = kv.publish(document(1), kv.look())
        assert kv.publish(document(2), seen).document == document(2)
        assert relay.redirects == 3  # one of them wrote the metadata
    assert versions(cluster, "aca/redirected") == 2


class Relay(ThreadingHTTPServer):
    """Stands before a node and adds the header that forbids it to pass requests on."""

    daemon_threads = True

    def __init__(self, node: Node) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.node = node
        self.redirects = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Relay

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", self.server.node.port, timeout=30)
        headers = {**self.headers, "X-Vault-No-Request-Forwarding": "1"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.server.redirects += answer.status == 307
        self.send_response(answer.status)
        for name in ("Content-Type", "Location", "X-Vault-Index"):
            if (value := answer.getheader(name)) is not None:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _relay  # noqa: N815  # as http.server wants them

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def no_forwarding(node: Node) -> Iterator[Relay]:
    with Relay(node) as relay:
        thread = threading.Thread(target=relay.serve_forever)
        thread.start()
        try:
            yield relay
        finally:
            relay.shutdown()
            thread.join()


def test_leaders_die_under_a_daemon(cluster: Cluster, tmp_path: Path) -> None:
    """While leaders die no reader is refused for reasons of ours, no write is lost, and nothing goes backwards."""
    with Trial(tmp_path, cluster, accounts=3) as trial:
        trial.run(seconds=11.0, every=10.0)
        show(trial)
        assert set(trial.seen.accepted) == {node.name for node in trial.cluster.nodes}
        assert trial.ours() == []
        assert trial.lost() == []
        assert trial.backwards() == []
        assert trial.daemon.running
        assert cluster.root_token.reveal() not in trial.daemon.text
