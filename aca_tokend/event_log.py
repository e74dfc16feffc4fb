"""How what happens becomes lines: rotations, log-ins to Vaults, endpoints. docs/logs.md has every event.

A failure that repeats is summed up: core/repeats.py says which are worth a WARNING; all are told at DEBUG. What must
never be left out is not asked for there: a token that is suspended, one that has expired. A bug has an ERROR a minute
for each place in the code. Nothing here may raise into a rotation.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

import structlog

from aca_tokend.core.demand import TOO_SLOW
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
    Noticed,
    Published,
    PublishResult,
    Reason,
    Resumed,
    Rotated,
    Skipped,
    Suspended,
    TokenEvent,
    Unexpected,
)
from aca_tokend.core.repeats import Repeat, Repeats
from aca_tokend.core.token import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from aca_tokend.core.demand import Load
    from aca_tokend.core.token import Document

# A hook may have run for thousands of tokens: so many are named.
NAMED = 20
# Ten thousand tokens may meet the same bug: one place in the code has an ERROR this often.
SAME_BUG_SECONDS = 60.0


class EventLog:
    """Logs events: one INFO line for each rotation that succeeded. Every method may be called from several threads."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._log = structlog.get_logger("aca_tokend")
        self._repeats = Repeats()
        self._bugs: dict[tuple[str, ...], float] = {}  # when each was last an ERROR
        self._counting = threading.Lock()  # held for each look into these two

    def observe(self, event: Event) -> None:
        """Logs one event."""
        match event:
            case Published():
                self._published(event)
            case HookRan():
                self._hook_ran(event)
            case EndpointDown() | EndpointRecovered():
                self._endpoint(event)
            case Unexpected():
                self._unexpected(event)
            case _:
                self._token(event)

    def _token(self, event: TokenEvent) -> None:
        match event:
            case Rotated():
                self._log.info(
                    "token_rotated",
                    token=event.token,
                    **_life(event.document),
                    duration_seconds=_rounded(event.duration_seconds),
                    sinks=event.sinks,
                    **_known(request_id=event.request_id),
                    **self._over(event.token),
                )
            case Adopted():
                life = _life(event.document)
                over = self._over(event.token)
                self._log.info("token_adopted", token=event.token, **life, sink=event.sink, **over)
            case Failed():
                self._failed(event)
            case Suspended():
                self._log.error(
                    "token_suspended",
                    token=event.token,
                    **_failure(event.failure),
                    **_known(expires_at=event.expires_at),
                )
            case Expired():
                self._log.error(
                    "token_expired",
                    token=event.token,
                    sinks=event.sinks,
                    expires_at=event.expires_at,
                    **(_failure(event.failure) if event.failure else {}),
                    **_known(why=event.waits_for or None),
                )
            case Resumed():
                self._log.info("token_resumed", token=event.token, why=event.why)
            case Skipped():
                self._skipped(event)
            case Noticed():
                self._log.warning("token_noticed", token=event.token, what=event.what)
            case Granted():
                self._log.debug(
                    "grant_answered",
                    token=event.token,
                    endpoint=event.endpoint,
                    code=event.code,
                    duration_seconds=_rounded(event.duration_seconds),
                    **_known(skew_seconds=event.skew_seconds, request_id=event.request_id),
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
                keys = {"vault": event.vault, "method": event.method, **_known(expires_at=moment(event.expires_at))}
                self._log.info("vault_logged_in", **keys, **self._over(of_vault(event.vault)))
            case LoginFailed():
                self._login_failed(event)
            case Renewed():
                life = _known(expires_at=moment(event.expires_at))
                self._log.debug("vault_token_renewed", vault=event.vault, **life)
            case RenewalFailed():
                self._log.warning(
                    "vault_token_not_renewed",
                    vault=event.vault,
                    reason=event.reason.value,
                    message=event.message,
                    advice=ADVICE[event.reason],
                    **_known(expires_at=moment(event.expires_at)),
                )

    def forget(self, owner: str) -> None:
        """A token, `vault` or `endpoint` became another: whatever fails next is news."""
        with self._counting:
            self._repeats.forget(owner)

    def keep(self, owners: Collection[str]) -> None:
        """The configuration has these tokens, `vault`s, `endpoint`s and hooks by now."""
        with self._counting:
            self._repeats.keep(owners)

    # ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _failed(self, event: Failed) -> None:
        keys = {
            "token": event.token,
            **_failure(event.failure),
            "attempt": event.attempt,
            **_known(next_attempt_at=self._after(event.next_attempt_seconds), expires_at=event.expires_at),
        }
        self._again("rotation_failed", event.token, keys)

    def _skipped(self, event: Skipped) -> None:
        times = _known(next_attempt_at=self._after(event.next_attempt_seconds), expires_at=event.expires_at)
        keys = {"token": event.token, "why": event.why, **times}
        if event.why == "endpoint_held":
            with self._counting:
                news = self._repeats.held_up(event.token, self._monotonic())
            tell = self._log.warning if news else self._log.debug
            tell("rotation_skipped", **keys)
        else:
            # the server that hands out its token again has done its work
            over = self._over(event.token) if event.why == "token_reused" else {}
            self._log.debug("rotation_skipped", **keys, **over)

    def _published(self, event: Published) -> None:
        place = {"token": event.token, "sink": event.sink, "kind": event.kind}
        if event.failure is not None:
            self._again("publish_failed", event.token, {**place, **_failure(event.failure)}, part=event.sink)
            return
        over = self._over(event.token, event.sink)
        if event.recovered:
            self._log.info("publish_recovered", **place, **over)
        match event.result:
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
            next_at = _known(next_attempt_at=self._after(event.next_attempt_seconds))
            keys = {**whose, **_failure(event.failure), "attempt": event.attempt, **next_at, **said}
            self._again("hook_failed", event.place, keys)
            return
        over = self._over(event.place)
        if event.recovered:
            self._log.info("hook_recovered", **whose, **over)
        self._log.debug("hook_ran", **whose, duration_seconds=_rounded(event.duration_seconds), **said)

    def _endpoint(self, event: EndpointDown | EndpointRecovered) -> None:
        whose = {"endpoint": event.endpoint, "waiting": event.waiting}
        if isinstance(event, EndpointRecovered):
            over = self._over(of_endpoint(event.endpoint))
            if over:  # of two answers at once the first has told
                self._log.info("endpoint_recovered", **whose, **over)
            return
        expires_at = _known(expires_at=self._after(event.expires_seconds))
        keys = {**whose, "expired": event.expired, **expires_at, **_failure(event.failure)}
        self._again("endpoint_down", of_endpoint(event.endpoint), keys)

    def _unexpected(self, event: Unexpected) -> None:
        place, now = (event.component, event.kind, *event.trace), self._monotonic()
        with self._counting:
            news = now >= self._bugs.get(place, -math.inf) + SAME_BUG_SECONDS
            if news:
                self._bugs[place] = now
        loud = self._log.error if event.reason is Reason.INTERNAL_ERROR else self._log.warning
        tell = loud if news else self._log.debug
        tell(
            event.reason.value,
            component=event.component.value,
            **{_OWNERS[event.component]: event.owner},
            error_type=event.kind,
            trace=event.trace,
            advice=ADVICE[event.reason],
        )

    def _login_failed(self, event: LoginFailed) -> None:
        keys = {
            "vault": event.vault,
            "method": event.method,
            "reason": event.reason.value,
            "message": event.message,
            "advice": ADVICE[event.reason],
            **_known(next_attempt_at=self._after(event.next_seconds)),
        }
        if event.suspended:
            self._counted("vault_login_suspended", of_vault(event.vault), keys)
            self._log.error("vault_login_suspended", **keys)
        else:
            self._again("vault_login_failed", of_vault(event.vault), keys)

    def _again(self, name: str, owner: str, keys: dict[str, Any], *, part: str = "") -> None:
        """Logs a failure, as a WARNING where that is worth it."""
        repeat = self._counted(name, owner, keys, part=part)
        if repeat.worth_a_line:
            self._log.warning(name, **keys, **_known(left_out=repeat.left_out or None))
        else:
            self._log.debug(name, **keys)

    def _counted(self, name: str, owner: str, keys: dict[str, Any], *, part: str = "") -> Repeat:
        """Counts a failure. What is known of those before it joins its keys."""
        cause = (name, keys.get("step", ""), keys["reason"])
        with self._counting:
            repeat = self._repeats.failed(owner, part, cause, self._monotonic())
        keys.setdefault("attempt", repeat.attempt)
        if repeat.attempt > 1:
            keys["failing_since"] = self._after(-repeat.failing_seconds)
        if repeat.alike > 1:
            keys["alike"] = repeat.alike
        return repeat

    def _over(self, owner: str, part: str = "") -> dict[str, Any]:
        """Ends a run of failures: how many they were, and for how long; nothing where there were none."""
        with self._counting:
            ended = self._repeats.succeeded(owner, part, self._monotonic())
        if ended is None:
            return {}
        return {"failures": ended.failures, "failing_seconds": _rounded(ended.failing_seconds)}

    def _after(self, seconds: float) -> datetime | None:
        """The wall time in so many seconds; None for never."""
        return moment(self._wall() + seconds)


# The key that names what met a bug.
_OWNERS = {
    Component.ATTEMPT: "token",
    Component.VAULT: "vault",
    Component.HOOK: "hook",
    Component.PAGE: "page",
    Component.RELOAD: "what",
}

# Beside tokens, what fails under a name of its own. No token has a name with a space in it.


def of_vault(name: str) -> str:
    """The owner of what fails of a Vault."""
    return f"vault {name}"


def of_endpoint(name: str) -> str:
    """The owner of what fails of an endpoint."""
    return f"endpoint {name}"


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


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
