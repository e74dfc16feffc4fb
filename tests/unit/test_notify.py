"""What a service manager is told, over a datagram socket as systemd has one."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend import log
from aca_tokend.demo.stage import wait_until
from aca_tokend.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 60.0


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(LIMIT)

    def next(self) -> list[str]:
        """The lines of the next datagram."""
        return self.socket.recv(65536).decode().splitlines()

    def waiting(self) -> list[str]:
        """The lines of all datagrams that came so far."""
        found = []
        self.socket.setblocking(False)
        try:
            while True:
                found += self.next()
        except BlockingIOError:
            return found
        finally:
            self.socket.settimeout(LIMIT)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """One with a path and one with an abstract name."""
    manager = Manager(str(tmp_path / "n") if request.param == "path" else f"@aca-tokend-{os.getpid()}-{id(request)}")
    yield manager
    manager.socket.close()


def test_what_is_told(manager: Manager) -> None:
    """READY, a reload with the moment it began, and the end are told in the words of sd_notify."""
    notifier = Notifier.of({"NOTIFY_SOCKET": manager.address})
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready()
    notifier.reloading()
    notifier.stop()

    assert manager.next() == ["READY=1"]
    reloading, since = manager.next()
    assert reloading == "RELOADING=1"
    assert since.startswith("MONOTONIC_USEC=")
    assert before <= int(since.partition("=")[2]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert manager.next() == ["STOPPING=1", "STATUS=Stopping: rotations under way finish"]


def test_watchdog_is_fed_only_while_well(manager: Manager) -> None:
    """The watchdog gets its food as long as nothing is unhealthy, none while something is, and none after the end."""
    unhealthy: list[str] = []
    asked = 0

    def look() -> list[str]:
        nonlocal asked
        asked += 1
        return unhealthy

    notifier = Notifier.of({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000"})
    notifier.start(look, lambda: "well")
    try:
        told: set[tuple[str, ...]] = set()
        while len(told) < 2:
            told.add(tuple(manager.next()))
        assert told == {("WATCHDOG=1",), ("STATUS=well",)}
        unhealthy.append("attempts: overdue")
        until(lambda: asked, 2)
        manager.waiting()
        until(lambda: asked, 5)
        assert manager.waiting() == []
        unhealthy.clear()
        assert manager.next() == ["WATCHDOG=1"]
        # what nobody takes up fills the socket, and then its end could not be told
        unhealthy.append("attempts: overdue")
        until(lambda: asked, 2)
        manager.waiting()
    finally:
        end(notifier)
    assert "STOPPING=1" in manager.waiting()


def end(notifier: Notifier) -> None:
    """Ends it, and waits until its threads have ended."""
    notifier.stop()
    for thread in notifier.threads:
        thread.join(LIMIT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_status_line_that_fails_starves_no_watchdog(manager: Manager) -> None:
    """A bug in the status line ends that line, which says so, and the watchdog is fed on."""

    def fails() -> str:
        raise ZeroDivisionError

    notifier = Notifier.of({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000"})
    notifier.start(list, fails)
    try:
        told = ["WATCHDOG=1"]
        while told == ["WATCHDOG=1"]:
            told = manager.next()
        assert told == ["STATUS=No longer told: a bug, see the log"]
        for _ in range(20):
            assert manager.next() == ["WATCHDOG=1"]
    finally:
        end(notifier)


def test_memory_that_is_wanting_once(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no memory for a look, the next one feeds the watchdog, and tells the status line."""
    monkeypatch.setattr("aca_tokend.notify.STATUS_SECONDS", 0.01)
    wanting = {"health", "status"}

    def look(at: str) -> None:
        if at in wanting:
            wanting.remove(at)
            raise MemoryError

    def unhealthy() -> list[str]:
        look("health")
        return []

    def status() -> str:
        look("status")
        return "well"

    notifier = Notifier.of({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000"})
    notifier.start(unhealthy, status)
    try:
        told: set[tuple[str, ...]] = set()
        while len(told) < 2:
            told.add(tuple(manager.next()))
        assert told == {("WATCHDOG=1",), ("STATUS=well",)}
    finally:
        end(notifier)


def until(count: object, more: int) -> None:
    """Waits until it is so many more by now."""
    assert callable(count)
    wanted = count() + more
    wait_until(lambda: count() >= wanted, "it goes on looking")


@pytest.mark.parametrize(
    ("environment", "fed"),
    [
        ({}, 0.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "9" * 5000}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
    ],
)
def test_whose_watchdog(environment: dict[str, str], fed: float) -> None:
    """The watchdog is ours unless WATCHDOG_PID names another process; all variables leave the environment."""
    environment = {"NOTIFY_SOCKET": "/nowhere", "KEPT": "1", **environment}

    assert Notifier.of(environment).watchdog_seconds == fed
    assert environment == {"KEPT": "1"}


def test_nobody_to_tell() -> None:
    """Without NOTIFY_SOCKET nothing is told, no thread runs, and nothing fails."""
    notifier = Notifier.of({})
    notifier.start(list, lambda: "")
    notifier.ready()
    notifier.stop()

    assert not notifier.threads


@pytest.mark.parametrize(
    "address", ["/nowhere/notify", "@nobody-listens-here", "vsock:2:1", "/" + "x" * 200, "@\udcff"]
)
def test_what_cannot_be_told(address: str) -> None:
    """A service manager that is not there, or an address that is none, is warned of once and fails nothing."""
    stream = io.StringIO()
    log.configure("info", "json", stream)
    notifier = Notifier.of({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.ready()

    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["level"]) == ("service_manager_not_told", "warning")
    assert line["message"]


def test_unit_begins_once_the_clock_is_right() -> None:
    """The service waits for whatever waits for the first synchronisation: else a wrong clock would date tokens."""
    unit = (Path(__file__).parents[2] / "deploy/systemd/aca-tokend.service").read_text(encoding="utf-8")
    (after,) = [line.partition("=")[2].split() for line in unit.splitlines() if line.startswith("After=")]
    assert "time-sync.target" in after
