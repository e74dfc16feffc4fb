"""One rotation, step by step: look ─► grant ─► verify ─► publish ─► when to come again.

`attempt` is the flow: it asks core/policy.py when, granting.py and publishing.py do the steps through the Protocols
of core/ports.py, and what happened is told as the events of core/outcome.py. Nothing here sleeps, retries, logs or
touches a socket or a file. Only one attempt of a token runs at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.errors import LookError, SecretError, contained
from aca_tokend.core.outcome import (
    Component,
    Event,
    Failed,
    Failure,
    Reason,
    Resumed,
    Rotated,
    Skipped,
    Step,
    Suspended,
)
from aca_tokend.core.policy import death_delay, retry_delay
from aca_tokend.credentials import Resolver
from aca_tokend.granting import Granter
from aca_tokend.guarding import Guard, Wait
from aca_tokend.publishing import Publisher
from aca_tokend.records import Records

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from datetime import datetime

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.ports import Clock, Secrets
    from aca_tokend.state import TokenState


# What Vault holds costs a request each time: an attempt record there is read this often while its token is suspended.
RECORD_POLL_SECONDS = 60.0
# A token that waits for its endpoint looks for a replica's token so often, however often it comes to ask.
LOOK_AGAIN_SECONDS = 10.0
# A look is still good after so long: thousands of tokens that start at once wait behind one that proves their client.
SAME_LOOK_SECONDS = 1.0
# A token that was granted in the very second of a log-out is dead too: the next is asked for in another second.
NEXT_SECOND = 1.1


@dataclass(frozen=True, slots=True)
class Rotator:
    """Rotates tokens. `observe` is told each event as it happens; `wake` brings another attempt forward."""

    clock: Clock
    secrets: Secrets
    rng: random.Random
    observe: Callable[[Event], None]
    wake: Callable[[Wake], None]
    _resolver: Resolver = field(init=False)
    _guard: Guard = field(init=False)
    _granter: Granter = field(init=False)
    _publisher: Publisher = field(init=False)

    def __post_init__(self) -> None:
        """Puts the steps together."""
        resolver, guard = Resolver(self.secrets), Guard(self.clock, Records(self.clock), self.wake)
        granter = Granter(self.clock, resolver, self.rng, self.observe, self.wake, guard)
        object.__setattr__(self, "_resolver", resolver)
        object.__setattr__(self, "_guard", guard)
        object.__setattr__(self, "_granter", granter)
        object.__setattr__(self, "_publisher", Publisher(self.clock, self.rng, self.observe, self.wake))

    async def attempt(self, state: TokenState) -> float:
        """One attempt: does what is due for this token and returns when to come again, in monotonic seconds.

        A bug ends the attempt alone: a rotation has failed, and comes again by the backoff; what is beside one comes
        again after its cap.
        """
        try:
            return await self._attempt(state)
        except Exception as error:  # noqa: BLE001 -- contained here for all attempts
            internal, event = contained(Component.ATTEMPT, state.name, error)
            self.observe(event)
            self._pass_turn(state)
            now = self.clock.monotonic()
            if not state.due(now):  # what is beside a rotation says nothing of the token in use
                return max(self._next(state), now + state.config.rotation.backoff.cap)
            self._failed(state, internal.as_failure(Step.GRANT))
            return self._next(state)

    async def _attempt(self, state: TokenState) -> float:
        if state.clock_stepped:
            state.clock_stepped = False
            self._publisher.redraw(state)
        if state.vault_is_back:
            self._try_again(state)
        if state.suspended:
            await self._resume(state)
        now = self.clock.monotonic()
        if state.due(now):
            await self._rotate(state)
        elif state.publish_at is not None and now >= state.publish_at:
            await self._publisher.catch_up(state)
            self._tell_rotated(state)
        elif state.canary_at is not None and now >= state.canary_at:
            await self._check(state)
        elif state.wake_at is not None and now >= state.wake_at:
            state.wake_at = None  # it has found a token meanwhile
            self._pass_turn(state)
        state.settled = True
        return self._next(state)

    async def _rotate(self, state: TokenState) -> None:
        """Goes look ─► grant ─► verify ─► publish. What is fresher than ours is adopted instead of a grant."""
        began = self.clock.monotonic()
        state.rotate_at = min(state.rotate_at, began)  # it may have been woken before its time
        if state.wake_at is not None and state.wake_at <= began:
            state.wake_at = None
        state.requested = False
        outcome: Failure | Wait | None = self._still_held(state, began)
        if outcome is None:
            outcome = await self._resolver.identify(state) or await self._look(state, began)
        granted = False
        if outcome is None and state.due(self.clock.monotonic()):
            outcome = await self._obtain(state)
            granted = outcome is None
        state.waits_for = outcome.why if isinstance(outcome, Wait) else ""
        if not state.requested and state.waits_for != "endpoint_held":
            self._pass_turn(state)
        if isinstance(outcome, Wait):
            state.rotate_at = self.clock.monotonic() + outcome.seconds
            self.observe(Skipped(state.name, outcome.why, outcome.seconds, _expires_at(state)))
        elif outcome is not None:
            self._failed(state, outcome)
            if outcome.step is Step.LOOK:
                return
        if granted:
            state.rotating_since = began
        await self._publisher.publish(state, state.sinks)
        self._tell_rotated(state)
        if granted and state.rotating_since is not None:
            self._undelivered(state)

    async def _look(self, state: TokenState, now: float) -> Failure | None:
        """Looks, unless this token has just looked and then waited for another to prove their client."""
        looked_at = min(sink.seen_at if sink.seen else -math.inf for sink in state.sinks)
        if state.waits_for == "client_unproven" and now < looked_at + SAME_LOOK_SECONDS:
            return None
        return await self._publisher.look(state)

    def _try_again(self, state: TokenState) -> None:
        """A Vault that failed can be logged in to again: what failed is due now."""
        state.vault_is_back, now = False, self.clock.monotonic()
        if state.publish_at is not None:
            state.publish_at = min(state.publish_at, now)
        elif state.failing:
            state.rotate_at = min(state.rotate_at, now)

    def _still_held(self, state: TokenState, now: float) -> Wait | None:
        """Spares the sinks a look each time that a token comes back only to find its endpoint still down."""
        looked_at = max(sink.seen_at for sink in state.sinks)
        if state.waits_for == "endpoint_held" and now < looked_at + LOOK_AGAIN_SECONDS:
            return self._granter.held(state)
        return None

    async def _obtain(self, state: TokenState) -> Failure | Wait | None:
        """Gets a new token: one that was granted before and could not be tried, or a grant."""
        if state.suspended:
            return Wait("suspended", state.config.rotation.backoff.cap)
        minted = state.candidate
        if minted is not None and minted.life.rotate > self.clock.monotonic():
            return await self._granter.verify(state, minted)
        return await self._granter.grant(state)

    async def _check(self, state: TokenState) -> None:
        """The canary: tries the token in use. One that died before its time is replaced, though not in a storm."""
        death = await self._granter.death(state)
        if death is None:
            return
        now, rotation = self.clock.monotonic(), state.config.rotation
        state.deaths += 1
        state.dead, state.canary_at = True, None
        soonest = max(now + death_delay(state.deaths, rotation), state.granted_at + rotation.min_interval)
        if not state.failures:  # else the next attempt is set already, and no sooner than the last failure allows
            state.rotate_at = min(state.rotate_at, soonest)
        message = f"acaengine.{state.endpoint.name}: the token in use is refused before its time"
        failure = Failure(Step.VERIFY, Reason.TOKEN_REFUSED, message, request_id=death.request_id)
        self.observe(Failed(state.name, failure, state.deaths, state.rotate_at - now, _expires_at(state)))

    def _pass_turn(self, state: TokenState) -> None:
        """It asks the endpoint for nothing now: if it was its turn to probe it, another token's comes."""
        for wake in state.gate.passed(state.name, self.clock.monotonic()):
            self.wake(wake)

    def _next(self, state: TokenState) -> float:
        times = [state.rotate_at, state.wake_at, state.publish_at, state.canary_at]
        if state.suspended:
            times.append(self.clock.monotonic() + state.poll_seconds)
        return min(time for time in times if time is not None)

    async def _resume(self, state: TokenState) -> None:
        """Resumes a suspended token if something changed: its credential, its record, or an hour has passed."""
        now = self.clock.monotonic()
        in_files = {state.ledger.sink.kind, state.client.ledger.sink.kind} == {"file"}
        cautious = state.cautious_at is not None and now >= state.cautious_at
        poll_record = cautious or in_files or now >= state.polled_at + RECORD_POLL_SECONDS
        if poll_record:
            state.polled_at = now
        try:
            resolved = await self._resolver.now(state)
            if resolved.credential != state.suspended_credential:
                why = "the credential changed"
            elif not poll_record:
                return
            elif (wait := await self._guard.wait(state, resolved)) == 0.0:
                why = "one cautious attempt is due" if cautious else "the attempt record allows it again"
            else:
                state.cautious_at = None if wait is None else now + wait  # a replica may have made that attempt
                return
        except (SecretError, LookError):
            return  # told of when it was suspended; what cannot be read has not been mended yet
        state.suspended = None
        if state.needs_a_token(now):
            state.rotate_at = now
        self.observe(Resumed(state.name, why))

    def _tell_rotated(self, state: TokenState) -> None:
        """Tells of a rotation once its token has reached a sink, be it after several attempts to publish it."""
        document, began = state.document, state.rotating_since
        if document is None or began is None:
            return
        if document is not state.granted:
            state.rotating_since = None  # a later one of a replica's was adopted meanwhile
            return
        reached = tuple(sink.sink.name for sink in state.sinks if sink.published == document)
        if reached:
            state.rotating_since = None
            self.observe(Rotated(state.name, document, self.clock.monotonic() - began, reached, state.request_id))

    def _undelivered(self, state: TokenState) -> None:
        """A token was granted and has reached no sink: that is a failed rotation, though only publishing is left."""
        failure = next((sink.failure for sink in state.sinks if sink.failure), None)
        if failure is not None:
            wait = self._next(state) - self.clock.monotonic()
            self.observe(Failed(state.name, failure, state.publish_failures, wait, _expires_at(state)))

    def _failed(self, state: TokenState, failure: Failure) -> None:
        """Counts a failure, sets the time of the next attempt, and suspends the token where another could lock it."""
        now = self.clock.monotonic()
        state.failures += 1
        state.failure = failure
        delay = self._delay(state, failure)
        state.rotate_at = now + delay
        if failure.suspends:
            state.suspended, state.polled_at = failure, now
            delay = math.inf if state.cautious_at is None else state.cautious_at - now
        self.observe(Failed(state.name, failure, state.failures, delay, _expires_at(state)))
        if failure.suspends:
            self.observe(Suspended(state.name, failure, _expires_at(state)))

    def _delay(self, state: TokenState, failure: Failure) -> float:
        remaining = state.life.expires - self.clock.monotonic() if state.life else 0.0
        rotation = state.config.rotation
        wish = failure.retry_after_seconds
        delay = retry_delay(state.failures, remaining, rotation.backoff, self.rng.random(), wish)
        if failure.reason is Reason.TOKEN_REFUSED:
            delay = max(delay, NEXT_SECOND if state.failures == 1 else rotation.min_interval)
        return delay


def _expires_at(state: TokenState) -> datetime | None:
    """Until when readers are safe, as far as is known."""
    return state.document.expires_at if state.document else None
