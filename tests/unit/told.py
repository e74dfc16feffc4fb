"""Every event, and the lines that events make, for the tests of what is logged."""

from __future__ import annotations

import io
import json
import logging
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from aca_tokend import log
from aca_tokend.core.login import LoggedIn, LoginEvent, LoginFailed, RenewalFailed, Renewed
from aca_tokend.core.outcome import (
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
    Noticed,
    Published,
    PublishResult,
    Reason,
    Resumed,
    Rotated,
    Skipped,
    Step,
    Suspended,
    Unexpected,
)
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document
from aca_tokend.event_log import EventLog
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterable

CANARY = "canary-8f14e45f"
START = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
SINK = "vault:secret/aca/bookings"

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

DOWN = Failure(Step.GRANT, Reason.UNAVAILABLE, "acaengine main: 503", request_id="request-3")
HELD = Skipped("bookings", "endpoint_held", 2.5, DOCUMENT.expires_at)
FAILED_LOGIN = LoginFailed("main", "approle", Reason.UNAVAILABLE, "vault main: no", 2.0, 0.0)
REFUSED_LOGIN = replace(FAILED_LOGIN, suspended=True, reason=Reason.VAULT_LOGIN_FAILED)
MANY_TOKENS = tuple(f"t{number}" for number in range(50))


def twice(event: Event | LoginEvent) -> list[Event | LoginEvent]:
    """Told again, it has more to say."""
    return [event, event]


def four_times(event: Event | LoginEvent) -> list[Event | LoginEvent]:
    """The third is left out at WARNING, and the fourth says so."""
    return [event] * 4


# Every event, with what is optional both there and not. What fails does so often enough to be summed up, for more than
# one token, and is over at the end.
EVENTS: list[Event | LoginEvent] = [
    ROTATED,
    Rotated("bookings", DOCUMENT, 0.25, (SINK,), None),
    Adopted("bookings", DOCUMENT, SINK),
    Failed("bookings", REFUSED, 1, 2.5, DOCUMENT.expires_at),
    Failed("new", REFUSED, 1, 2.5),
    *(Failed("bookings", FULL, attempt, math.inf, DOCUMENT.expires_at) for attempt in range(2, 6)),
    Adopted("bookings", DOCUMENT, SINK),
    Failed("bookings", REFUSED, 1, 2.5, DOCUMENT.expires_at),
    Suspended("bookings", REFUSED, DOCUMENT.expires_at),
    Suspended("bookings", FULL),
    Suspended("new", Failure(Step.GRANT, Reason.INVALID_CLIENT, "acaengine main: invalid_client")),
    Expired("bookings", (SINK,), START, REFUSED),
    Expired("bookings", (SINK,), START, FULL),
    Expired("bookings", (SINK,), START, None, "endpoint_held"),
    Expired("bookings", (SINK,), START),
    Resumed("bookings", "the credential changed"),
    ROTATED,
    *twice(HELD),
    Skipped("bookings", "token_reused"),
    Skipped("bookings", "claimed_elsewhere"),
    Noticed("bookings", "token_reused"),
    *(Published("bookings", SINK, "vault", result, 0.01) for result in PublishResult if result != "failed"),
    Published("new", SINK, "vault", PublishResult.FAILED, 0.0, FULL),
    *four_times(Published("bookings", SINK, "vault", PublishResult.FAILED, 0.0, FULL)),
    Published("bookings", SINK, "vault", PublishResult.FAILED, 0.0, SEALED),
    Published("bookings", SINK, "vault", PublishResult.WRITTEN, 0.01, None, recovered=True),
    # after a reload nothing is known of what failed before
    Published("bookings", SINK, "vault", PublishResult.WRITTEN, 0.01, None, recovered=True),
    Granted("bookings", "main", "200", 0.1, 0.5, "request-1"),
    Granted("bookings", "main", "none", 10.0, None),
    HookRan("nginx", ("bookings",), 0.1, recovered=True, place="hook 1"),
    *(HookRan("nginx", ("bookings",), 0.1, "", HOOK_FAILED, attempt, 2.5, place="hook 1") for attempt in range(1, 5)),
    HookRan("nginx", MANY_TOKENS, 0.1, "said", HOOK_FAILED, 1, math.inf, place="hook 2"),
    HookRan("nginx", MANY_TOKENS, 0.1, "said", recovered=True, place="hook 1"),
    *four_times(EndpointDown("main", DOWN, 3, 1, 60.0)),
    EndpointDown("second", replace(DOWN, request_id=None), 3, 3, math.inf),
    EndpointRecovered("main", 2),
    *twice(Unexpected(Component.ATTEMPT, "bookings", "KeyError", ("rotator.py:1 in attempt",))),
    *(Unexpected(component, "x", "KeyError", ("daemon.py:1 in reload",)) for component in Component),
    LoggedIn("main", "token", None, math.inf),
    *four_times(FAILED_LOGIN),
    *four_times(replace(FAILED_LOGIN, vault="second")),
    *four_times(REFUSED_LOGIN),
    replace(REFUSED_LOGIN, vault="third"),
    LoggedIn("main", "approle", START.timestamp(), 0.0),
    Renewed("main", START.timestamp()),
    Renewed("main", None),
    RenewalFailed("main", Reason.TIMEOUT, "vault main: no", START.timestamp()),
    RenewalFailed("main", Reason.TIMEOUT, "vault main: no", None),
]


def configured(level: str = "debug", style: str = "json") -> io.StringIO:
    """Sets logging up as in a new process: pytest's own handlers stand aside."""
    logging.getLogger().handlers.clear()
    stream = io.StringIO()
    log.configure(level, style, stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class Log:
    """An EventLog on a clock moved by hand, and the lines that it wrote, without their times."""

    def __init__(self, level: str = "debug", style: str = "json") -> None:
        self.clock = FakeClock()
        self.clock.offset = START.timestamp() - self.clock.now
        self.stream = configured(level, style)
        self.log = EventLog(self.clock.wall, self.clock.monotonic)

    def tell(self, *events: Event | LoginEvent) -> list[dict[str, Any]]:
        """The lines that these events make."""
        before = len(self.stream.getvalue())
        for event in events:
            if isinstance(event, LoggedIn | LoginFailed | Renewed | RenewalFailed):
                self.log.observe_login(event)
            else:
                self.log.observe(event)
        written = [json.loads(line) for line in self.stream.getvalue()[before:].splitlines()]
        return [{key: value for key, value in line.items() if key != "timestamp"} for line in written]


def told(*events: Event | LoginEvent, level: str = "debug") -> list[dict[str, Any]]:
    """The lines that these events make, without their times."""
    return Log(level).tell(*events)


def briefly(lines: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """Level and event of each line."""
    return [(line["level"], line["event"]) for line in lines]
