"""One rotation, step by step: look ─► grant ─► verify ─► publish ─► when to come again.

`attempt` is the flow: it asks core/policy.py when, granting.py and publishing.py do the steps through the Protocols
of core/ports.py, and what happened is told as the events of core/outcome.py. Nothing here sleeps, retries, logs or
touches a socket or a file. Only one attempt of a token runs at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.errors import SecretError
from aca_tokend.core.outcome import Event, Failed, Failure, Resumed, Rotated, Step, Suspended
from aca_tokend.core.policy import retry_delay
from aca_tokend.granting import Granter
from aca_tokend.publishing import Publisher

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from datetime import datetime

    from aca_tokend.core.ports import Clock, Secrets
    from aca_tokend.state import TokenState


@dataclass(frozen=True, slots=True)
class Rotator:
    """Rotates tokens. `observe` is told each event as it happens."""

    clock: Clock
    secrets: Secrets
    rng: random.Random
    observe: Callable[[Event], None]
    _granter: Granter = field(init=False)
    _publisher: Publisher = field(init=False)

    def __post_init__(self) -> None:
        """Puts the steps together."""
        object.__setattr__(self, "_granter", Granter(self.clock, self.secrets, self.observe))
        object.__setattr__(self, "_publisher", Publisher(self.clock, self.rng, self.observe))

    async def attempt(self, state: TokenState) -> float:
        """One attempt: does what is due for this token and returns when to come again, in monotonic seconds."""
        if state.suspended:
            await self._resume(state)
        if state.due(self.clock.monotonic()):
            await self._rotate(state)
        elif state.publish_at is not None and self.clock.monotonic() >= state.publish_at:
            await self._publisher.catch_up(state)
            self._tell_rotated(state)
        state.settled = True
        return self._next(state)

    async def _rotate(self, state: TokenState) -> None:
        """Goes look ─► grant ─► verify ─► publish. What is fresher than ours is adopted instead of a grant."""
        began = self.clock.monotonic()
        granted = False
        failure = await self._granter.identify(state) or await self._publisher.look(state)
        if not failure and state.due(self.clock.monotonic()):
            if state.suspended:
                state.rotate_at = self.clock.monotonic() + state.config.rotation.backoff.cap
            else:
                failure = await self._granter.grant(state)
                granted = failure is None
        if failure:
            self._failed(state, failure)
            if failure.step is Step.LOOK:
                return
        if granted:
            state.rotating_since = began
        await self._publisher.publish(state, state.sinks)
        self._tell_rotated(state)
        if granted and state.rotating_since is not None:
            self._undelivered(state)

    def _next(self, state: TokenState) -> float:
        times = [state.rotate_at]
        if state.suspended:
            times.append(self.clock.monotonic() + state.poll_seconds)
        if state.publish_at is not None:
            times.append(state.publish_at)
        return min(times)

    async def _resume(self, state: TokenState) -> None:
        """Resumes a suspended token if its credential changed, or for the one cautious attempt that is due."""
        now = self.clock.monotonic()
        try:
            credential = await self._granter.credential(state)
        except SecretError:
            return  # told of when it was suspended; what cannot be read has not been mended yet
        if credential != state.rejected_credential:
            state.rejections = 0
            why = "the credential changed"
        elif state.cautious_at is not None and now >= state.cautious_at:
            state.rejections = state.config.rotation.max_rejections - 1
            why = "one cautious attempt is due"
        else:
            return
        state.suspended = None
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
        rotation, now = state.config.rotation, self.clock.monotonic()
        state.failures += 1
        state.failure = failure
        delay = self._delay(state, failure)
        state.rotate_at = now + delay
        suspends = failure.rejected and state.rejections >= rotation.max_rejections
        if suspends:
            wait = rotation.retry_rejected
            state.suspended = failure
            state.cautious_at = now + wait if wait else None
            delay = wait or math.inf
        self.observe(Failed(state.name, failure, state.failures, delay, _expires_at(state)))
        if suspends:
            self.observe(Suspended(state.name, failure, _expires_at(state)))

    def _delay(self, state: TokenState, failure: Failure) -> float:
        remaining = state.life.expires - self.clock.monotonic() if state.life else 0.0
        backoff = state.config.rotation.backoff
        return retry_delay(state.failures, remaining, backoff, self.rng.random(), failure.retry_after_seconds)


def _expires_at(state: TokenState) -> datetime | None:
    """Until when readers are safe, as far as is known."""
    return state.document.expires_at if state.document else None
