"""The deadline and the look-up of names, where a whole request would not show them."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpcore
import pytest

from aca_tokend.network import Certificates, Deadline, NameNotResolvedError, Network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHORT = 0.3
LONG = 30.0


def network(deadline: Deadline, look_up: object = None) -> Network:
    return Network(deadline, Certificates(""), "aca.example.com", look_up)  # type: ignore[arg-type]  # fakes below


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


def test_a_receiver_that_takes_nothing_cannot_hold_us() -> None:
    """Writing ends with the time of the request, however much is left to write."""
    deadline = Deadline()
    deadline.start(SHORT)
    with listening() as (port, listener):
        stream = network(deadline).connect_tcp("127.0.0.1", port)
        taken, _ = listener.accept()
        with taken, contextlib.closing(stream), pytest.raises(httpcore.WriteTimeout):
            stream.write(bytes(64 * 1024 * 1024))


def test_nothing_begins_after_the_deadline() -> None:
    """Once the time is over each step fails at once, and the connection is closed rather than encrypted."""
    deadline = Deadline()
    deadline.start(LONG)
    with listening() as (port, _):
        stream = network(deadline).connect_tcp("127.0.0.1", port)
        deadline.start(-1)
        with pytest.raises(httpcore.ReadTimeout):
            stream.read(1)
        with pytest.raises(httpcore.WriteTimeout):
            stream.write(b"x")
        with pytest.raises(httpcore.ConnectTimeout):
            network(deadline).connect_tcp("127.0.0.1", port)
        with pytest.raises(httpcore.ConnectTimeout):
            stream.start_tls(network(deadline).for_server)
        assert stream.get_extra_info("socket").fileno() == -1


def test_each_thread_has_its_own_deadline() -> None:
    """A request's time is not changed by one that another thread begins."""
    deadline = Deadline()
    deadline.start(LONG)
    with ThreadPoolExecutor(1) as other:
        other.submit(deadline.start, -1).result()
    assert 0 < deadline.limit(None, httpcore.ReadTimeout) <= LONG
    assert deadline.limit(1.0, httpcore.ReadTimeout) == 1.0


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

    deadline = Deadline()
    slow = network(deadline, look_up)

    def connect(seconds: float) -> type[BaseException]:
        deadline.start(seconds)
        with pytest.raises(httpcore.ConnectError if seconds == LONG else httpcore.ConnectTimeout) as caught:
            slow.connect_tcp("aca.example.com", 443)
        return caught.type

    with ThreadPoolExecutor(4) as pool:
        patient = pool.submit(connect, LONG)
        assert begun.wait(LONG)
        assert list(pool.map(connect, [SHORT] * 6)) == [httpcore.ConnectTimeout] * 6
        assert asked == 1
        answer.set()
        assert patient.result() is NameNotResolvedError
    assert connect(LONG) is NameNotResolvedError
    assert asked == 2


@pytest.mark.parametrize("dead", [False, True])
def test_a_dead_address_leaves_time_for_the_next(dead: bool) -> None:
    """Where the first address of a name refuses or does not answer, the second is reached within the same request."""
    with contextlib.ExitStack() as stack:
        port, listener = stack.enter_context(listening())
        if dead:
            stack.enter_context(silent("127.0.0.2", port))
        deadline = Deadline()
        deadline.start(3)
        found = ("127.0.0.2", "127.0.0.1")
        stream = network(deadline, lambda _, __: found).connect_tcp("aca.example.com", port)
        accepted, _ = listener.accept()
        with contextlib.closing(stream), accepted:
            assert accepted.getsockname()[0] == "127.0.0.1"


def test_the_last_address_tells_why_none_answers() -> None:
    """Where no address of a name answers, the error is the last one's; a name without any does not resolve."""
    with listening() as (port, _):
        pass
    deadline = Deadline()
    deadline.start(LONG)
    with pytest.raises(httpcore.ConnectError):
        network(deadline, lambda _, __: ("127.0.0.2", "127.0.0.1")).connect_tcp("aca.example.com", port)
    with pytest.raises(NameNotResolvedError):
        network(deadline, lambda _, __: ()).connect_tcp("aca.example.com", port)


def test_the_systems_resolver_is_asked() -> None:
    """A name that the system knows is connected to."""
    deadline = Deadline()
    deadline.start(LONG)
    with listening() as (port, listener):
        stream = network(deadline).connect_tcp("localhost", port)
        accepted, _ = listener.accept()
        with contextlib.closing(stream), accepted:
            assert accepted.getpeername() == stream.get_extra_info("client_addr")
