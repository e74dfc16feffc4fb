"""How a connection is opened: names, addresses, and the time for both."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.errors import TransportError
from aca_tokend.core.outcome import Reason
from aca_tokend.net.opening import Opener, Origin
from aca_tokend.net.streams import Deadline, Tcp
from aca_tokend.net.trust import Trust
from tests.unit.test_scheduler import NO_STACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aca_tokend.net.streams import Stream

SHORT = 0.3
LONG = 30.0


def opened(origin: Origin, seconds: float, look_up: Callable[[str, int], Sequence[str]] | None = None) -> Stream:
    opener = Opener(Trust(""), look_up=look_up)
    return opener.open(origin, origin.host, Deadline.after(seconds))


def reason(origin: Origin, seconds: float, look_up: Callable[[str, int], Sequence[str]] | None = None) -> Reason:
    """Why no connection is opened; it is never as if the server had seen a request."""
    with pytest.raises(TransportError) as caught:
        opened(origin, seconds, look_up)
    assert not caught.value.sent
    return caught.value.reason


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1], listener


@contextlib.contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """A listener whose queue is full, so that the kernel drops whoever else would connect."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(socket.create_server((address, port), backlog=0))
        for _ in range(4):
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex((address, port))
        yield


@pytest.mark.parametrize(
    ("url", "place", "text"),
    [
        ("https://ACA.example.com", "aca.example.com:443", "aca.example.com"),
        ("http://10.0.0.1:443", "10.0.0.1:443", "10.0.0.1:443"),
        ("http://h:80/path", "h:80", "h"),
        ("https://[::1]:443", "[::1]:443", "[::1]"),
    ],
)
def test_origin(url: str, place: str, text: str) -> None:
    """A server is its host and port, and its text is without the scheme's own port."""
    origin = Origin.of(url)
    assert (origin.place, str(origin)) == (place, text)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:80",
        "ftp://h",
        "http://",
        "http://u@h",
        "http://h:0",
        "http://h:99999",
        "http://[",
        "//h",
        "http://h\\.x",
        "http://h%2f",
        "http://é",
        "http://a b",
    ],
)
def test_no_origin(url: str) -> None:
    """What is not the address of a server is a ValueError, whatever it is."""
    with pytest.raises(ValueError):  # noqa: PT011 -- its text is Python's own
        Origin.of(url)


def test_a_receiver_that_takes_nothing_cannot_hold_us() -> None:
    """Writing ends with the time of the request, however much is left to write."""
    with listening() as (port, listener):
        stream = Tcp("127.0.0.1", port, Deadline.after(LONG))
        taken, _ = listener.accept()
        with taken, contextlib.closing(stream), pytest.raises(TransportError) as caught:
            stream.send(bytes(64 * 1024 * 1024), Deadline.after(SHORT))
    assert caught.value.reason is Reason.TIMEOUT


def test_nothing_begins_after_the_deadline() -> None:
    """Once the time is over there is no look-up, no connection and no wait for what comes."""
    with listening() as (port, _):
        assert reason(Origin("http", "127.0.0.1", port), -1) is Reason.TIMEOUT
        assert reason(Origin("http", "aca.example.com", port), -1, lambda *_: ()) is Reason.TIMEOUT
        stream = Tcp("127.0.0.1", port, Deadline.after(LONG))
        with contextlib.closing(stream), pytest.raises(TransportError):
            stream.receive(Deadline.after(-1))


def test_a_resolver_that_hangs_holds_one_thread_of_its_own() -> None:
    """Those who wait for a name give up in time, share one look-up, and get its answer should it come."""
    begun, answer, asked = threading.Event(), threading.Event(), 0

    def look_up(host: str, port: int) -> Sequence[str]:
        nonlocal asked
        assert (host, port) == ("aca.example.com", 443)
        asked += 1
        begun.set()
        answer.wait()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    opener = Opener(Trust(""), look_up=look_up)
    origin = Origin.of("https://aca.example.com")

    def connect(seconds: float) -> Reason:
        with pytest.raises(TransportError) as caught:
            opener.open(origin, origin.host, Deadline.after(seconds))
        return caught.value.reason

    with ThreadPoolExecutor(4) as pool:
        patient = pool.submit(connect, LONG)
        assert begun.wait(LONG)
        assert list(pool.map(connect, [SHORT] * 6)) == [Reason.TIMEOUT] * 6
        assert asked == 1
        answer.set()
        assert patient.result() is Reason.NAME_NOT_RESOLVED
    assert connect(LONG) is Reason.NAME_NOT_RESOLVED
    assert asked == 2


@pytest.mark.parametrize("dead", [False, True])
def test_a_dead_address_leaves_time_for_the_next(dead: bool) -> None:
    """Where the first address of a name refuses or does not answer, the second is reached within the same request."""
    with contextlib.ExitStack() as stack:
        port, listener = stack.enter_context(listening())
        if dead:
            stack.enter_context(silent("127.0.0.2", port))
        stream = opened(Origin("http", "aca.example.com", port), 3, lambda *_: ("127.0.0.2", "127.0.0.1"))
        accepted, _ = listener.accept()
        with contextlib.closing(stream), accepted:
            assert accepted.getsockname()[0] == "127.0.0.1"


def test_no_address_answers() -> None:
    """Where no address of a name answers, that is told; a name without any, or that cannot be one, does not resolve."""
    with listening() as (port, _):
        pass
    origin = Origin("http", "aca.example.com", port)
    assert reason(origin, LONG, lambda *_: ("127.0.0.2", "127.0.0.1")) is Reason.CONNECT_FAILED
    assert reason(origin, LONG, lambda *_: ()) is Reason.NAME_NOT_RESOLVED
    assert reason(Origin("http", f"{'a' * 64}.example", port), LONG) is Reason.NAME_NOT_RESOLVED


def test_the_systems_resolver_is_asked() -> None:
    """A name that the system knows is connected to."""
    with listening() as (port, listener):
        stream = opened(Origin("http", "localhost", port), LONG)
        accepted, _ = listener.accept()
        with contextlib.closing(stream), accepted:
            assert stream.quiet()


def test_a_look_up_without_memory_holds_nobody() -> None:
    """A look-up for which there is no memory ends for those who wait, and the next one is made."""

    def no_memory(_host: str, _port: int) -> Sequence[str]:
        raise MemoryError

    opener = Opener(Trust(""), look_up=no_memory)
    for _ in range(2):
        with pytest.raises(MemoryError):
            opener.open(Origin("http", "aca.example.com", 80), "", Deadline.after(LONG))


def test_a_look_up_without_memory_for_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no memory for a thread, the thread that asks makes the look-up, and nobody waits for another."""

    def refuse(_thread: threading.Thread) -> None:
        raise MemoryError

    opener = Opener(Trust(""), look_up=lambda *_: ())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):
        with pytest.raises(TransportError) as caught:
            opener.open(Origin("http", "aca.example.com", 80), "", Deadline.after(SHORT))
        assert caught.value.reason is Reason.NAME_NOT_RESOLVED


def test_a_machine_without_another_thread() -> None:
    """Where the machine gives no thread for a look-up, the thread that asks makes it: no bug, and no failure."""
    before = threading.stack_size()
    threading.stack_size(NO_STACK)
    try:
        with listening() as (port, listener):
            stream = opened(Origin("http", "aca.example.com", port), LONG, lambda *_: ("127.0.0.1",))
            accepted, _ = listener.accept()
            with contextlib.closing(stream), accepted:
                assert stream.quiet()
    finally:
        threading.stack_size(before)
