"""The listener below the pages: what slow, silent, greedy and malformed clients can do, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import resource
import socket
import ssl
import struct
import threading
import tracemalloc
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest

from aca_tokend import log
from aca_tokend.demo.stage import wait_until
from aca_tokend.listener import MAX_CLIENTS, MAX_HELD_BYTES, PAGES_AT_ONCE, Listener
from tests.certificates import make
from tests.fakes import log_bug

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIEnvironment

LIMIT = 60.0  # seconds that nothing here should come near
CROWD = 500
CANARY = "canary-8f14e45f"
BIG = 4 * 2**20


@dataclass
class Pages:
    """An application: `/big` has a large page, `/hold` one that takes until it is released."""

    requests: list[dict[str, object]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    holding: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.requests.append(environ)
        body = b"well\n"
        match environ["PATH_INFO"]:
            case "/big":
                body = b"x" * BIG
            case "/hold":
                self.holding.release()
                self.released.wait(LIMIT)
            case "/bug":
                raise RuntimeError(CANARY)
            case "/split":
                start_response("200 OK", [("X-Split", "a\r\nX-Other: b")])
                return [body]
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [body]


@contextlib.contextmanager
def serving(pages: Pages | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Listener]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener = Listener(listening, pages or Pages(), urgent=b"/-/", tls=tls, on_error=log_bug)
    listener.start()
    try:
        yield listener
    finally:
        if pages:
            pages.released.set()
        listener.stop()


def connect(listener: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), timeout=LIMIT)


def ask(listener: Listener, path: str, method: str = "GET") -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", listener.port, timeout=LIMIT)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


def send(listener: Listener, text: bytes) -> bytes:
    """Sends bytes as they are and returns all that comes back."""
    answer = b""
    with connect(listener) as client:
        with contextlib.suppress(ConnectionError):  # it was refused before all of it was sent: the answer says why
            client.sendall(text)
        with contextlib.suppress(ConnectionError):
            while chunk := client.recv(65536):
                answer += chunk
    return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


# ── crowds ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Room for a crowd and for the listener in one process, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def crowd(listener: Listener, say: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, each of which says this and nothing more."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(CROWD):
            client = stack.enter_context(connect(listener))
            with contextlib.suppress(ConnectionError):  # it has given way already
                client.sendall(say)
            clients.append(client)
        yield clients


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize(
    "say", [b"", b"GET /-/healthy HTT", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["silent", "half", "deaf"]
)
def test_crowd(say: bytes) -> None:
    """Of 500 clients that say nothing, half of a request, or do not take their answer, few stay, and probes go on."""
    with serving() as listener, crowd(listener, say) as clients:
        assert ask(listener, "/-/healthy") == (200, b"well\n")
        wait_until(lambda: len(listener._clients) <= MAX_CLIENTS, "no more connections than places")
        wait_until(lambda: sum(map(is_closed, clients)) >= CROWD - MAX_CLIENTS, "those without a place are let go")
        assert ask(listener, "/-/healthy") == (200, b"well\n")


def is_closed(client: socket.socket) -> bool:
    """Whether the other side has ended this connection, after whatever it sent."""
    client.setblocking(False)
    try:
        while client.recv(65536):
            return False
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.usefixtures("descriptors")
def test_crowd_that_drips() -> None:
    """500 clients that send their requests byte by byte delay no probe, however long they go on."""
    with serving() as listener, crowd(listener, b"GET / HTTP/1.1\r\nX: ") as clients:
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.01):
                for client in clients:
                    with contextlib.suppress(OSError):
                        client.send(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            answers = [ask(listener, "/-/healthy") for _ in range(20)]
        finally:
            ended.set()
            thread.join()

    assert answers == [(200, b"well\n")] * 20


@pytest.mark.usefixtures("descriptors")
def test_answers_that_nobody_takes_hold_little_memory() -> None:
    """Clients that ask for large pages and do not take them are let go before their answers fill the memory."""
    with serving() as listener, contextlib.ExitStack() as stack:
        for _ in range(MAX_HELD_BYTES // BIG + 8):
            stack.enter_context(connect(listener)).sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            assert held(listener) <= MAX_HELD_BYTES + BIG * 2

        assert len(ask(listener, "/big")[1]) == BIG


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("say", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01"], ids=["silent", "half"])
def test_crowd_amid_the_handshake(tmp_path: Path, say: bytes) -> None:
    """Of 500 clients that do not get on with their TLS handshake few stay, and probes go on."""
    authority = make(tmp_path, "ca")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*make(tmp_path, "server", authority).files)
    trusting = ssl.create_default_context(cafile=authority.files[0])
    with serving(tls=server) as listener, crowd(listener, say) as clients:
        for _ in range(3):
            probe = http.client.HTTPSConnection("127.0.0.1", listener.port, timeout=LIMIT, context=trusting)
            with contextlib.closing(probe):
                probe.request("GET", "/-/healthy")
                assert probe.getresponse().read() == b"well\n"
                probe.request("GET", "/big")
                assert len(probe.getresponse().read()) == BIG
        wait_until(lambda: sum(map(is_closed, clients)) >= CROWD - MAX_CLIENTS, "those without a place are let go")
        wait_until(lambda: len(listener._clients) <= MAX_CLIENTS, "no more connections than places")


def held(listener: Listener) -> int:
    return sum(client.held for client in list(listener._clients))


def test_clients_without_end_are_let_go() -> None:
    """Who drips a request, begins none, or takes an answer drop by drop is let go in the end, however few come."""
    with serving() as listener, contextlib.ExitStack() as stack:
        silent, dripping, deaf = (stack.enter_context(connect(listener)) for _ in range(3))
        deaf.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        dripping.sendall(b"GET / HTTP/1.1\r\nX: ")

        def let_go() -> bool:
            with contextlib.suppress(OSError):
                dripping.send(b"x")
            with contextlib.suppress(OSError):
                deaf.recv(1)
            return not listener._clients

        wait_until(let_go, "nobody is left")
        # a connection is closed just after its place is free
        wait_until(lambda: is_closed(silent) and is_closed(dripping), "their connections are closed")


def test_pages_that_hang_hold_up_no_probe() -> None:
    """While every place for pages is taken by one that hangs, probes are answered; pages come when a place is free."""
    pages = Pages()
    with serving(pages) as listener, contextlib.ExitStack() as stack:
        for _ in range(PAGES_AT_ONCE * 3):
            stack.enter_context(connect(listener)).sendall(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(PAGES_AT_ONCE):
            assert pages.holding.acquire(timeout=LIMIT)

        assert ask(listener, "/-/healthy") == (200, b"well\n")
        assert not pages.holding.acquire(blocking=False)
        pages.released.set()
        assert ask(listener, "/big")[0] == 200


def test_answers_are_not_kept() -> None:
    """A large page is let go of once it was sent, not when the next one is asked for."""
    with serving() as listener:
        ask(listener, "/")  # what is made once
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            assert len(ask(listener, "/big")[1]) == BIG
            wait_until(lambda: tracemalloc.get_traced_memory()[0] < before + BIG // 2, "the page is let go of")
        finally:
            tracemalloc.stop()


def test_without_descriptors_it_goes_on_later() -> None:
    """Where no descriptor is left for who comes, who waited longest gives way, and nothing ends."""
    with serving() as listener, connect(listener) as first, socket.socket() as second, contextlib.ExitStack() as stack:
        wait_until(lambda: len(listener._clients) == 1, "the first is served")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (second.fileno() + 1, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            second.settimeout(LIMIT)
            second.connect(("127.0.0.1", listener.port))
            assert first.recv(1) == b""
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert ask(listener, "/-/healthy")[0] == 200


# ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),  # whole with its second read
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000000\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 405),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\r\n", 400),
        (b"\xff" * 300 + b"\r\n\r\n", 400),
    ],
)
def test_requests_that_are_refused(text: bytes, expected: int) -> None:
    """What is too large, has a body, asks for another method or is no HTTP is refused, and no page is made for it."""
    pages = Pages()
    with serving(pages) as listener:
        answer = send(listener, text)
        assert pages.requests == []
        assert ask(listener, "/-/healthy")[0] == 200

    assert status(answer) == expected
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert answer.count(b"HTTP/1.1") == 1


def test_other_methods_are_told_what_is_allowed() -> None:
    """405 names the methods that there are."""
    with serving() as listener:
        assert b"\r\nallow: get, head\r\n" in send(listener, b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n").lower()


def test_requests_one_after_another() -> None:
    """Several requests go over one connection, also sent all at once; the last one may ask to end it."""
    request = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    pages = Pages()
    with serving(pages) as listener:
        answer = send(listener, b"".join(request % number for number in range(20)) + b"GET / HTTP/1.0\r\n\r\n")

    assert answer.count(b"HTTP/1.1 200 OK") == 21
    assert [it["PATH_INFO"] for it in pages.requests] == [*(f"/{number}" for number in range(20)), "/"]


def test_request_in_pieces() -> None:
    """A request that arrives byte by byte is answered like any other."""
    with serving() as listener, connect(listener) as client:
        for byte in b"GET /a%20b?c=%20d HTTP/1.0\r\nX-A: 1\r\nX-A: 2\r\nX_B: 3\r\n\r\n":
            client.send(bytes([byte]))
        assert status(client.recv(1024)) == 200


def test_what_a_page_is_told() -> None:
    """An application gets path, query, headers and address; a header that could pass for another is left out."""
    pages = Pages()
    with serving(pages) as listener:
        send(listener, b"GET /a%20b%2F?c=%20d HTTP/1.0\r\nX-A: 1\r\nX-A: 2\r\nX_B: 3\r\n\r\n")

    environ = pages.requests[0]
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["REMOTE_ADDR"]) == ("/a b/", "c=%20d", "127.0.0.1")
    assert environ["HTTP_X_A"] == "1,2"
    assert "HTTP_X_B" not in environ


def test_head() -> None:
    """HEAD gets the length of the body, and no body; the connection goes on."""
    with serving() as listener:
        answer = send(listener, b"HEAD /big HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n")

    assert str(BIG).encode() in answer.partition(b"\r\n\r\n")[0]
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert len(answer) < 1000


def test_headers_cannot_be_split() -> None:
    """A page whose header holds a line break is not sent, and told of in the log."""
    stream = io.StringIO()
    log.configure("info", "json", stream)
    with serving() as listener:
        assert b"X-Other" not in send(listener, b"GET /split HTTP/1.0\r\n\r\n")
        wait_until(lambda: "internal_error" in stream.getvalue(), "it is told of")

    assert json.loads(stream.getvalue().splitlines()[0])["level"] == "error"


def test_bugs_leave_the_threads_that_make_pages() -> None:
    """An application that raises, more often than there are threads, gets 500 sent each time, and pages go on."""
    stream = io.StringIO()
    log.configure("debug", "json", stream)
    with serving() as listener:
        answers = [ask(listener, "/bug") for _ in range(2 * PAGES_AT_ONCE + 1)]
        assert ask(listener, "/") == (200, b"well\n")

    assert set(answers) == {(500, b"")}
    assert "internal_error" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_clients_that_break_off_are_no_errors_of_ours() -> None:
    """A client that goes away in the middle, with or without a reset, is told of to those who debug alone."""
    stream = io.StringIO()
    log.configure("debug", "json", stream)
    with serving() as listener:
        for text in (b"", b"GET", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"):
            for lingering in (0, 1):
                with connect(listener) as client:
                    client.sendall(text)
                    # closing then resets the connection
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", lingering, 0))
        wait_until(lambda: not listener._clients, "all are gone")

    levels = {json.loads(line)["level"] for line in stream.getvalue().splitlines()}
    assert levels <= {"debug"}


MUTATED = (
    b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
    b"HEAD /a?b=c HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
)


def mutated(random: Random) -> bytes:
    """A request with some bytes changed, added or left out."""
    text = bytearray(random.choice(MUTATED))
    for _ in range(random.randint(0, 6)):
        place, kind = random.randrange(len(text)), random.randrange(3)
        if kind == 0:
            text[place] = random.randrange(256)
        elif kind == 1:
            text[place:place] = random.choice((b"\r\n", b"\0", b":", b" ", b"\xff", b"Content-Length: 9\r\n"))
        elif len(text) > 10:
            del text[place : place + random.randint(1, 5)]
    return bytes(text)


def test_requests_that_are_almost_right() -> None:
    """Whatever bytes come, the client gets an answer or an end, and nothing fails on our side."""
    stream = io.StringIO()
    log.configure("info", "json", stream)
    random = Random(2)  # noqa: S311 -- no secret, and the same each time
    with serving() as listener:
        for _ in range(500):
            with connect(listener) as client, contextlib.suppress(ConnectionError):
                client.sendall(mutated(random))
                client.shutdown(socket.SHUT_WR)
                answer = client.recv(65536)
                assert answer == b"" or status(answer) in {200, 400, 405, 413, 431, 501, 505}
        assert ask(listener, "/-/healthy")[0] == 200

    assert stream.getvalue() == ""
