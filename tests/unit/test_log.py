"""How lines are written: what they look like, what they never show, and what becomes of those that cannot be."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import re
import sys
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from aca_tokend import log
from aca_tokend.core.secret import Secret
from aca_tokend.event_log import EventLog
from tests.unit.told import CANARY, DOCUMENT, ROTATED, START, configured, lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

# ── lines ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_line() -> None:
    """A JSON line is one object, with time, level and event first; the time is RFC 3339 in UTC with microseconds."""
    stream = configured()

    structlog.get_logger().info("daemon_started", version="1.2.3", tokens=3, path=Path("/run"), at=START)

    text = stream.getvalue()
    assert text.count("\n") == 1
    line = json.loads(text)
    assert list(line) == ["timestamp", "level", "event", "version", "tokens", "path", "at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
    assert abs(datetime.fromisoformat(line["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (line["level"], line["event"], line["tokens"]) == ("info", "daemon_started", 3)
    assert (line["path"], line["at"]) == ("/run", "2026-11-24T06:00:00.000000Z")


def test_newlines_stay_in_their_line() -> None:
    """A value with a line break cannot forge a line, in either format."""
    for style in ("json", "console"):
        stream = configured(style=style)
        structlog.get_logger().info("event", value="one\nforged")
        assert stream.getvalue().count("\n") == 1


def test_console_line() -> None:
    """A line for people has the same parts, and no colour off a terminal."""
    stream = configured(style="console")

    structlog.get_logger().warning("rotation_failed", token="bookings")

    assert re.fullmatch(r"\d{4}-\S+Z \[warning *\] rotation_failed +token=bookings\n", stream.getvalue()), (
        stream.getvalue()
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_auto_format() -> None:
    """`auto` is for people, in colour, on a terminal, and JSON elsewhere."""
    terminal = Terminal()
    log.configure("info", "auto", terminal)
    structlog.get_logger().info("daemon_started")
    assert "\x1b[" in terminal.getvalue()
    assert "daemon_started" in terminal.getvalue()

    assert lines_of_auto()[0]["event"] == "daemon_started"


def lines_of_auto() -> list[dict[str, Any]]:
    stream = configured(style="auto")
    structlog.get_logger().info("daemon_started")
    return lines(stream)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level(level: str, expected: list[str]) -> None:
    """Lines below the level are not written, whether they are ours or a library's."""
    stream = configured(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), name)("ours")
        getattr(logging.getLogger("apscheduler"), name)("a library's")

    assert [line["level"] for line in lines(stream) if line["event"] == "ours"] == expected
    assert [line["level"] for line in lines(stream) if line["event"] == "a library's"] == [
        level for level in expected if level in {"warning", "error"}
    ]


def test_configured_twice() -> None:
    """Setting logging up again replaces the first: nothing is written twice or to the old place."""
    first = configured()
    second = configured()

    structlog.get_logger().info("once")
    logging.getLogger("apscheduler").warning("once")

    assert first.getvalue() == ""
    assert len(lines(second)) == 2


# ── libraries ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_libraries_go_through_the_same_renderer() -> None:
    """A line of a library looks like ours and names the library."""
    stream = configured()

    logging.getLogger("apscheduler.scheduler").warning("Run time of job %s was missed", "x")

    (line,) = lines(stream)
    assert line["event"] == "Run time of job x was missed"
    assert (line["level"], line["logger"]) == ("warning", "apscheduler.scheduler")


@pytest.mark.parametrize(
    "name",
    ["httpx", "httpcore.http11", "urllib3.connectionpool", "hvac", "asyncio", "py.warnings", "of.all"],
)
def test_other_libraries_are_silent(name: str) -> None:
    """A library that is not known to repeat nothing from outside says nothing, however grave it finds it."""
    stream = configured("debug")

    logging.getLogger(name).debug(CANARY)
    logging.getLogger(name).critical(CANARY)

    assert stream.getvalue() == ""


def test_safe_library_warns() -> None:
    """Of a library that is known to be safe warnings are written, and neither what it does nor an exception's text."""
    stream = configured("debug")

    logging.getLogger("apscheduler.executors").info("not kept")
    logging.getLogger("apscheduler.executors").error("kept", exc_info=ValueError(CANARY))

    assert [line["event"] for line in lines(stream)] == ["kept"]
    assert CANARY not in stream.getvalue()


def test_python_warnings_go_nowhere() -> None:
    """A warning of Python's own may quote what it is about; it is no line, and is not written beside the lines."""
    stream = configured("debug")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(CANARY, stacklevel=1)
        logging.captureWarnings(capture=False)

    assert stream.getvalue() == ""


# ── secrets ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize(
    "keys",
    [
        {"value": Secret(CANARY)},
        {"values": [Secret(CANARY), {"deep": (Secret(CANARY),)}]},
        {"document": DOCUMENT},
        *({name: CANARY} for name in sorted(log.SECRET_NAMES)),
        {"Authorization": f"Bearer {CANARY}"},
        {"headers": {"AUTHORIZATION": f"Bearer {CANARY}", "accept": "*/*"}},
        {"body": [{"refresh_token": CANARY}]},
        {"password": CANARY.encode()},
    ],
    ids=str,
)
def test_secrets_are_hidden(style: str, keys: dict[str, object]) -> None:
    """A Secret, and whatever stands under the name of one, is written as <secret>, however deep it lies."""
    stream = configured(style=style)

    structlog.get_logger().info("event", **keys)

    assert "<secret>" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_names_of_secrets() -> None:
    """The names that hide what stands under them."""
    assert {
        "password",
        "client_secret",
        "access_token",
        "token_value",
        "authorization",
        "secret_id",
        "refresh_token",
    } <= log.SECRET_NAMES


@pytest.mark.parametrize("style", ["json", "console"])
def test_exceptions_are_not_shown(style: str) -> None:
    """An exception that comes with a line of ours shows neither its text nor the values of variables."""
    stream = configured(style=style)

    def fail(password: str) -> None:
        local = {"copy": password}
        raise ValueError(local)

    try:
        fail(CANARY)
    except ValueError:
        structlog.get_logger().exception("bug")

    assert "bug" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_secret_as_argument_of_a_library_line() -> None:
    """A Secret handed to the standard library's logging is written as <secret>."""
    stream = configured()

    logging.getLogger("apscheduler").warning("log-in with %s (%r)", Secret(CANARY), Secret(CANARY))

    assert lines(stream)[0]["event"] == "log-in with <secret> (<secret>)"


# ── when lines cannot be written ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("style", ["json", "console", "auto"])
def test_closed_stream(style: str) -> None:
    """With the stream closed, before or after it was set up, logging does nothing and raises nothing."""
    before, after = io.StringIO(), io.StringIO()
    before.close()
    log.configure("debug", style, before)
    EventLog().observe(ROTATED)
    log.configure("debug", style, after)
    after.close()

    EventLog().observe(ROTATED)
    logging.getLogger("apscheduler").error("lost")


def test_broken_pipe() -> None:
    """With nobody reading standard error any more, logging does nothing and raises nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as raw:
        stream = io.TextIOWrapper(raw, line_buffering=True, write_through=True)
        log.configure("debug", "json", stream)
        for _ in range(100):
            EventLog().observe(ROTATED)
        logging.getLogger("apscheduler").error("lost")
        stream.detach()


def test_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process started with standard error closed, logging does nothing and raises nothing."""
    monkeypatch.setattr(sys, "stderr", None)

    log.configure("debug", "auto")

    EventLog().observe(ROTATED)
    logging.getLogger("apscheduler").error("lost")


def test_line_that_cannot_be_rendered() -> None:
    """A value that cannot be written down loses its line, which is said, and raises nothing."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError(CANARY)

        __repr__ = __str__

    stream = configured()
    structlog.get_logger("aca_tokend").info("event", value=Broken())
    logging.getLogger("apscheduler").warning("%d", "no number")

    first, second = lines(stream)
    assert first == {"level": "error", "event": "log_line_lost", "logger": "aca_tokend", "error": "RuntimeError"}
    assert (second["event"], second["logger"], second["error"]) == ("log_line_lost", "apscheduler", "TypeError")


def test_lines_of_many_threads_stay_whole() -> None:
    """Lines that many threads write at once come out whole and complete."""
    stream = configured()
    events_log = EventLog()

    def work() -> None:
        for _ in range(100):
            events_log.observe(ROTATED)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(lines(stream)) == 800


# ── a reader that does not come ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def unread() -> Iterator[tuple[int, TextIO]]:
    """A small pipe: where it is read, and what lines go to."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(reading, "rb") as read, os.fdopen(writing, "w") as stream:
        log.configure("debug", "json", stream)
        yield read.fileno(), stream


def told_by(reading: int, last: str) -> list[dict[str, Any]]:
    """The lines that come, until one with this event."""
    text = b""
    while f'"event": "{last}"'.encode() not in text:
        text += os.read(reading, 65_536)
    return [json.loads(line) for line in text.splitlines()]


def test_nobody_waits_for_the_reader(unread: tuple[int, TextIO]) -> None:
    """Lines that nobody reads wait, and what comes after them is dropped; once they are read, a line says how many."""
    with log.Background(most=50) as background:
        for number in range(500):
            structlog.get_logger().info("event", number=number, filler="x" * 200)
        found: list[dict[str, Any]] = [{"since_start": 0}]
        while found[-1].get("since_start") != background.dropped:
            found += told_by(unread[0], "log_lines_dropped")

    numbers = [line["number"] for line in found if line.get("event") == "event"]
    assert numbers == sorted(numbers)
    assert len(numbers) + found[-1]["since_start"] >= 500, "a line that tells of it may have been dropped too"
    assert len(numbers) < 100


def test_what_waits_is_written_at_the_end(unread: tuple[int, TextIO]) -> None:
    """At the end, also by an exception, who reads gets every line; after it lines are written at once."""
    found: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: found.extend(told_by(unread[0], "after")))
    with contextlib.suppress(ValueError), log.Background():
        for number in range(100):
            structlog.get_logger().info("event", number=number, filler="x" * 200)
        reader.start()
        raise ValueError
    structlog.get_logger().info("after")
    reader.join()

    assert [line.get("number") for line in found] == [*range(100), None]


def test_nobody_reads_at_the_end(unread: tuple[int, TextIO]) -> None:
    """Where it is time to end and nobody reads, nothing waits for that, then or after it."""
    with log.Background(most=50) as background:
        for _ in range(500):
            structlog.get_logger().info("event", filler="x" * 200)
        background.until = time.monotonic()
    structlog.get_logger().info("after")

    assert b"after" not in os.read(unread[0], 65_536)


def test_terminal_that_takes_no_more() -> None:
    """A write that hangs, as to a terminal that nobody reads, holds up neither the end nor what is logged then."""
    reading, writing = os.openpty()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "w") as stream:
        log.configure("debug", "json", stream)
        background = log.Background(most=500)

        def fill() -> None:
            with background:
                for _ in range(1000):
                    structlog.get_logger().info("event", filler="x" * 200)
                background.until = time.monotonic()
            structlog.get_logger().info("after")
            logging.shutdown()

        filling = threading.Thread(target=fill, daemon=True)
        filling.start()
        filling.join(30.0)
        assert not filling.is_alive()
        logging.getLogger().removeHandler(background)


def test_line_that_no_thread_survives(unread: tuple[int, TextIO]) -> None:
    """A line whose rendering ends in the way that nothing catches is lost alone, and counted."""

    class Endless:
        def __str__(self) -> str:
            raise RecursionError

        __repr__ = object.__repr__

    with log.Background() as background:
        structlog.get_logger().info("event", value=Endless())
        structlog.get_logger().info("next")
        assert told_by(unread[0], "next")
        assert background.dropped == 1


def test_no_thread_for_it(unread: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a further thread lines are written as they come."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with log.Background():
        structlog.get_logger().info("event")
        assert told_by(unread[0], "event")


def test_secrets_are_hidden_in_the_background(unread: tuple[int, TextIO]) -> None:
    """What is hidden at once is hidden by the thread too, and what is not safe is not written."""
    with log.Background():
        structlog.get_logger().info("event", password=CANARY, value=Secret(CANARY))
        logging.getLogger("urllib3").error(CANARY)
        logging.getLogger("apscheduler").warning("%s", Secret(CANARY))
        structlog.get_logger().info("after")
        found = told_by(unread[0], "after")

    assert CANARY not in str(found)
    assert [line["event"] for line in found] == ["event", "<secret>", "after"]
