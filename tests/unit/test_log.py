"""How the daemon logs: what lines look like, what they never show, and the events of rotations."""

from __future__ import annotations

import ast
import io
import json
import logging
import math
import os
import re
import sys
import threading
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

import aca_tokend
from aca_tokend import log
from aca_tokend.core.login import LoggedIn, LoginFailed, RenewalFailed, Renewed
from aca_tokend.core.outcome import (
    ADVICE,
    Adopted,
    Event,
    Failed,
    Failure,
    Granted,
    HookRan,
    Noticed,
    Published,
    PublishResult,
    Reason,
    Resumed,
    Rotated,
    Skipped,
    Step,
    Suspended,
)
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "canary-8f14e45f"
START = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
SINK = "vault:secret/aca/bookings"
DOCS = Path(__file__).parents[2] / "docs" / "logs.md"

DOCUMENT = Document(
    access_token=Secret(CANARY),
    issued_at=START,
    expires_at=START + timedelta(hours=2),
    refresh_after=START + timedelta(minutes=80),
    expires_in=7200,
    scope="public",
    username="svc-bookings",
    authority="authority-1",
    account="0" * 32,
)
REFUSED = Failure(Step.GRANT, Reason.INVALID_GRANT, "acaengine main: invalid_grant", request_id="request-1")
FULL = Failure(Step.PUBLISH, Reason.DISK_FULL, "/run/aca: no space left", sink=SINK)
SEALED = Failure(Step.LOOK, Reason.VAULT_SEALED, "vault main: sealed", request_id="request-2", sink=SINK)
HOOK_FAILED = Failure(Step.HOOK, Reason.COMMAND_FAILED, "command nginx ended with status 1")
ROTATED = Rotated("bookings", DOCUMENT, 0.25, (SINK,), "request-1")

# Every event, with what is optional both there and not.
EVENTS: list[Event] = [
    ROTATED,
    Rotated("bookings", DOCUMENT, 0.25, (SINK,), None),
    Adopted("bookings", DOCUMENT, SINK),
    Failed("bookings", REFUSED, 1, 2.5, DOCUMENT.expires_at),
    Failed("bookings", FULL, 1, float("inf"), DOCUMENT.expires_at),
    Failed("new", REFUSED, 1, 2.5),
    Suspended("bookings", REFUSED, DOCUMENT.expires_at),
    Suspended("new", Failure(Step.GRANT, Reason.INVALID_CLIENT, "acaengine main: invalid_client")),
    Resumed("bookings", "the credential changed"),
    Skipped("bookings", "endpoint_held"),
    Noticed("bookings", "token_reused"),
    *(Published("bookings", SINK, "vault", result, 0.01) for result in PublishResult if result != "failed"),
    Published("bookings", SINK, "vault", PublishResult.FAILED, 0.0, FULL),
    Published("bookings", SINK, "vault", PublishResult.FAILED, 0.0, SEALED),
    Published("bookings", SINK, "vault", PublishResult.WRITTEN, 0.01, None, recovered=True),
    Granted("bookings", "main", "200", 0.1, 0.5),
    Granted("bookings", "main", "none", 10.0, None),
    HookRan("nginx", ("bookings",), 0.1, recovered=True),
    HookRan("nginx", tuple(f"t{number}" for number in range(50)), 0.1, "said", recovered=True),
    HookRan("nginx", ("bookings",), 0.1, "said", HOOK_FAILED, 1, 2.5),
    HookRan("nginx", tuple(f"t{number}" for number in range(50)), 0.1, "", HOOK_FAILED, 1, float("inf")),
]


def configured(level: str = "debug", style: str = "json") -> io.StringIO:
    """Sets logging up as in a new process: pytest's own handlers stand aside."""
    logging.getLogger().handlers.clear()
    stream = io.StringIO()
    log.configure(level, style, stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def told(*events: Event, level: str = "debug") -> list[dict[str, Any]]:
    """The lines that these events make, without their times."""
    stream = configured(level)
    events_log = log.EventLog(START.timestamp)
    for event in events:
        events_log.observe(event)
    return [{key: value for key, value in line.items() if key != "timestamp"} for line in lines(stream)]


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
        getattr(logging.getLogger("cheroot"), name)("a library's")

    assert [line["level"] for line in lines(stream) if line["event"] == "ours"] == expected
    assert [line["level"] for line in lines(stream) if line["event"] == "a library's"] == expected


def test_configured_twice() -> None:
    """Setting logging up again replaces the first: nothing is written twice or to the old place."""
    first = configured()
    second = configured()

    structlog.get_logger().info("once")
    logging.getLogger("cheroot").warning("once")

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
    "name", ["httpx", "httpcore.http11", "urllib3.connectionpool", "hvac", "apscheduler.executors"]
)
def test_chatty_libraries_are_capped(name: str) -> None:
    """At debug level the libraries that tell what they send still say nothing below WARNING."""
    stream = configured("debug")

    logging.getLogger(name).debug(CANARY)
    logging.getLogger(name).info(CANARY)
    logging.getLogger(name).warning("kept")

    assert [line["event"] for line in lines(stream)] == ["kept"]


def test_cap_is_no_floor() -> None:
    """At error level the capped libraries' warnings are not written either."""
    stream = configured("error")

    logging.getLogger("urllib3").warning("not kept")

    assert stream.getvalue() == ""


def test_python_warnings_are_lines() -> None:
    """A warning of Python's own is a line like any other."""
    stream = configured()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("something is old", stacklevel=1)
        logging.captureWarnings(capture=False)

    (line,) = lines(stream)
    assert line["logger"] == "py.warnings"
    assert "something is old" in line["event"]


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
@pytest.mark.parametrize("ours", [True, False])
def test_tracebacks_have_no_local_variables(style: str, ours: bool) -> None:
    """A traceback shows where it went wrong, and no value of a variable on the way."""
    stream = configured(style=style)

    def fail(password: str) -> None:
        local = {"copy": password}
        raise ValueError(len(local))

    try:
        fail(CANARY)
    except ValueError:
        if ours:
            structlog.get_logger().exception("bug")
        else:
            logging.getLogger("flask.app").exception("bug")

    assert "ValueError" in stream.getvalue()
    assert "test_log.py" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_secret_as_argument_of_a_library_line() -> None:
    """A Secret handed to the standard library's logging is written as <secret>."""
    stream = configured()

    logging.getLogger("hvac").warning("log-in with %s (%r)", Secret(CANARY), Secret(CANARY))

    assert lines(stream)[0]["event"] == "log-in with <secret> (<secret>)"


# ── when lines cannot be written ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("style", ["json", "console", "auto"])
def test_closed_stream(style: str) -> None:
    """With the stream closed, before or after it was set up, logging does nothing and raises nothing."""
    before, after = io.StringIO(), io.StringIO()
    before.close()
    log.configure("debug", style, before)
    log.EventLog().observe(ROTATED)
    log.configure("debug", style, after)
    after.close()

    log.EventLog().observe(ROTATED)
    logging.getLogger("cheroot").error("lost")


def test_broken_pipe() -> None:
    """With nobody reading standard error any more, logging does nothing and raises nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as raw:
        stream = io.TextIOWrapper(raw, line_buffering=True, write_through=True)
        log.configure("debug", "json", stream)
        for event in EVENTS:
            log.EventLog().observe(event)
        logging.getLogger("cheroot").error("lost")
        stream.detach()


def test_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process started with standard error closed, logging does nothing and raises nothing."""
    monkeypatch.setattr(sys, "stderr", None)

    log.configure("debug", "auto")

    log.EventLog().observe(ROTATED)
    logging.getLogger("cheroot").error("lost")


def test_line_that_cannot_be_rendered() -> None:
    """A value that cannot be written down loses its line, which is said, and raises nothing."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError(CANARY)

        __repr__ = __str__

    stream = configured()
    structlog.get_logger("aca_tokend").info("event", value=Broken())
    logging.getLogger("cheroot").warning("%d", "no number")

    first, second = lines(stream)
    assert first == {"level": "error", "event": "log_line_lost", "logger": "aca_tokend", "error": "RuntimeError"}
    assert (second["event"], second["logger"], second["error"]) == ("log_line_lost", "cheroot", "TypeError")


def test_lines_of_many_threads_stay_whole() -> None:
    """Lines that many threads write at once come out whole and complete."""
    stream = configured()
    events_log = log.EventLog()

    def work() -> None:
        for _ in range(100):
            events_log.observe(ROTATED)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(lines(stream)) == 800


# ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rotated() -> None:
    """A rotation that succeeded is one INFO line with the token's life, where it went, and the server's request id."""
    assert told(ROTATED, level="info") == [
        {
            "level": "info",
            "event": "token_rotated",
            "token": "bookings",
            "issued_at": "2026-11-24T06:00:00.000000Z",
            "expires_at": "2026-11-24T08:00:00.000000Z",
            "refresh_after": "2026-11-24T07:20:00.000000Z",
            "duration_seconds": 0.25,
            "sinks": [SINK],
            "request_id": "request-1",
        }
    ]


def test_one_line_a_rotation() -> None:
    """At INFO the grant and the publishes of a rotation that succeeded add no line."""
    grant = Granted("bookings", "main", "200", 0.1, 0.0)
    written = Published("bookings", SINK, "vault", PublishResult.WRITTEN, 0.01)

    assert [line["event"] for line in told(grant, written, ROTATED, level="info")] == ["token_rotated"]


def test_adopted() -> None:
    """A token that was adopted is one INFO line that names the sink it was found in."""
    (line,) = told(Adopted("bookings", DOCUMENT, SINK), level="info")

    assert (line["level"], line["event"], line["sink"]) == ("info", "token_adopted", SINK)
    assert line["expires_at"] == "2026-11-24T08:00:00.000000Z"


def test_failed() -> None:
    """A failed attempt is a WARNING: which step, why, what to do, when the next comes, how long readers are safe."""
    assert told(Failed("bookings", REFUSED, 2, 2.5, DOCUMENT.expires_at))[0] == {
        "level": "warning",
        "event": "rotation_failed",
        "token": "bookings",
        "step": "grant",
        "reason": "invalid_grant",
        "message": "acaengine main: invalid_grant",
        "advice": ADVICE[Reason.INVALID_GRANT],
        "request_id": "request-1",
        "attempt": 2,
        "next_attempt_at": "2026-11-24T06:00:02.500000Z",
        "expires_at": "2026-11-24T08:00:00.000000Z",
    }


def test_failed_with_nothing_held() -> None:
    """Where no token is held yet, and no next attempt is due, a failure leaves both times out."""
    (line,) = told(Failed("bookings", REFUSED, 1, float("inf")))

    assert {"expires_at", "next_attempt_at"}.isdisjoint(line)


def test_suspended() -> None:
    """A suspended token is an ERROR that says what to do and until when readers are safe."""
    (line,) = told(Suspended("bookings", REFUSED, DOCUMENT.expires_at))

    assert (line["level"], line["event"]) == ("error", "token_suspended")
    assert (line["reason"], line["advice"]) == ("invalid_grant", ADVICE[Reason.INVALID_GRANT])
    assert line["expires_at"] == "2026-11-24T08:00:00.000000Z"


def test_resumed() -> None:
    """A resumed token is an INFO line that says why."""
    (line,) = told(Resumed("bookings", "the credential changed"), level="info")

    assert line == {
        "level": "info",
        "event": "token_resumed",
        "token": "bookings",
        "why": "the credential changed",
    }


def test_publish_failed_and_recovered() -> None:
    """A sink that fails is a WARNING with its reason; when it works again that is an INFO line."""
    failed = Published("bookings", SINK, "vault", PublishResult.FAILED, 0.0, FULL)
    written = Published("bookings", SINK, "vault", PublishResult.WRITTEN, 0.01, None, recovered=True)

    first, second = told(failed, written, level="info")

    assert (first["level"], first["event"], first["sink"]) == ("warning", "publish_failed", SINK)
    assert (first["step"], first["reason"], first["advice"]) == ("publish", "disk_full", ADVICE[Reason.DISK_FULL])
    assert (second["level"], second["event"], second["sink"]) == ("info", "publish_recovered", SINK)


def test_publish_fenced() -> None:
    """A sink that already held a later-issued token is a WARNING."""
    (line,) = told(Published("bookings", SINK, "vault", PublishResult.FENCED, 0.0), level="info")

    assert (line["level"], line["event"], line["kind"]) == ("warning", "publish_fenced", "vault")


FAILED_LOGIN = LoginFailed("main", "approle", Reason.UNAVAILABLE, "vault main: no", 2.0, 0.0)


def test_vault_logins() -> None:
    """A log-in to Vault is an INFO line that says when its token expires, if it does; a failed one is a WARNING."""
    stream = configured("info")
    events_log = log.EventLog()
    events_log.observe_login(LoggedIn("main", "approle", START.timestamp(), 0.0))
    events_log.observe_login(LoggedIn("main", "token", None, math.inf))
    events_log.observe_login(FAILED_LOGIN)

    first, second, third = lines(stream)
    assert (first["level"], first["event"], first["vault"]) == ("info", "vault_logged_in", "main")
    assert (first["method"], first["expires_at"]) == ("approle", "2026-11-24T06:00:00.000000Z")
    assert (second["method"], second.get("expires_at")) == ("token", None)
    assert (third["level"], third["event"], third["method"]) == ("warning", "vault_login_failed", "approle")
    assert (third["reason"], third["message"]) == ("unavailable", "vault main: no")
    assert {"advice", "next_attempt_at"} <= third.keys()


def test_vault_logins_that_go_on_failing() -> None:
    """What fails again just so is told at DEBUG; a credential that is not sent again any more at ERROR."""
    stream = configured("debug")
    events_log = log.EventLog()
    events_log.observe_login(replace(FAILED_LOGIN, repeated=True))
    events_log.observe_login(replace(FAILED_LOGIN, suspended=True, reason=Reason.VAULT_LOGIN_FAILED))

    told = [(line["level"], line["event"]) for line in lines(stream)]
    assert told == [("debug", "vault_login_still_failing"), ("error", "vault_login_suspended")]


def test_renewals() -> None:
    """A renewal is a DEBUG line, one that failed a WARNING that says until when the token lives on."""
    stream = configured("debug")
    events_log = log.EventLog()
    events_log.observe_login(Renewed("main", START.timestamp()))
    events_log.observe_login(RenewalFailed("main", Reason.TIMEOUT, "vault main: no", START.timestamp()))

    first, second = lines(stream)
    assert (first["level"], first["event"]) == ("debug", "vault_token_renewed")
    assert (second["level"], second["event"], second["reason"]) == ("warning", "vault_token_not_renewed", "timeout")
    assert first["expires_at"] == second["expires_at"] == "2026-11-24T06:00:00.000000Z"


def test_hooks() -> None:
    """A hook that fails is a WARNING with what it said, and INFO once it works; of many tokens the first are named."""
    many = tuple(f"t{number}" for number in range(25))
    failed, recovered, ran = told(
        HookRan("nginx", many, 0.1, "emerg: no", HOOK_FAILED, 2, 4.0),
        HookRan("nginx", ("bookings",), 0.1, recovered=True),
    )

    assert failed["event"] == "hook_failed"
    assert (failed["level"], failed["hook"], failed["step"]) == ("warning", "nginx", "hook")
    assert (failed["reason"], failed["attempt"], failed["output"]) == ("command_failed", 2, "emerg: no")
    assert failed["next_attempt_at"] == "2026-11-24T06:00:04.000000Z"
    assert (failed["tokens"], failed["more"]) == (list(many[:20]), 5)
    assert recovered == {"level": "info", "event": "hook_recovered", "hook": "nginx", "tokens": ["bookings"]}
    assert (ran["level"], ran["event"], ran["duration_seconds"]) == ("debug", "hook_ran", 0.1)


def test_every_reason_has_advice() -> None:
    """Whatever the reason, a failure can be logged with advice and without a secret."""
    failures = [Failed("bookings", Failure(Step.GRANT, reason, "m"), 1, 1.0) for reason in Reason]

    assert [line["advice"] for line in told(*failures)] == [ADVICE[reason] for reason in Reason]


def test_no_event_shows_the_token() -> None:
    """No event shows the access token it carries, in either format, at debug level."""
    for style in ("json", "console"):
        stream = configured("debug", style)
        events_log = log.EventLog()
        for event in EVENTS:
            events_log.observe(event)
        assert len(stream.getvalue().splitlines()) == len(EVENTS) + 3  # a publish and two hooks recovered
        assert CANARY not in stream.getvalue()


# ── docs/logs.md ──────────────────────────────────────────────────────────────────────────────────────────────────────


def documented() -> dict[str, tuple[str, set[str], set[str]]]:
    """The table of docs/logs.md: level, keys that are always there, keys that may be, by event."""
    table: dict[str, tuple[str, set[str], set[str]]] = {}
    for row in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", DOCS.read_text(), re.MULTILINE):
        name, level, keys = row
        found = re.findall(r"(\()?`(\w+)`", keys)
        table[name] = (
            level.lower(),
            {key for optional, key in found if not optional},
            {key for optional, key in found if optional},
        )
    return table


def test_documented_events_of_rotations() -> None:
    """Each event of a rotation has the level and exactly the keys that docs/logs.md tells."""
    table = documented()
    seen: dict[str, list[set[str]]] = {}
    for line in told(*EVENTS):
        level, always, sometimes = table[line["event"]]
        keys = set(line) - {"level", "event"}
        assert line["level"] == level, line
        assert always <= keys <= always | sometimes, line
        seen.setdefault(line["event"], []).append(keys)

    for event, keys_seen in seen.items():
        _, always, sometimes = table[event]
        assert set.union(*keys_seen) == always | sometimes, event
        assert set.intersection(*keys_seen) == always, event


LEVELS = {"debug", "info", "warning", "error", "critical"}


def calls() -> Iterator[tuple[str, str, str, set[str]]]:
    """Every call in the package that logs an event by name: where, level, event, its keys as far as they are plain."""
    package = Path(aca_tokend.__file__).parent
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            name = node.args[0]
            if node.func.attr not in LEVELS or not isinstance(name, ast.Constant) or not isinstance(name.value, str):
                continue
            if re.fullmatch(r"[a-z]+(_[a-z]+)+", name.value):
                keys = {keyword.arg for keyword in node.keywords if keyword.arg}
                yield f"{path.relative_to(package)}:{node.lineno}", node.func.attr, name.value, keys


def test_documented_events_of_the_package() -> None:
    """Each event that any module logs is in docs/logs.md, with its level and its keys."""
    table = documented()
    found = list(calls())

    assert {"token_rotated", "admin_page_failed"} <= {event for _, _, event, _ in found}
    for where, level, event, keys in found:
        assert event in table, f"{where}: {event} is not in docs/logs.md"
        told_level, always, sometimes = table[event]
        assert level in (told_level, "critical"), f"{where}: {event} is {level}, docs/logs.md says {told_level}"
        unknown = keys - always - sometimes - {"exc_info"}
        assert not unknown, f"{where}: {event} has keys that docs/logs.md does not name: {unknown}"
