"""Requests to servers that answer oddly: each is over in time, bounded, and never mistaken for another answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import traceback
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.errors import TransportError
from aca_tokend.core.outcome import Reason
from aca_tokend.net.messages import Request
from aca_tokend.net.opening import Opener, Origin
from aca_tokend.net.streams import Deadline
from aca_tokend.net.transport import Transport
from aca_tokend.net.trust import Trust
from tests.unit.scripted_server import Authority, ScriptedServer, Talk, answers, response, tunnels_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aca_tokend.net.messages import Response
    from tests.unit.scripted_server import Script

CANARY = "canary-2b7d"
LARGEST = 10_000
SHORT = 0.3
LONG = 30.0
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WELL = response(200, b"well")


@contextlib.contextmanager
def reaching(server: ScriptedServer, trust: Trust | None = None, proxy: str = "", kept: int = 4) -> Iterator[Transport]:
    origin = Origin.of(server.url)
    transport = Transport(Opener(trust or Trust(""), proxy), origin, kept)
    try:
        yield transport
    finally:
        transport.close()


def send(transport: Transport, seconds: float = LONG, body: bytes = CANARY.encode()) -> Response:
    headers = [("Host", "x"), ("Content-Length", str(len(body))), ("Authorization", CANARY)]
    return transport.send(Request("POST", "/", headers, body), LARGEST, Deadline.after(seconds))


def failed(transport: Transport, seconds: float = LONG) -> Reason:
    """Why there is no answer. Nothing of the request or of an answer is shown."""
    with pytest.raises(TransportError) as caught:
        send(transport, seconds).check_whole()
    assert caught.value.sent
    shown = str(caught.value) + repr(caught.value) + "".join(traceback.format_exception(caught.value))
    assert "canary" not in shown
    return caught.value.reason


def short(data: object) -> str | None:
    """The name of a case."""
    return repr(data[:50]) if isinstance(data, bytes) else None


def chunks(*sizes: bytes) -> bytes:
    return CHUNKED + b"".join(size + b"\r\n" + CANARY.encode() + b"\r\n" for size in sizes)


# What is no answer


@pytest.mark.parametrize(
    "odd",
    [
        b"canary\r\n\r\n",
        b"HTTP/1.1 canary\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 -20 OK\r\n\r\n",
        b"HTTP/9 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: canary\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncanary\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncan ary: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: canary\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \0canary\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: canary\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\ncanary",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 6\r\n\r\ncanary",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4, 6\r\n\r\ncanary",
        b"HTTP/1.1 200 OK\r\nContent-Length: -6\r\n\r\ncanary",
        b"HTTP/1.1 200 OK\r\nContent-Length: +6\r\n\r\ncanary",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x6\r\n\r\ncanary",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6 6\r\n\r\ncanary",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\ncanary",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n6\r\ncanary\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\ncanary",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\ncanary",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"canary. " * 10_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: canary\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000 + WELL,
        chunks(b"-1"),
        chunks(b"-5"),
        chunks(b"+b"),
        chunks(b"0xb"),
        chunks(b" b"),
        chunks(b"b b"),
        chunks(b"canary"),
        chunks(b"b", b""),
        chunks(b"a"),
        chunks(b"c"),
        chunks(b"f" * 21),
        chunks(b"b;" + b"canary" * 20_000),
        chunks(b"b") + b"0\r\ncanary\r\n\r\n",
        chunks(b"b") + b"0\r\nX: " + b"canary" * 20_000 + b"\r\n\r\n",
        CHUNKED + (b"1;" + b"canary" * 1000 + b"\r\nx\r\n") * 100,
        CHUNKED + b"1;canary\r\nx\r\n" * 9000 + b"0\r\n\r\n",
        chunks(b"b"),
        CHUNKED,
        b"",
    ],
    ids=short,
)
def test_what_is_no_answer_is_a_lost_connection(odd: bytes) -> None:
    """Whatever is not HTTP, is framed in two ways, or ends early is a lost connection, and the next request is well."""
    # without the rest that would make the last of it whole
    with ScriptedServer(answers(odd, WELL, keep_open=False)) as server, reaching(server) as transport:
        assert failed(transport) is Reason.CONNECTION_LOST
        assert send(transport).body == b"well"
    assert len(server.requests) == 2, "nothing is sent twice"


@pytest.mark.parametrize(
    "huge",
    [
        response(200, b"canary" * 10_000),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"canary" * 10_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n" + b"canary" * 10_000,
        CHUNKED + b"fffffffffffffffff\r\n" + b"canary" * 10_000,
        CHUNKED + b"7\r\ncanary.\r\n" * 10_000,
    ],
    ids=short,
)
def test_what_is_too_large_is_cut(huge: bytes) -> None:
    """Of a body without end one byte more than asked for is kept; its status counts, and its connection is closed."""
    with ScriptedServer(answers(huge, huge, WELL)) as server, reaching(server) as transport:
        answer = send(transport)
        assert (answer.status, len(answer.body)) == (200, LARGEST + 1)
        assert failed(transport) is Reason.RESPONSE_TOO_LARGE
        assert send(transport).body == b"well"
    assert server.connections == 3


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (WELL, b"well"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + WELL, b"well"),
        (CHUNKED + b"2;a=b\r\nwe\r\n02\r\nll\r\n0\r\nX: y\r\n\r\n", b"well"),
        (b"HTTP/1.1 200\r\ncontent-length: 4\r\nContent-Length: 4\r\n\r\nwell", b"well"),
        (b"HTTP/1.1 200 OK\r\n\r\nwell", b"well"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nwell", b"well"),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", b""),
        (response(200, b"x" * LARGEST), b"x" * LARGEST),
    ],
    ids=short,
)
def test_answers_of_every_kind(answer: bytes, body: bytes) -> None:
    """What HTTP allows is read: lengths, chunks, an end as the end, interim answers before it."""
    with ScriptedServer(answers(answer, keep_open=False)) as server, reaching(server) as transport:
        found = send(transport)
        found.check_whole()
        assert found.body == body


def test_the_first_of_several_headers_counts() -> None:
    """Headers are known by their names in lower case."""
    with ScriptedServer(answers(response(200, b"", ("X-A: 1", "x-a: 2")))) as server, reaching(server) as transport:
        assert send(transport).headers["x-a"] == "1"


# Time


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n",
        CHUNKED,
        CHUNKED + b"1;",
        CHUNKED + b"0\r\nX: ",
    ],
    ids=short,
)
def test_a_server_that_drips_costs_the_time_of_the_request(before: bytes) -> None:
    """Wherever in its answer a server begins to say a byte now and then, the request is over in time."""

    def script(talk: Talk) -> None:
        talk.read_request()
        talk.send(before)
        talk.drip(b"1")

    with ScriptedServer(script) as server, reaching(server) as transport:
        assert failed(transport, SHORT) is Reason.TIMEOUT


def test_a_server_that_does_not_read_costs_the_time_of_the_request() -> None:
    """A body that nobody takes is given up in time."""
    with ScriptedServer(Talk.hang) as server, reaching(server) as transport, pytest.raises(TransportError) as caught:
        send(transport, SHORT, bytes(32 * 1024 * 1024))
    assert (caught.value.reason, caught.value.sent) == (Reason.TIMEOUT, True)


# What is not sent


@pytest.mark.parametrize("header", [("X", "canary\r\nY: z"), ("can ary", "x"), ("X", "canär€"), ("X", "canary\0")])
def test_a_request_that_cannot_be_made_is_not_sent(header: tuple[str, str]) -> None:
    """A header that would be two, or none, is refused and not shown; the connection is not used again."""
    with ScriptedServer(answers(WELL, WELL)) as server, reaching(server) as transport:
        send(transport)
        with pytest.raises(TransportError) as caught:
            transport.send(Request("GET", "/", [("Host", "x"), header]), LARGEST, Deadline.after(LONG))
        assert (caught.value.reason, caught.value.sent) == (Reason.REQUEST_REFUSED, False)
        assert "canary" not in "".join(traceback.format_exception(caught.value))
        send(transport)
    assert (len(server.requests), server.connections) == (2, 2)


# Connections that are kept


def test_connections_are_kept() -> None:
    """One request after another goes over one connection."""
    with ScriptedServer(answers(*[WELL] * 5)) as server, reaching(server) as transport:
        assert [send(transport).body for _ in range(5)] == [b"well"] * 5
    assert server.connections == 1


@pytest.mark.parametrize(
    "left",
    [
        WELL + b"x",
        WELL + response(200, b"another"),
        WELL + b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 204 Nothing\r\nContent-Length: 2\r\n\r\nxx",
        response(200, b"well", ("Connection: close",)),
        b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nwell",
    ],
    ids=short,
)
def test_nothing_is_left_over_for_the_next_request(left: bytes) -> None:
    """A connection on which more came than the answer, or that is to be closed, does not serve again."""
    with ScriptedServer(answers(left, WELL)) as server, reaching(server) as transport:
        send(transport)
        assert send(transport).body == b"well"
    assert server.connections == 2


@pytest.mark.parametrize("tls", [False, True])
def test_an_idle_connection_that_says_something_is_not_used(tls: bool, tmp_path: Path) -> None:
    """An answer that comes unasked, in whatever time, is taken for no request: it would be another account's token."""
    authority = Authority(tmp_path)
    read, said = threading.Event(), threading.Event()

    def script(talk: Talk) -> None:
        talk.read_request()
        talk.send(WELL)
        if talk.server.connections == 1:
            read.wait(LONG)
            talk.send(response(200, b"of another"))
            said.set()
            talk.connection.recv(1)

    with (
        ScriptedServer(script, authority.context("127.0.0.1") if tls else None) as server,
        reaching(server, Trust(str(authority.ca_file))) as transport,
    ):
        assert send(transport).body == b"well"
        read.set()
        assert said.wait(LONG)
        assert send(transport).body == b"well"
    assert server.connections == 2


def test_an_idle_connection_that_was_closed_is_not_used() -> None:
    """A connection that the server closed meanwhile costs no failure."""
    with ScriptedServer(answers(WELL, WELL, keep_open=False)) as server, reaching(server) as transport:
        send(transport)
        server.wait_until_closed(1)
        assert send(transport).body == b"well"
    assert server.connections == 2


def test_closing_leaves_no_connection() -> None:
    """What is idle is closed at once, and what is under way when it is done; the next request opens another."""
    with ScriptedServer(answers(WELL, WELL)) as server, reaching(server) as transport:
        send(transport)
        transport.close()
        server.wait_until_closed(1)
        send(transport)
    assert server.connections == 2


def test_no_more_connections_are_kept_than_asked_for() -> None:
    """A connection beyond those that may wait is closed once its answer was read."""
    with ScriptedServer(answers(WELL, WELL)) as server, reaching(server, kept=0) as transport:
        send(transport)
        send(transport)
    assert server.connections == 2


# Proxies


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 407 canary\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 canary\r\n\r\ncanary",
        b"canary\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"canary" * 20_000,
        b"",
    ],
    ids=short,
)
def test_a_proxy_that_does_not_connect_us(refusal: bytes, tmp_path: Path) -> None:
    """A proxy that refuses, is none, or says more than it should is told as such; the server saw nothing."""
    with (
        ScriptedServer(answers(WELL), Authority(tmp_path).context("127.0.0.1")) as server,
        ScriptedServer(answers(refusal, keep_open=False)) as proxy,
        reaching(server, proxy=proxy.url) as transport,
        pytest.raises(TransportError) as caught,
    ):
        send(transport)
    assert (caught.value.reason, caught.value.sent) == (Reason.PROXY_FAILED, False)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_tls_in_tls(tmp_path: Path) -> None:
    """Through an encrypted proxy an answer of any size is read, and the connection kept."""
    authority = Authority(tmp_path)
    tls = authority.context("127.0.0.1")
    with (
        ScriptedServer(answers(response(200, b"x" * LARGEST), WELL), tls) as server,
        ScriptedServer(tunnels_to(server.address), tls) as proxy,
        reaching(server, Trust(str(authority.ca_file)), proxy.url) as transport,
    ):
        assert len(send(transport).body) == LARGEST
        assert send(transport).body == b"well"
    assert (server.connections, proxy.connections) == (1, 1)


def reset(talk: Talk) -> None:
    talk.read_request()
    talk.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def refused_early(talk: Talk) -> None:
    talk.connection.recv(1)
    talk.send(response(413, b"", ("Connection: close",)))


@pytest.mark.parametrize("script", [reset, lambda _: None])
def test_a_request_is_never_sent_again(script: Script) -> None:
    """A connection that is reset or closed costs one request, and the next one opens another."""
    with ScriptedServer(script) as server, reaching(server) as transport:
        for number in (1, 2, 3):
            assert failed(transport) is Reason.CONNECTION_LOST
            assert server.connections == number


def test_an_answer_to_what_was_not_read_counts() -> None:
    """A server that refuses before it took the whole body, and hangs up, has answered."""
    with ScriptedServer(refused_early) as server, reaching(server) as transport:
        assert send(transport, body=bytes(1000)).status == 413
