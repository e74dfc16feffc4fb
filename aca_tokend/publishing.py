"""The steps look and publish: what the sinks hold, which token of ours is the latest, and bringing it to them all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aca_tokend.core.errors import InternalError, contained
from aca_tokend.core.outcome import Adopted, Component, Event, Failure, Published, PublishResult, Reason, Step
from aca_tokend.core.policy import Life, plan, retry_delay
from aca_tokend.core.steps import Call, Calls
from aca_tokend.core.token import Document, Seen
from aca_tokend.hooking import ask

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.errors import ReasonedError
    from aca_tokend.core.ports import Clock
    from aca_tokend.state import SinkState, TokenState

# A publish that meets another writer looks again and decides anew, this many times before it counts as failed.
PUBLISH_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Wrote:
    """A publish that was written: what the sink holds now, and how long it took."""

    seen: Seen
    seconds: float


@dataclass(frozen=True, slots=True)
class Publisher:
    """Looks at sinks, adopts and publishes. There is no other path to a sink. `wake` brings a hook's run forward."""

    clock: Clock
    rng: random.Random
    observe: Callable[[Event], None]
    wake: Callable[[Wake], None]

    async def look(self, state: TokenState) -> Failure | None:
        """Reads what is published and adopts the latest token of ours. A failure if there is no sink to serve."""
        await self._look_at(state, state.sinks)
        self._adopt(state)
        if any(sink.seen and not sink.failure for sink in state.sinks):
            return None
        # Nothing can be served. Where a sink could not be read and we hold a token, we know when it must be replaced,
        # and a grant now may be the last to be had before it expires. Without one, what is published may still be good,
        # and a grant would be a waste.
        if state.document is not None and any(sink.seen is None for sink in state.sinks):
            return None
        return next(sink.failure for sink in state.sinks if sink.failure)

    async def _look_at(self, state: TokenState, sinks: Sequence[SinkState]) -> None:
        moment = self.clock.monotonic()
        results = await Calls([Call(sink.sink.pool, sink.sink.look, state.urgency) for sink in sinks])
        now = self.clock.monotonic()
        for sink, result in zip(sinks, results, strict=True):
            if isinstance(result, Seen):
                _saw(sink, result, moment, state.account)
                if sink.appeared is None or sink.appeared[0] != hash(result.document):
                    sink.appeared = (hash(result.document), now)
            else:
                sink.seen = None
                sink.failure = self._failure(state, result, Step.LOOK, sink)

    def _adopt(self, state: TokenState) -> None:
        """Takes over the latest token of ours that is published, if it is later than the one we hold."""
        now = datetime.fromtimestamp(self.clock.wall(), UTC)
        latest: SinkState | None = None
        for sink in state.sinks:
            found, best = sink.published, latest.published if latest else state.document
            if found is None or not found.valid_at(now) or not found.plausible_at(now):
                continue
            if best is None or found.issued_after(best):
                latest = sink
        if latest is None or latest.published is None:
            return
        state.document = latest.published
        state.life = self._life_of(state, latest.published)
        state.rotate_at = state.life.rotate
        state.ledger.proven = ""  # somebody else's credential was proven by it, not ours
        state.dead = False
        if state.config.verify is not None and state.config.verify.every:
            state.canary_at = self.clock.monotonic()
        if not state.due(self.clock.monotonic()):
            state.failures, state.failure = 0, None  # a suspended token stays so: its own credential is still refused
            self.observe(Adopted(state.name, latest.published, latest.sink.name))

    def redraw(self, state: TokenState) -> None:
        """After the wall clock was stepped: an adopted token has wall times alone, and the sooner reckoning counts."""
        if state.document is None or state.life is None or state.document is state.granted:
            return
        life = self._life_of(state, state.document)
        if life.expires < state.life.expires:
            state.life, state.rotate_at = life, min(state.rotate_at, life.rotate)

    def _life_of(self, state: TokenState, document: Document) -> Life:
        """The life of a token that another run or replica was granted: all we have of it is wall time.

        Its clock may have been wrong, but it was not issued after we first saw it.
        """
        issued = self.clock.monotonic() - (self.clock.wall() - document.issued_at.timestamp())
        sightings = [sink.appeared[1] for sink in state.sinks if sink.appeared and sink.appeared[0] == hash(document)]
        issued = min(issued, *sightings) if sightings else issued
        lifetime = (document.expires_at - document.issued_at).total_seconds()
        return plan(issued, lifetime, state.config.rotation, state.draw)

    async def catch_up(self, state: TokenState) -> None:
        """Tries the sinks that failed again, alone: no grant is made for them."""
        failed = [sink for sink in state.sinks if sink.failure]
        await self.publish(state, await self._look_again(state, failed))

    async def publish(self, state: TokenState, sinks: Sequence[SinkState]) -> None:
        """Brings the token we hold to these sinks, and to all of them where a later one turns up meanwhile."""
        ours = state.document
        for rounds_left in reversed(range(PUBLISH_ROUNDS)):
            conflicts = await self._write(state, sinks, ours)
            if not conflicts or not rounds_left:
                break
            sinks = await self._look_again(state, conflicts)
        ask(state, self.clock.monotonic(), self.wake)
        failed = [sink for sink in state.sinks if sink.failure]
        for sink in failed:
            sink.told = sink.failure
            self._tell(state, sink, PublishResult.FAILED)
        if failed and state.document is not None:
            state.publish_failures += 1
            state.publish_at = self.clock.monotonic() + self._delay(state)
        else:
            state.publish_failures = 0
            state.publish_at = None

    async def _look_again(self, state: TokenState, sinks: Sequence[SinkState]) -> Sequence[SinkState]:
        """Reads these sinks anew and says which must be written: these, or all if a later token of ours was found."""
        held = state.document
        await self._look_at(state, sinks)
        self._adopt(state)
        return sinks if state.document is held else state.sinks

    async def _write(self, state: TokenState, sinks: Sequence[SinkState], ours: Document | None) -> list[SinkState]:
        """Writes side by side. Returns the sinks that someone else wrote meanwhile, to be read again."""
        document = state.document
        if document is None or state.life is None or state.life.expires <= self.clock.monotonic():
            return []
        behind: list[SinkState] = []
        for sink in sinks:
            if sink.seen is None or sink.failure:
                continue
            if sink.published == document and not sink.seen.outdated:
                self._settle(state, sink, PublishResult.UNCHANGED if document is ours else PublishResult.FENCED)
            elif self._may_replace(state, sink, document):
                behind.append(sink)
            else:
                self._settle(state, sink, PublishResult.FENCED)
        results = await Calls([_publishing(sink, document, self.clock, state.urgency) for sink in behind])
        conflicts: list[SinkState] = []
        for sink, result in zip(behind, results, strict=True):
            if isinstance(result, Wrote):
                if sink.seen is not None and sink.seen.outdated:
                    sink.hooked = None  # the same token, but whoever reads it must read it anew
                sink.seen, sink.published, sink.seen_at = result.seen, document, self.clock.monotonic()
                sink.written = result.seen.stamp
                self._settle(state, sink, PublishResult.WRITTEN, result.seconds)
                continue
            sink.seen = None
            sink.failure = self._failure(state, result, Step.PUBLISH, sink)
            if sink.failure.reason is Reason.CONFLICT:
                conflicts.append(sink)
        return conflicts

    def _failure(self, state: TokenState, error: ReasonedError, step: Step, sink: SinkState) -> Failure:
        """What went wrong at one place. A bug there is told as one, and holds up no other place."""
        if isinstance(error, InternalError):
            self.observe(contained(Component.ATTEMPT, state.name, error)[1])
        return error.as_failure(step, sink.sink.name)

    def _may_replace(self, state: TokenState, sink: SinkState, document: Document) -> bool:
        """The fence: a later-issued token is never replaced by an earlier one.

        What was read before our grant was sent was issued before it, whatever the clocks say. Only what came since is
        compared by its issue time.
        """
        found = sink.published
        ours_is_later = document is state.granted and sink.seen_at <= state.granted_at
        return found is None or found == document or ours_is_later or document.issued_after(found)

    def _settle(self, state: TokenState, sink: SinkState, result: PublishResult, seconds: float = 0.0) -> None:
        sink.failure = None
        self._tell(state, sink, result, seconds)
        sink.told = None

    def _tell(self, state: TokenState, sink: SinkState, result: PublishResult, seconds: float = 0.0) -> None:
        recovered = sink.told is not None and result is not PublishResult.FAILED
        target = sink.sink
        self.observe(Published(state.name, target.name, target.kind, result, seconds, sink.failure, recovered))

    def _delay(self, state: TokenState) -> float:
        """When to try the failed sinks again: what they hold may expire long before the token that waits for them."""
        failed = [sink for sink in state.sinks if sink.failure]
        lives = [sink.published.expires_at.timestamp() - self.clock.wall() for sink in failed if sink.published]
        remaining = min((life for life in lives if life > 0), default=0.0)
        wishes = [sink.failure.retry_after_seconds for sink in failed if sink.failure]
        wish = max((seconds for seconds in wishes if seconds is not None), default=None)
        backoff = state.config.rotation.backoff
        return retry_delay(state.publish_failures, remaining, backoff, self.rng.random(), wish)


def _publishing(sink: SinkState, document: Document, clock: Clock, urgency: float) -> Call[Wrote]:
    seen = sink.seen
    assert seen is not None  # noqa: S101 -- only sinks that were read are written

    def publish() -> Wrote:
        started = clock.monotonic()
        now = sink.sink.publish(document, seen)
        return Wrote(now, clock.monotonic() - started)

    return Call(sink.sink.pool, publish, urgency, finish=True)


def _saw(sink: SinkState, seen: Seen, moment: float, account: str) -> None:
    """Takes in what a look found. Whatever is not this account's is never taken for ours."""
    ours = seen.document is not None and seen.document.account == account
    sink.seen, sink.seen_at = seen, moment
    sink.published = seen.document if ours else None
    empty = seen.document is None and seen.foreign is None
    # What we wrote ourselves is ours to replace, though its account may have changed since.
    if ours or empty or sink.sink.replace_foreign or seen.stamp == sink.written:
        sink.failure = None
        return
    why = seen.foreign or "it is the token of another account"
    message = f"{sink.sink.name} holds something this token did not write: {why}"
    sink.failure = Failure(Step.LOOK, Reason.FOREIGN_DOCUMENT, message, sink=sink.sink.name)
