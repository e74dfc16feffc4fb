"""One rotation, step by step: look ─► grant ─► verify ─► publish ─► when to come again.

`attempt` is the flow: it asks core/policy.py when, granting.py and publishing.py do the steps through the Protocols
of core/ports.py, and what happened is told as the events of core/outcome.py. Nothing here sleeps, retries, logs or
touches a socket or a file. Only one attempt of a token runs at a time.
"""

from __future__ import annotations

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

    from aca_tokend.core.ports import Clock, Secrets
    from aca_tokend.core.token import Document
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
        state.settled = True
        return self._next(state)

    async def _rotate(self, state: TokenState) -> None:
        """Goes look ─► grant ─► verify ─► publish. What is fresher than ours is adopted instead of a grant."""
        began = self.clock.monotonic()
        granted: Document | None = None
        failure = await self._granter.identify(state) or await self._publisher.look(state)
        if not failure and state.due(self.clock.monotonic()):
            if state.suspended:
                state.rotate_at = self.clock.monotonic() + state.config.rotation.backoff.cap
                return
            failure = await self._granter.grant(state)
            granted = None if failure else state.document
        if failure:
            self._failed(state, failure)
            if failure.step is Step.LOOK:
                return
        await self._publisher.publish(state)
        if granted is not None and granted is state.document:
            self._rotated(state, granted, self.clock.monotonic() - began)

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

    def _rotated(self, state: TokenState, granted: Document, seconds: float) -> None:
        reached = tuple(sink.sink.name for sink in state.sinks if sink.published == granted)
        if reached:
            self.observe(Rotated(state.name, granted, seconds, reached, state.request_id))
            return
        failure = next(sink.failure for sink in state.sinks if sink.failure)
        wait = (state.publish_at or state.rotate_at) - self.clock.monotonic()
        self.observe(Failed(state.name, failure, state.publish_failures, wait))

    def _failed(self, state: TokenState, failure: Failure) -> None:
        """Counts a failure, sets the time of the next attempt, and suspends the token where another could lock it."""
        rotation = state.config.rotation
        state.failures += 1
        state.failure = failure
        delay = self._delay(state, failure)
        state.rotate_at = self.clock.monotonic() + delay
        self.observe(Failed(state.name, failure, state.failures, delay))
        if failure.rejected and state.rejections >= rotation.max_rejections:
            state.suspended = failure
            wait = rotation.retry_rejected
            state.cautious_at = self.clock.monotonic() + wait if wait else None
            self.observe(Suspended(state.name, failure))

    def _delay(self, state: TokenState, failure: Failure) -> float:
        remaining = state.life.expires - self.clock.monotonic() if state.life else 0.0
        backoff = state.config.rotation.backoff
        return retry_delay(state.failures, remaining, backoff, self.rng.random(), failure.retry_after_seconds)
