"""How the daemon logs: structlog for our lines, the same renderer for the lines of libraries, and rotations as events.

One line per event, JSON or for people. A line that cannot be written is dropped: logging never raises into a rotation.
No line shows a secret: `Secret` renders as `<secret>`, so does whatever stands under the name of one, and tracebacks
carry no local variables. docs/logs.md has every event.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from aca_tokend.core.login import LoggedIn, LoginEvent, LoginFailed, RenewalFailed, Renewed
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
    Resumed,
    Rotated,
    Skipped,
    Suspended,
)
from aca_tokend.core.secret import HIDDEN, Secret
from aca_tokend.core.token import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from structlog.typing import EventDict, Processor, WrappedLogger

    from aca_tokend.core.demand import Load
    from aca_tokend.core.token import Document

# A hook may have run for thousands of tokens: so many are named.
NAMED = 20

# These say at INFO and DEBUG what they send, or what we say ourselves; neither belongs in our log.
CAPPED = ("apscheduler", "httpcore", "httpx", "hvac", "requests", "urllib3", "watchfiles")

TOO_SLOW = (
    "tokens are rotated later and later; raise max_concurrency if the server can take it, or ask its operator for a"
    " faster one or for tokens that live longer"
)

SECRET_NAMES = frozenset(
    {
        "access_token",
        "authorization",
        "client_secret",
        "client_token",
        "password",
        "refresh_token",
        "secret_id",
        "token_value",
    }
)


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Sets logging up for the whole process; calling it again replaces what was set up before.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `json`, `console`, or `auto`: `console` on a terminal and `json` elsewhere.
        stream: where lines go; standard error unless told.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Handler):
            root.removeHandler(handler)
    target = stream or sys.stderr
    if target is not None:  # None where the process was started with standard error closed
        root.addHandler(_Handler(target, style))
    set_level(level)
    logging.captureWarnings(capture=True)


def set_level(level: str) -> None:
    """Changes which lines are written, from now on."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(threshold)
    for name in CAPPED:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


class _Handler(logging.StreamHandler["TextIO"]):
    """Writes lines; the handler's own lock keeps them whole."""

    def __init__(self, stream: TextIO, style: str) -> None:
        super().__init__(stream)
        terminal = _is_terminal(stream)
        console = style == "console" or (style == "auto" and terminal)
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
                processors=[_arrange, *(_for_people(colors=terminal) if console else _for_machines())],
            )
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the name is the library's
        """Drops a line that cannot be written; says so where it was the rendering that failed."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            return
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            line = {"level": "error", "event": "log_line_lost", "logger": record.name, "error": type(error).__name__}
            self.stream.write(json.dumps(line) + self.terminator)
            self.flush()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _for_machines() -> list[Processor]:
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(tracebacks),
        _redact,
        structlog.processors.JSONRenderer(default=str),
    ]


def _for_people(*, colors: bool) -> list[Processor]:
    # Its default for exceptions is Rich's traceback, which shows local variables.
    plain = structlog.dev.plain_traceback
    return [_redact, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, sort_keys=False)]


def _arrange(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Puts time, level and event first."""
    record: logging.LogRecord = event.pop("_record")
    del event["_from_structlog"]
    moment = rfc3339(datetime.fromtimestamp(record.created, UTC))
    return {"timestamp": moment, "level": event.pop("level"), "event": event.pop("event"), **event}


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The last defence: hides what is a secret or is called like one. Makes times readable on its way."""
    return {key: value if key == "exc_info" else _shown(key, value) for key, value in event.items()}


def _shown(key: object, value: object) -> object:
    if isinstance(value, Secret) or (isinstance(key, str) and key.lower() in SECRET_NAMES):
        return HIDDEN
    if isinstance(value, datetime):
        return rfc3339(value) if value.tzinfo else value.isoformat()
    if isinstance(value, dict):
        return {str(name): _shown(name, inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_shown(None, inner) for inner in value]
    return value


class EventLog:
    """Logs the events of rotations: one INFO line for each rotation that succeeded."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._log = structlog.get_logger("aca_tokend")

    def observe(self, event: Event) -> None:
        """Logs one event."""
        match event:
            case Rotated():
                self._log.info(
                    "token_rotated",
                    token=event.token,
                    **_life(event.document),
                    duration_seconds=_rounded(event.duration_seconds),
                    sinks=event.sinks,
                    **_known(request_id=event.request_id),
                )
            case Adopted():
                self._log.info("token_adopted", token=event.token, **_life(event.document), sink=event.sink)
            case Failed():
                self._log.warning(
                    "rotation_failed",
                    token=event.token,
                    **_failure(event.failure),
                    attempt=event.attempt,
                    **_known(
                        next_attempt_at=self._after(event.next_attempt_seconds),
                        expires_at=event.expires_at,
                    ),
                )
            case Suspended():
                self._log.error(
                    "token_suspended",
                    token=event.token,
                    **_failure(event.failure),
                    **_known(expires_at=event.expires_at),
                )
            case Resumed():
                self._log.info("token_resumed", token=event.token, why=event.why)
            case Skipped():
                self._log.debug("rotation_skipped", token=event.token, why=event.why)
            case Noticed():
                self._log.warning("token_noticed", token=event.token, what=event.what)
            case Published() | HookRan():
                self._delivered(event)
            case Granted():
                self._log.debug(
                    "grant_answered",
                    token=event.token,
                    endpoint=event.endpoint,
                    code=event.code,
                    duration_seconds=_rounded(event.duration_seconds),
                    **_known(skew_seconds=event.skew_seconds),
                )

    def observe_demand(self, endpoint: str, load: Load) -> None:
        """Logs that an endpoint falls behind, or keeps up again, with the arithmetic."""
        keys = {
            "endpoint": endpoint,
            "due_per_second": round(load.due_per_second, 3),
            "given_per_second": round(load.given_per_second, 3),
            "seconds_each": round(load.seconds_each, 3),
            "at_once": load.at_once,
        }
        if load.too_slow:
            self._log.warning("endpoint_too_slow", **keys, advice=TOO_SLOW)
        else:
            self._log.info("endpoint_keeps_up", **keys)

    def observe_login(self, event: LoginEvent) -> None:
        """Logs what happened to our token in a Vault."""
        match event:
            case LoggedIn():
                life = _known(expires_at=_moment(event.expires_at))
                self._log.info("vault_logged_in", vault=event.vault, method=event.method, **life)
            case LoginFailed():
                self._login_failed(event)
            case Renewed():
                life = _known(expires_at=_moment(event.expires_at))
                self._log.debug("vault_token_renewed", vault=event.vault, **life)
            case RenewalFailed():
                self._log.warning(
                    "vault_token_not_renewed",
                    vault=event.vault,
                    reason=event.reason.value,
                    message=event.message,
                    advice=ADVICE[event.reason],
                    **_known(expires_at=_moment(event.expires_at)),
                )

    def _login_failed(self, event: LoginFailed) -> None:
        """Tells it once, however long it goes on: the next that fails just so is worth nobody's attention."""
        place = {"vault": event.vault, "method": event.method}
        why = {"reason": event.reason.value, "message": event.message, "advice": ADVICE[event.reason]}
        again = _known(next_attempt_at=self._after(event.next_seconds))
        if event.suspended:
            self._log.error("vault_login_suspended", **place, **why, **again)
        elif event.repeated:
            self._log.debug("vault_login_still_failing", **place, **why, **again)
        else:
            self._log.warning("vault_login_failed", **place, **why, **again)

    def _delivered(self, event: Published | HookRan) -> None:
        """What became of a token on the way to its readers."""
        if isinstance(event, Published):
            self._published(event)
        else:
            self._hook_ran(event)

    def _published(self, event: Published) -> None:
        place = {"token": event.token, "sink": event.sink, "kind": event.kind}
        if event.recovered:
            self._log.info("publish_recovered", **place)
        match event.result:
            case PublishResult.FAILED:
                why = _failure(event.failure) if event.failure else {}
                self._log.warning("publish_failed", **(why | place))
            case PublishResult.FENCED:
                self._log.warning("publish_fenced", **place)
            case PublishResult.UNCHANGED:
                self._log.debug("publish_unchanged", **place)
            case PublishResult.WRITTEN:
                self._log.debug("publish_written", **place, duration_seconds=_rounded(event.duration_seconds))

    def _hook_ran(self, event: HookRan) -> None:
        more = len(event.tokens) - NAMED
        whose = {"hook": event.hook, "tokens": event.tokens[:NAMED], **_known(more=more if more > 0 else None)}
        said = _known(output=event.output or None)
        if event.failure is not None:
            next_at = self._after(event.next_attempt_seconds)
            again = {"attempt": event.attempt, **_known(next_attempt_at=next_at)}
            self._log.warning("hook_failed", **whose, **_failure(event.failure), **again, **said)
            return
        if event.recovered:
            self._log.info("hook_recovered", **whose)
        self._log.debug("hook_ran", **whose, duration_seconds=_rounded(event.duration_seconds), **said)

    def _after(self, seconds: float) -> datetime | None:
        """The wall time in so many seconds; None for never."""
        return datetime.fromtimestamp(self._wall() + seconds, UTC) if math.isfinite(seconds) else None


def _life(document: Document) -> dict[str, Any]:
    return {
        "issued_at": document.issued_at,
        "expires_at": document.expires_at,
        "refresh_after": document.refresh_after,
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "step": failure.step.value,
        "reason": failure.reason.value,
        "message": failure.message,
        "advice": ADVICE[failure.reason],
        **_known(sink=failure.sink, request_id=failure.request_id),
    }


def _known(**keys: object) -> dict[str, Any]:
    """Leaves out what is not known."""
    return {key: value for key, value in keys.items() if value is not None}


def _moment(seconds: float | None) -> datetime | None:
    """A wall time; None for never."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
