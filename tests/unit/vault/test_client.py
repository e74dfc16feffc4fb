"""Requests to the nodes of a Vault: which node is asked, how long and how much is read, what a redirect may do."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import EnvReference, TokenAuth, VaultConfig
from aca_tokend.core.errors import LookError, PublishError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.net.messages import Request
from aca_tokend.net.opening import Origin
from aca_tokend.vault.nodes import LARGEST_ANSWER, Nodes
from aca_tokend.vault.session import VaultSession
from tests.unit.scripted_server import Authority, ScriptedServer, response
from tests.unit.vault.stub import CAPABILITIES, DENIED, LOOKUP, answer, vault_stub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.scripted_server import Talk
    from tests.unit.vault.stub import Asked, VaultStub

CANARY = "canary-vault-token-71c3"
SECRET = "canary-secret-2f0a"
PATH = "/v1/secret/data/aca/bookings"
MOUNT = "/v1/sys/internal/ui/mounts/secret"
HELD = answer(200, {"data": {"data": {"password": SECRET}, "metadata": {"version": 3}}})
WRITTEN = answer(200, {"data": {"version": 4}})
SEALED = answer(503, {"errors": ["Vault is sealed"]})
LEADERLESS = answer(500, {"errors": ["local node not active but active cluster node not found"]})

# For tests in which the server never answers, and for those in which it must.
SHORT = 0.3
LONG = 30.0


@contextmanager
def session(*addresses: str, **config: Any) -> Iterator[VaultSession]:  # noqa: ANN401
    """A session with the nodes at these addresses."""
    settings = VaultConfig(
        address=addresses if len(addresses) > 1 else addresses[0],
        auth=TokenAuth(token=EnvReference(env="VAULT_TOKEN")),
        **{"timeout": LONG, "redirect_hosts": ("127.0.0.1",), **config},
    )
    made = VaultSession("main", settings, lambda _: Secret(CANARY), wall=time.time, on_login=lambda *_: None)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def nodes() -> Iterator[list[VaultStub]]:
    """Three nodes that hold a secret and can be written to."""
    with ExitStack() as stack:
        stubs = [stack.enter_context(vault_stub()) for _ in range(3)]
        for stub in stubs:
            stub.rules[PATH] = lambda asked: HELD if asked.method == "GET" else WRITTEN
        yield stubs


def addresses(nodes: list[VaultStub]) -> list[str]:
    return [node.address for node in nodes]


def counts(nodes: list[VaultStub], path: str = PATH) -> list[int]:
    """How many requests for a path each node was sent."""
    return [node.count(path) for node in nodes]


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def failure(vault: VaultSession) -> LookError:
    """How a read fails; nothing secret may be in anything that is shown of it."""
    with pytest.raises(LookError) as caught:
        vault.read_kv("secret", "aca/bookings")
    assert_hidden(caught.value)
    return caught.value


def assert_hidden(error: BaseException) -> None:
    shown = str(error) + repr(error) + "".join(traceback.format_exception(error))
    assert "canary" not in shown


def read(vault: VaultSession) -> int:
    return vault.read_kv("secret", "aca/bookings").version


def write(vault: VaultSession) -> int:
    return vault.write_kv("secret", "aca/bookings", {"password": SECRET}, 3).version


# Several nodes


def test_first_node_that_works_is_kept(nodes: list[VaultStub]) -> None:
    """Where nobody listens, or a node is sealed, the next one is asked in the same call, and from then on first."""
    nodes[0].rules[LOOKUP] = lambda _: SEALED
    with nobody() as gone, session(gone, *addresses(nodes)[:2]) as vault:
        assert [read(vault), read(vault), write(vault)] == [3, 3, 4]
    assert counts(nodes, LOOKUP) == [1, 1, 0]
    assert counts(nodes) == [0, 3, 0]


@pytest.mark.parametrize("reply", [SEALED, LEADERLESS])
def test_write_that_was_not_done_goes_to_the_next_node(nodes: list[VaultStub], reply: bytes) -> None:
    """A node that says it did nothing lets even a write go to the next one."""
    with session(*addresses(nodes)) as vault:
        read(vault)
        nodes[0].always(PATH, reply)
        assert write(vault) == 4
        assert read(vault) == 3
    assert counts(nodes) == [2, 2, 0]


def test_no_node_works(nodes: list[VaultStub]) -> None:
    """Where no node does it, each was asked once and each is named; that one is sealed counts more than silence."""
    nodes[0].rules[LOOKUP] = lambda _: SEALED
    with nobody() as gone, nobody() as lost, session(gone, nodes[0].address, lost) as vault:
        error = failure(vault)
    assert error.reason is Reason.VAULT_SEALED
    hosts = [it.partition("//")[2] for it in (gone, nodes[0].address, lost)]
    said = f"{hosts[0]}: no connection: connection refused; {hosts[1]}: Vault is sealed (HTTP 503); {hosts[2]}: no "
    assert said in str(error)
    assert counts(nodes, LOOKUP) == [1, 0, 0]


def test_late_failure_of_another_node_moves_nobody() -> None:
    """A request that ends long after others found a node that works does not send them to the node after its own."""
    first, second, third = (f"http://127.0.0.{number}" for number in (1, 2, 3))
    auth = TokenAuth(token=EnvReference(env="VAULT_TOKEN"))
    nodes = Nodes(VaultConfig(address=(first, second, third), auth=auth))
    nodes.fails(first)
    assert list(nodes.in_turn()) == [second, third, first]
    nodes.works(third)
    nodes.fails(first)
    assert list(nodes.in_turn()) == [third, first, second]


@pytest.mark.parametrize("reply", [None, answer(500, {"errors": [SECRET]}), answer(502)])
def test_write_that_may_have_been_done_fails(nodes: list[VaultStub], reply: bytes | None) -> None:
    """What may have been done is not sent to another node in the same call; the next call begins with that one."""
    with session(*addresses(nodes)) as vault:
        read(vault)
        nodes[0].always(PATH, reply)
        with pytest.raises(PublishError) as caught:
            write(vault)
        assert_hidden(caught.value)
        assert counts(nodes) == [2, 0, 0]
        assert write(vault) == 4
    assert counts(nodes) == [2, 1, 0]


def test_request_that_is_not_answered_is_not_sent_again(nodes: list[VaultStub]) -> None:
    """A node that took the request and is silent may have done it: no other node is asked in the same call."""
    with session(*addresses(nodes)) as vault:
        read(vault)
    over = threading.Event()
    nodes[0].rules[PATH] = lambda _: None if over.wait(LONG) else HELD
    try:
        with session(*addresses(nodes), timeout=SHORT) as vault:
            with pytest.raises(PublishError) as caught:
                write(vault)
            assert caught.value.reason is Reason.TIMEOUT
            assert counts(nodes) == [2, 0, 0]
            assert write(vault) == 4
    finally:
        over.set()
    assert counts(nodes) == [2, 1, 0]


def test_what_is_the_same_at_every_node_moves_nobody(nodes: list[VaultStub]) -> None:
    """A refusal that says nothing against the node leaves it the first to be asked."""
    nodes[0].always(PATH, answer(400, {"errors": [SECRET]}))
    with session(*addresses(nodes)) as vault:
        for _ in range(2):
            assert failure(vault).reason is Reason.REQUEST_REFUSED
    assert counts(nodes) == [2, 0, 0]


# Redirects


def redirect(target: str, path: str = PATH, status: int = 307) -> bytes:
    return answer(status, None, f"Location: {target}{path}")


@pytest.mark.parametrize("status", [307, 308])
def test_standby_that_redirects(nodes: list[VaultStub], status: int) -> None:
    """A standby that would have the active node asked is followed there once, with method, body and token."""
    nodes[0].always(PATH, redirect(nodes[1].address, status=status))
    with session(nodes[0].address) as vault:
        assert write(vault) == 4
    (asked,) = [asked for asked in nodes[1].asked if asked.path == PATH]
    assert (asked.method, asked.token, asked.body["options"]) == ("POST", CANARY, {"cas": 3})


@pytest.mark.parametrize(
    "location",
    [
        "http://vault.example.com/v1/secret/data/aca/bookings",
        "{other}/v1/secret/data/aca/else",
        "{other}/v1/secret/data/aca/bookings?x=1",
        "http://user@{host}/v1/secret/data/aca/bookings",
        "//{host}/v1/secret/data/aca/bookings",
        "/v1/secret/data/aca/bookings",
        "ftp://{host}/v1/secret/data/aca/bookings",
        "http://[/v1/secret/data/aca/bookings",
        "",
    ],
)
def test_redirect_that_is_not_followed(nodes: list[VaultStub], location: str) -> None:
    """To another path, unencrypted to another machine, or where it is no address, a redirect is refused."""
    other = nodes[1].address
    nodes[0].always(PATH, redirect(location.format(other=other, host=other.partition("//")[2]), ""))
    with session(nodes[0].address) as vault:
        error = failure(vault)
    assert error.reason is Reason.REDIRECTED
    assert nodes[1].asked == []


@pytest.mark.parametrize(
    ("allowed", "followed"),
    [
        ([], False),
        (["127.0.0.1"], True),
        (["localhost"], False),
        (["vault.example.com", "*.vault-internal"], False),
    ],
)
def test_where_a_redirect_may_lead(nodes: list[VaultStub], allowed: list[str], followed: bool) -> None:
    """The Vault token goes to nodes of `address` and to hosts of `redirect_hosts`, and to nobody else."""
    nodes[0].always(PATH, redirect(nodes[1].address))
    with session(nodes[0].address, redirect_hosts=allowed) as vault:
        if followed:
            assert read(vault) == 3
        else:
            assert failure(vault).reason is Reason.REDIRECTED
    assert len(nodes[1].asked) == followed
    with session(*addresses(nodes)[:2], redirect_hosts=[]) as vault:
        assert read(vault) == 3, "a node that the configuration names"


@pytest.mark.parametrize(
    ("location", "allowed"),
    [
        ("https://vault-0.vault-internal:8200", True),
        ("https://a.b.VAULT-internal", True),
        ("https://vault-internal", False),
        ("https://evil-vault-internal", False),
        ("https://evil.example\\.vault-internal", False),
        ("https://evil.example#.vault-internal", False),
        ("https://vault-0.vault-internal.evil.example", False),
        ("https://Active.example.com:8443", True),
        ("https://not-active.example.com", False),
        ("https://[::1]:8200", True),
        ("https://[::2]:8200", False),
        ("http://vault-0.vault-internal:8200", False),
    ],
)
def test_names_that_a_redirect_may_have(location: str, allowed: bool) -> None:
    """A name in `redirect_hosts` is one host on any port, with `*.` whatever ends in the rest of it."""
    auth = TokenAuth(token=EnvReference(env="VAULT_TOKEN"))
    hosts = ["*.Vault-internal", "active.example.com", "[::1]"]
    nodes = Nodes(VaultConfig(address="https://vault.example.com", auth=auth, redirect_hosts=hosts))  # type: ignore[arg-type]
    target = nodes._target(Origin.of("https://vault.example.com"), Request("GET", PATH, []), location + PATH)
    assert (target is not None) == allowed


def test_redirect_is_followed_once(nodes: list[VaultStub]) -> None:
    """A node that was redirected to and redirects again is not followed: they may go round in a circle."""
    for number in range(3):
        nodes[number].always(PATH, redirect(nodes[(number + 1) % 3].address))
    with session(nodes[0].address) as vault:
        assert failure(vault).reason is Reason.REDIRECTED
    assert counts(nodes) == [1, 1, 0]


def test_no_redirect_out_of_tls(tmp_path: Path) -> None:
    """From an encrypted address nothing leads to an unencrypted one, even on this machine."""
    authority = Authority(tmp_path)
    with vault_stub() as plain, vault_stub(authority.context("127.0.0.1")) as stub:
        stub.always(PATH, redirect(plain.address))
        with session(stub.address, ca_file=str(authority.ca_file)) as vault:
            assert failure(vault).reason is Reason.REDIRECTED
        assert plain.asked == []


def test_redirect_over_tls(tmp_path: Path) -> None:
    """The node redirected to must show a certificate of the same authority; under another the token is not sent."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "another authority")
    for theirs, reason in ((authority, None), (other, Reason.TLS_FAILED)):
        with vault_stub(theirs.context("127.0.0.1")) as active, vault_stub(authority.context("127.0.0.1")) as stub:
            active.always(PATH, HELD)
            stub.always(PATH, redirect(active.address))
            with session(stub.address, ca_file=str(authority.ca_file)) as vault:
                if reason is None:
                    assert read(vault) == 3
                else:
                    error = failure(vault)
                    assert error.reason is reason
                    assert "it redirects to the active node: TLS failed" in str(error)
                    assert active.asked == []


def test_active_node_is_gone(nodes: list[VaultStub]) -> None:
    """After a leader died its standbys redirect to it for a while: that fails, and the next call asks another node."""
    with nobody() as gone, session(*addresses(nodes)) as vault:
        read(vault)
        nodes[0].always(PATH, redirect(gone))
        with pytest.raises(PublishError) as caught:
            write(vault)
        assert caught.value.reason is Reason.CONNECT_FAILED
        assert "it redirects to the active node: no connection" in str(caught.value)
        assert write(vault) == 4


# Standbys that are behind


def test_standby_that_is_behind_passes_on(nodes: list[VaultStub]) -> None:
    """A request tells how far our last write had come, and where the standby is behind, it has it passed on."""
    behind = response(429, b'{"errors":[]}\n', ("Retry-After: 1",))
    asked: list[dict[str, str]] = []

    def standby(it: Asked) -> bytes:
        if it.method != "GET":
            return answer(200, {"data": {"version": 4}}, "X-Vault-Index: canary-index")
        asked.append(it.headers)
        return HELD if "x-vault-index" not in it.headers or "x-vault-inconsistent" in it.headers else behind

    nodes[0].rules[PATH] = standby
    with session(nodes[0].address) as vault:
        read(vault)
        write(vault)
        assert read(vault) == 3
        assert read(vault) == 3
    indices = [(it.get("x-vault-index"), it.get("x-vault-inconsistent")) for it in asked]
    assert indices == [
        (None, None),
        ("canary-index", None),
        ("canary-index", "forward-active-node"),
        ("canary-index", None),
        ("canary-index", "forward-active-node"),
    ]


@pytest.mark.parametrize("behind", [response(429, b'{"errors":[]}\n', ("Retry-After: 1",)), answer(412)])
def test_standby_that_never_catches_up(nodes: list[VaultStub], behind: bytes) -> None:
    """Where a standby neither catches up nor passes on, one request fails; the next does without."""

    def standby(it: Asked) -> bytes:
        if it.method != "GET":
            return answer(200, {"data": {"version": 4}}, "X-Vault-Index: canary-index")
        return behind if "x-vault-index" in it.headers else HELD

    nodes[0].rules[PATH] = standby
    with session(nodes[0].address) as vault:
        write(vault)
        failure(vault)
        assert read(vault) == 3


def test_index_that_the_next_vault_cannot_read(nodes: list[VaultStub]) -> None:
    """Where another cluster answers now, in words of its own for how far it had come, the former is forgotten."""
    refused = answer(400, {"errors": ['failed to decode "X-Vault-Index"']})
    nodes[0].rules[PATH] = lambda it: (
        answer(200, {"data": {"version": 4}}, "X-Vault-Index: of-the-former")
        if it.method != "GET"
        else refused
        if "x-vault-index" in it.headers
        else HELD
    )
    with session(nodes[0].address) as vault:
        write(vault)
        assert [read(vault), read(vault)] == [3, 3]
    assert ["x-vault-index" in it.headers for it in nodes[0].asked if it.method == "GET" and it.path == PATH] == [
        True, False, False,
    ]  # fmt: skip


def test_how_far_a_write_had_come_is_told_by_writes_of_secrets(nodes: list[VaultStub]) -> None:
    """What Vault says of itself (`sys/`) may tell how far something else had come: that is not passed on."""
    asked: list[dict[str, str]] = []

    def secret(it: Asked) -> bytes:
        asked.append(it.headers)
        return answer(200, {"data": {"version": 4}}, "X-Vault-Index: of-the-secret") if it.method != "GET" else HELD

    nodes[0].rules[PATH] = secret
    nodes[0].always(CAPABILITIES, answer(200, {"data": {"secret/data/aca": ["read"]}}, "X-Vault-Index: of-the-system"))
    with session(nodes[0].address) as vault:
        write(vault)
        vault.capabilities(["secret/data/aca"])
        read(vault)
    assert asked[-1]["x-vault-index"] == "of-the-secret"


@pytest.mark.parametrize("index", ["a b", "\xe9", "x" * 5000, "\x01", ""])
def test_index_that_cannot_be_sent(nodes: list[VaultStub], index: str) -> None:
    """An odd `X-Vault-Index` is not taken: the next request goes without it."""
    odd = f"HTTP/1.1 200 OK\r\nX-Vault-Index: {index}\r\nContent-Length: 27\r\n\r\n".encode("latin-1")
    nodes[0].rules[PATH] = lambda it: HELD if it.method == "GET" else odd + b'{"data": {"version": 4}}   '
    with session(nodes[0].address) as vault:
        assert [write(vault), read(vault)] == [4, 3]
    assert not any("x-vault-index" in asked.headers for asked in nodes[0].asked)


# How long, and how much


def test_answer_that_is_too_large(nodes: list[VaultStub]) -> None:
    """An answer larger than any secret is left where it is, with a name of its own, and the next call works."""
    huge = response(200, b'{"data": "' + SECRET.encode() + b" " * LARGEST_ANSWER + b'"}')
    with session(nodes[0].address) as vault:
        read(vault)
        nodes[0].always(PATH, huge)
        error = failure(vault)
        assert error.reason is Reason.RESPONSE_TOO_LARGE
        nodes[0].always(PATH, HELD)
        assert read(vault) == 3


@pytest.mark.parametrize("value", ["{}", "[]", '{"a":0}', "0"])
def test_answer_that_would_take_much_memory(nodes: list[VaultStub], value: str) -> None:
    """Of an answer within the bound that is all small values, each many times its size in memory, none is made."""
    body = '{"data": {"data": {"x": [%s]}, "metadata": {"version": 3}}}'
    nodes[0].always(PATH, response(200, (body % ",".join([value] * (1_000_000 // (len(value) + 1)))).encode()))
    with session(nodes[0].address) as vault:
        assert failure(vault).reason is Reason.NOT_JSON


def test_largest_secret(nodes: list[VaultStub]) -> None:
    """A secret of a megabyte is read."""
    large = {"password": SECRET * (1_000_000 // len(SECRET))}
    nodes[0].always(PATH, answer(200, {"data": {"data": large, "metadata": {"version": 3}}}))
    with session(nodes[0].address) as vault:
        assert read(vault) == 3


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_vault_that_drips(head: bytes) -> None:
    """A Vault that says a byte now and then costs the timeout, wherever in its answer it begins to."""

    def drips(talk: Talk) -> None:
        talk.read_request()
        talk.send(head)
        talk.drip(b"x")

    with ScriptedServer(drips) as server, session(server.url, timeout=SHORT) as vault:
        assert failure(vault).reason is Reason.TIMEOUT


def test_connections_are_kept() -> None:
    """All requests of a thread go over one connection, also after an answer that took nearly all its time."""

    def talk(it: Talk) -> None:
        while (request := it.read_request()) is not None:
            path = request.split(b" ")[1].decode()
            if path == LOOKUP:
                it.send(answer(200, {"data": {"ttl": 0}}))
            else:
                for position in range(0, len(HELD), 50):
                    it.send(HELD[position : position + 50])
                    it.server.stopping.wait(0.01)

    with ScriptedServer(talk) as server, session(server.url) as vault:
        for _ in range(20):
            assert read(vault) == 3
        assert server.connections == 1


# What is denied, and what is mounted


def test_denied_says_what_is_missing(nodes: list[VaultStub]) -> None:
    """A 403 costs one more request, which tells the capability that is missing; nothing is sent a second time."""
    nodes[0].always(PATH, answer(403, DENIED))
    nodes[0].may("read", "create")
    with session(nodes[0].address) as vault:
        with pytest.raises(PublishError) as caught:
            write(vault)
        assert str(caught.value) == 'vault main: secret/data/aca/bookings: permission denied; the policy lacks "update"'
        assert_hidden(caught.value)
        assert str(failure(vault)).endswith('permission denied, though the policy has "read"')
    assert nodes[0].count(CAPABILITIES) == 2
    assert counts(nodes) == [2, 0, 0]


def test_mount_is_asked_about_once(nodes: list[VaultStub]) -> None:
    """What is mounted is asked where nothing is found, until it is known; where something is found, never."""
    nodes[0].always(MOUNT, answer(200, {"data": {"type": "kv", "path": "secret/", "options": {"version": "2"}}}))
    nodes[0].always(PATH, answer(404, {"errors": []}))
    with session(nodes[0].address) as vault:
        assert [read(vault), read(vault)] == [0, 0]
    assert nodes[0].count(MOUNT) == 1
    with session(nodes[1].address) as vault:
        assert read(vault) == 3
    assert nodes[1].count(MOUNT) == 0


def test_mount_that_becomes_version_2(nodes: list[VaultStub]) -> None:
    """A mount that is made version 2, rather than the configuration changed, is taken as that without a restart."""
    version_1 = {"data": {"type": "kv", "path": "secret/", "options": {"version": "1"}}}
    nodes[0].always(MOUNT, answer(200, version_1))
    nodes[0].always(PATH, answer(404, {"errors": []}))
    with session(nodes[0].address) as vault:
        assert failure(vault).reason is Reason.MOUNT_MISSING
        version_1["data"]["options"] = {"version": "2"}
        nodes[0].always(MOUNT, answer(200, version_1))
        assert read(vault) == 0


OF_ANOTHER = answer(200, {"data": {"type": "kv", "path": "secret/deeper/", "options": {"version": "1"}}})


@pytest.mark.parametrize(
    "reply", [answer(403, DENIED), answer(404, {"errors": []}), answer(200, {"data": {}}), OF_ANOTHER]
)
def test_mount_that_cannot_be_known(nodes: list[VaultStub], reply: bytes) -> None:
    """Where Vault does not say what is mounted, or tells of another mount, the look goes on without."""
    nodes[0].always(MOUNT, reply)
    nodes[0].always(PATH, answer(404, {"errors": []}))
    with session(nodes[0].address) as vault:
        assert read(vault) == 0


# TLS


def test_client_certificate(tmp_path: Path) -> None:
    """Where the server demands a client certificate it is shown one; without, the error names the keys to set."""
    authority = Authority(tmp_path)
    context = authority.context("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_file)
    pair = min(tmp_path.glob("server-*.pem"))
    with vault_stub(context) as stub:
        stub.always(PATH, HELD)
        with session(stub.address, ca_file=str(authority.ca_file), tls_cert=str(pair), tls_key=str(pair)) as vault:
            assert read(vault) == 3
        with session(stub.address, ca_file=str(authority.ca_file)) as vault:
            error = failure(vault)
        assert error.reason is Reason.TLS_FAILED
        assert "demands a client certificate" in str(error)
        with session(stub.address, tls_cert=f"{tmp_path}/absent", tls_key=f"{tmp_path}/absent") as vault:
            assert failure(vault).reason is Reason.TLS_FAILED
