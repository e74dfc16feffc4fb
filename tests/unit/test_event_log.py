"""What is logged of rotations, log-ins and endpoints, how failures are summed up, and that docs/logs.md has it all."""

from __future__ import annotations

import ast
import math
import re
import typing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import aca_tokend
from aca_tokend.core.login import LoggedIn, LoginEvent, LoginFailed, RenewalFailed, Renewed
from aca_tokend.core.outcome import (
    ADVICE,
    Adopted,
    Component,
    EndpointDown,
    EndpointRecovered,
    Event,
    Expired,
    Failed,
    Failure,
    Granted,
    HookRan,
    Published,
    PublishResult,
    Reason,
    Resumed,
    Step,
    Suspended,
    Unexpected,
)
from tests.unit.told import (
    CANARY,
    DOCUMENT,
    DOWN,
    EVENTS,
    FAILED_LOGIN,
    FULL,
    HELD,
    HOOK_FAILED,
    REFUSED,
    REFUSED_LOGIN,
    ROTATED,
    SINK,
    START,
    Log,
    briefly,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs" / "logs.md"


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


def test_vault_logins() -> None:
    """A log-in to Vault is an INFO line that says when its token expires, if it does; a failed one is a WARNING."""
    first, second, third = told(
        LoggedIn("main", "approle", START.timestamp(), 0.0),
        LoggedIn("main", "token", None, math.inf),
        FAILED_LOGIN,
        level="info",
    )

    assert (first["level"], first["event"], first["vault"]) == ("info", "vault_logged_in", "main")
    assert (first["method"], first["expires_at"]) == ("approle", "2026-11-24T06:00:00.000000Z")
    assert (second["method"], second.get("expires_at")) == ("token", None)
    assert (third["level"], third["event"], third["method"]) == ("warning", "vault_login_failed", "approle")
    assert (third["reason"], third["message"]) == ("unavailable", "vault main: no")
    assert {"advice", "next_attempt_at"} <= third.keys()


def test_times_beyond_any_calendar() -> None:
    """A Vault that grants its token for longer than there are years is logged without that time."""
    ages = 1e15
    logged = told(LoggedIn("main", "approle", ages, math.inf), Renewed("main", ages))
    (failed,) = told(replace(FAILED_LOGIN, next_seconds=ages))

    assert [line["event"] for line in logged] == ["vault_logged_in", "vault_token_renewed"]
    assert not any("expires_at" in line for line in logged)
    assert "next_attempt_at" not in failed


def test_vault_logins_that_are_not_made_again() -> None:
    """A credential that is not sent again any more is an ERROR each time that it was sent and refused."""
    assert briefly(told(*[REFUSED_LOGIN] * 5)) == [("error", "vault_login_suspended")] * 5


def test_renewals() -> None:
    """A renewal is a DEBUG line, one that failed a WARNING that says until when the token lives on."""
    first, second = told(
        Renewed("main", START.timestamp()), RenewalFailed("main", Reason.TIMEOUT, "vault main: no", START.timestamp())
    )

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
    assert (recovered["level"], recovered["event"], recovered["hook"]) == ("info", "hook_recovered", "nginx")
    assert recovered["tokens"] == ["bookings"]
    assert (ran["level"], ran["event"], ran["duration_seconds"]) == ("debug", "hook_ran", 0.1)


def test_every_reason_has_advice() -> None:
    """Whatever the reason, a failure can be logged with advice and without a secret."""
    failures = [Failed("bookings", Failure(Step.GRANT, reason, "m"), 1, 1.0) for reason in Reason]

    assert [line["advice"] for line in told(*failures)] == [ADVICE[reason] for reason in Reason]


def test_no_event_shows_the_token() -> None:
    """No event shows the access token it carries, in either format, at debug level."""
    for style in ("json", "console"):
        log = Log(style=style)
        for event in EVENTS:
            if isinstance(event, LoggedIn | LoginFailed | Renewed | RenewalFailed):
                log.log.observe_login(event)
            else:
                log.log.observe(event)
        assert len(log.stream.getvalue().splitlines()) >= len(EVENTS)
        assert CANARY not in log.stream.getvalue()


# ── failures that repeat ──────────────────────────────────────────────────────────────────────────────────────────────


def failed(reason: Reason = Reason.NOT_FOUND, token: str = "bookings", attempt: int = 1) -> Failed:
    return Failed(token, Failure(Step.GRANT, reason, "acaengine main: no"), attempt, 1.0)


def test_repeated_failures_are_summed_up() -> None:
    """Of failures alike the first is a WARNING, then each doubling, with how many were left out; DEBUG has them all."""
    log = Log()
    lines = []
    for attempt in range(1, 18):
        lines += log.tell(failed(attempt=attempt))
        log.clock.advance(60.0)

    assert {line["event"] for line in lines} == {"rotation_failed"}
    seen = [line for line in lines if line["level"] == "warning"]
    assert [line["attempt"] for line in seen] == [1, 2, 4, 8, 16]
    assert [line.get("left_out") for line in seen] == [None, None, 1, 3, 7]
    assert [line["attempt"] for line in lines] == list(range(1, 18))
    assert "failing_since" not in lines[0]
    assert {line["failing_since"] for line in lines[1:]} == {"2026-11-24T06:00:00.000000Z"}
    assert all(line.keys() - {"left_out"} == lines[1].keys() for line in lines[1:]), "the same keys at both levels"


def test_changed_reason_is_seen_at_once() -> None:
    """Another reason is a WARNING at once; where two take turns, each is told by its own doublings."""
    log = Log()
    lines = log.tell(*[failed()] * 3, failed(Reason.FORBIDDEN))
    assert [line["level"] for line in lines] == ["warning", "warning", "debug", "warning"]

    turns = log.tell(*[failed(), failed(Reason.FORBIDDEN)] * 500)
    assert sum(line["level"] == "warning" for line in turns) <= 2 * 9


@pytest.mark.parametrize(
    ("event", "name"),
    [(ROTATED, "token_rotated"), (Adopted("bookings", DOCUMENT, SINK), "token_adopted")],
    ids=["rotated", "adopted"],
)
def test_recovery_tells_how_many_and_how_long(event: Event, name: str) -> None:
    """The line of the success after failures says how many they were and for how long; the next one says nothing."""
    log = Log()
    for attempt in range(1, 6):
        log.tell(failed(attempt=attempt))
        log.clock.advance(30.0)

    (line,) = log.tell(event)
    assert (line["event"], line["failures"], line["failing_seconds"]) == (name, 5, 150.0)
    (line,) = log.tell(event)
    assert {"failures", "failing_seconds"}.isdisjoint(line)
    assert briefly(log.tell(failed())) == [("warning", "rotation_failed")], "what fails next is news"


def test_each_sink_hook_vault_and_endpoint_by_itself() -> None:
    """Sinks of a token, hooks of one program, Vaults and endpoints are summed up each by itself."""
    log = Log()
    other = "file:/run/aca/bookings.json"
    events: list[Event | LoginEvent] = []
    for sink in (SINK, other):
        events += [Published("bookings", sink, "vault", PublishResult.FAILED, 0.0, replace(FULL, sink=sink))] * 3
    for place in ("hook 1", "hook 2"):
        events += [HookRan("nginx", ("bookings",), 0.1, "", HOOK_FAILED, 1, 1.0, place=place)] * 3
    for name in ("main", "second"):
        events += [replace(FAILED_LOGIN, vault=name)] * 3
        events += [EndpointDown(name, DOWN, 3, 0, 60.0)] * 3

    assert [line["level"] for line in log.tell(*events)] == ["warning", "warning", "debug"] * 8
    log.clock.advance(10.0)
    recovered = log.tell(
        Published("bookings", SINK, "vault", PublishResult.UNCHANGED, 0.0, recovered=True),
        HookRan("nginx", ("bookings",), 0.1, recovered=True, place="hook 1"),
        LoggedIn("main", "approle", None, math.inf),
        EndpointRecovered("main", 2),
    )
    told_of = {line["event"]: (line["failures"], line["failing_seconds"]) for line in recovered if "failures" in line}
    events_of_recovery = ("publish_recovered", "hook_recovered", "vault_logged_in", "endpoint_recovered")
    assert told_of == dict.fromkeys(events_of_recovery, (3, 10.0))
    assert log.tell(EndpointRecovered("main", 2)) == [], "of two answers at once the first tells"


def test_many_that_fail_alike_are_summed_up_together() -> None:
    """Each token's first failure is a WARNING that says how many fail alike; then doublings of them all together."""
    log = Log("warning")
    tokens = [f"t{number}" for number in range(1000)]
    seen = []
    for attempt in range(1, 61):
        seen += log.tell(*(failed(token=token, attempt=attempt) for token in tokens))

    assert [line["token"] for line in seen[:1000]] == tokens
    assert [line.get("alike", 1) for line in seen[:1000]] == list(range(1, 1001))
    assert len(seen) == 1000 + 6, "of 60,000 failures"
    assert len(seen) + sum(line.get("left_out", 0) for line in seen) == 32_768, "none is lost until the last line"
    assert seen[-1]["alike"] == 1000


def test_waiting_for_an_endpoint_is_told_once() -> None:
    """A token that waits for its endpoint is a WARNING once, or never where it has failed; its success tells of it."""
    log = Log()
    assert briefly(log.tell(*[HELD] * 3)) == [("warning", "rotation_skipped"), *[("debug", "rotation_skipped")] * 2]
    log.clock.advance(5.0)
    (line,) = log.tell(ROTATED)
    assert (line["failures"], line["failing_seconds"]) == (0, 5.0)

    first, second = log.tell(failed(), HELD)
    assert (first["level"], second["level"]) == ("warning", "debug")


def test_endpoint_down() -> None:
    """An endpoint that is down is one WARNING: why, how many tokens wait, how many have expired, when the next does."""
    first, second = told(EndpointDown("main", DOWN, 3, 1, 60.0), EndpointDown("main", DOWN, 700, 1, 60.0))
    assert first == {
        "level": "warning",
        "event": "endpoint_down",
        "endpoint": "main",
        "waiting": 3,
        "expired": 1,
        "expires_at": "2026-11-24T06:01:00.000000Z",
        "step": "grant",
        "reason": "unavailable",
        "message": "acaengine main: 503",
        "advice": ADVICE[Reason.UNAVAILABLE],
        "request_id": "request-3",
        "attempt": 1,
    }
    assert (second["level"], second["waiting"], second["attempt"]) == ("warning", 700, 2)


def test_a_bug_has_a_line_a_minute() -> None:
    """One place in the code has an ERROR at once and then one a minute, however many meet it; another has its own."""
    log = Log()

    def levels(*met: tuple[str, int]) -> list[str]:
        bugs = [Unexpected(Component.ATTEMPT, token, "KeyError", (f"rotator.py:{line} in go",)) for token, line in met]
        return [line["level"] for line in log.tell(*bugs)]

    assert levels(("bookings", 1), ("foyer", 1), ("foyer", 2)) == ["error", "debug", "error"]
    log.clock.advance(60.0)
    assert levels(("foyer", 1), ("rooms", 1)) == ["error", "debug"]


def test_what_is_never_left_out() -> None:
    """A token that is suspended, or has expired, is an ERROR however often."""
    expired = Expired("bookings", (SINK,), START, REFUSED, "endpoint_held")
    events: list[Event | LoginEvent] = [Suspended("bookings", REFUSED), expired]
    lines = told(*events * 100)
    assert briefly(lines) == [("error", "token_suspended"), ("error", "token_expired")] * 100
    assert (lines[1]["sinks"], lines[1]["expires_at"]) == ([SINK], "2026-11-24T06:00:00.000000Z")
    assert (lines[1]["reason"], lines[1]["why"]) == ("invalid_grant", "endpoint_held")


def test_reload_makes_failures_news() -> None:
    """What became another, or left, is forgotten: its next failure is a WARNING; that of all others is not."""
    log = Log()
    log.tell(*[failed()] * 3, *[failed(token="rooms")] * 3, *[FAILED_LOGIN] * 3)
    log.log.forget("bookings")
    log.log.keep({"bookings", "rooms"})
    lines = log.tell(failed(), failed(token="rooms", attempt=5), failed(token="rooms", attempt=5), FAILED_LOGIN)
    assert [line["level"] for line in lines] == ["warning", "warning", "debug", "warning"]


# ── docs/logs.md ──────────────────────────────────────────────────────────────────────────────────────────────────────


Row = tuple[set[str], set[str], set[str]]


def documented() -> dict[str, Row]:
    """The table of docs/logs.md: levels, keys that are always there, keys that may be, by event."""
    table: dict[str, Row] = {}
    for row in re.findall(r"^\| `(\w+)` \| ([A-Z, ]+) \| (.*?) \|", DOCS.read_text(), re.MULTILINE):
        name, levels, keys = row
        found = re.findall(r"(\()?`(\w+)`", keys)
        table[name] = (
            set(levels.lower().split(", ")),
            {key for optional, key in found if not optional},
            {key for optional, key in found if optional},
        )
    return table


def test_documented_events_of_rotations() -> None:
    """Each event has the levels and exactly the keys that docs/logs.md tells."""
    table = documented()
    seen: dict[str, list[set[str]]] = {}
    levels: dict[str, set[str]] = {}
    for line in told(*EVENTS):
        level, always, sometimes = table[line["event"]]
        keys = set(line) - {"level", "event"}
        assert line["level"] in level, line
        assert always <= keys <= always | sometimes, line
        seen.setdefault(line["event"], []).append(keys)
        levels.setdefault(line["event"], set()).add(line["level"])

    for event, keys_seen in seen.items():
        level, always, sometimes = table[event]
        assert levels[event] == level, event
        assert set.union(*keys_seen) == always | sometimes, event
        assert set.intersection(*keys_seen) == always, event


def test_every_event_is_told_of() -> None:
    """Each kind of event makes lines that the tests look at: none is new and forgotten here."""
    kinds = {*typing.get_args(Event), *typing.get_args(LoginEvent)}
    assert {type(event) for event in EVENTS} == kinds
    assert {line["token"] for line in told(*EVENTS) if line["event"].startswith(("token_", "rotation_", "publish_"))}


def test_promised_events() -> None:
    """The events that the daemon promises to have are all in the table."""
    promised = (
        "daemon_started daemon_stopping daemon_stopped config_reloaded config_rejected token_rotated token_adopted"
        " rotation_failed token_suspended token_resumed publish_failed publish_recovered publish_fenced vault_logged_in"
        " vault_login_failed clock_stepped"
    )
    assert set(promised.split()) <= documented().keys()
    _, always, sometimes = documented()["rotation_failed"]
    assert {"token", "step", "reason", "next_attempt_at", "expires_at", "attempt"} <= always | sometimes


def test_lines_about_a_token_name_it() -> None:
    """Every event of a token or of one of its sinks has `token` always."""
    prefixes = ("token_", "rotation_", "publish_", "grant_")
    assert [
        event for event, (_, always, _) in documented().items() if event.startswith(prefixes) and "token" not in always
    ] == []


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

    assert {"token_rotated", "admin_tls_rejected"} <= {event for _, _, event, _ in found}
    for where, level, event, keys in found:
        assert event in table, f"{where}: {event} is not in docs/logs.md"
        levels, always, sometimes = table[event]
        assert level in levels | {"critical"}, f"{where}: {event} is {level}, docs/logs.md says {levels}"
        unknown = keys - always - sometimes
        assert not unknown, f"{where}: {event} has keys that docs/logs.md does not name: {unknown}"


def test_collectors_move_what_there_is() -> None:
    """What the page has for collectors is YAML, and moves keys that lines have."""
    table = documented()
    keys = {"timestamp", "level", "event"}.union(*(always | sometimes for _, always, sometimes in table.values()))
    blocks = re.findall(r"^```yaml\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert yaml.safe_load(block)
        moved = set(re.findall(r"(?:from|field): (?:attributes|aca_tokend)\.(\w+)", block))
        assert {"timestamp", "level", "event", "message"} <= moved <= keys
