"""The actions adopt and publish: taking over the latest token that is published, and bringing ours to every place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.errors import ReasonedError
from aca_tokend.core.outcome import Adopted, Event, PublishResult, Rotated, Step
from aca_tokend.core.steps import BUSY, FIRST, Call, Calls
from aca_tokend.rotation.decide import need_at
from aca_tokend.rotation.facts import Busy, Held, Wrote
from aca_tokend.rotation.look import PATIENCE_SECONDS, Looker, tell
from aca_tokend.rotation.standing import holds

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.ports import Clock, Sink
    from aca_tokend.core.token import Document, Seen
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.managed import ManagedToken, Wiring

# Times that differ by less are the same: what is published is not written again for a clock that was set by a moment.
SAME_TIME_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Written:
    """A publish that succeeded: what the place holds now, and how long it took in seconds."""

    seen: Seen
    seconds: float


@dataclass(frozen=True, slots=True)
class Publisher:
    """Adopts and publishes. There is no other path to a place."""

    clock: Clock
    observe: Callable[[Event], None]
    looker: Looker

    def adopt(self, token: ManagedToken, number: int) -> Facts:
        """Takes over the token that a place holds; our own credential is not proven by it."""
        facts, now = token.facts, self.clock.monotonic()
        place = facts.places[number]
        assert place.seen is not None and place.seen.document is not None  # noqa: PT018, S101 -- what was decided on
        document = replace(place.seen.document, token=facts.name)
        issued_at = self.issued_at(facts, place.seen.document)
        lifetime = (document.expires_at - document.issued_at).total_seconds()
        result = PublishResult.FENCED if place.conflicts else PublishResult.UNCHANGED
        tell(self.observe, token.wiring, facts, number, result)
        facts = facts.with_place(number, failures=0, conflicts=0, reported=None)._replace(
            held=Held(document, issued_at, lifetime, None, facts.config.scope, adopted_at=now),
            noted="",
            turn_at=float("inf"),
        )
        if need_at(facts) > now:
            facts = facts._replace(trouble=None, waiting=None)
            self.observe(Adopted(facts.name, document, token.wiring.sinks[number].name))
        return facts

    def issued_at(self, facts: Facts, document: Document) -> float:
        """When a token was issued that another run or replica was granted: all we have of it is wall time.

        Its clock may have been wrong, but it was not issued after we first saw it.
        """
        issued = self.clock.monotonic() - (self.clock.wall() - document.issued_at.timestamp())
        mark = hash(document)
        sightings = [it.first_seen[1] for it in facts.places if it.first_seen and it.first_seen[0] == mark]
        return min([issued, *sightings])

    def dated(self, facts: Facts) -> Facts:
        """After the wall clock was set: our own token gets the times that are right by it.

        Of an adopted one the sooner reckoning counts.
        """
        held, pending = facts.held, facts.pending
        return facts._replace(held=held and self._dated(facts, held), pending=pending and self._dated(facts, pending))

    def _dated(self, facts: Facts, held: Held) -> Held:
        if held.asked_at is None:
            seen = [it.seen.document for it in facts.places if it.seen and it.seen.document]
            as_read = next((it for it in seen if it.access_token == held.document.access_token), held.document)
            return held._replace(issued_at=min(held.issued_at, self.issued_at(facts, as_read)))
        wall = self.clock.wall() - (self.clock.monotonic() - held.issued_at)
        issued = datetime.fromtimestamp(wall, UTC)
        shift = issued - held.document.issued_at
        if abs(shift.total_seconds()) < SAME_TIME_SECONDS:
            return held
        document = held.document
        document = replace(
            document,
            issued_at=issued,
            expires_at=document.expires_at + shift,
            refresh_after=document.refresh_after + shift,
        )
        return held._replace(document=document)

    async def publish(self, token: ManagedToken, numbers: tuple[int, ...]) -> Facts:
        """Writes the token in use to these places, side by side, and returns what is known then."""
        facts, wiring = token.facts, token.wiring
        held = facts.current
        assert held is not None  # noqa: S101 -- what was decided on
        idents = [next(self.looker.numbers) for _ in numbers]
        calls = []
        for number, ident in zip(numbers, idents, strict=True):
            seen, sink = facts.places[number].seen, wiring.sinks[number]
            assert seen is not None  # noqa: S101 -- only places that were read are written
            run = _writing(sink, held.document, seen, self.clock)
            late = partial(self.looker.late, token, ident)
            calls.append(Call(sink.pool, run, FIRST, finish=True, late=late))
        results = await Calls(calls, PATIENCE_SECONDS)
        for number, ident, result in zip(numbers, idents, results, strict=True):
            if result is BUSY:
                facts = self.looker.hangs(wiring, facts, number, Busy(ident, held.document))
            else:
                facts = self.take_in(wiring, facts, number, result, held.document)
        return self.reported(wiring, facts)

    def take_in(self, wiring: Wiring, facts: Facts, number: int, result: object, document: Document) -> Facts:
        """What came of writing this document to a place."""
        if isinstance(result, ReasonedError):
            failure = result.as_failure(Step.PUBLISH, wiring.sinks[number].name)
            return self.looker.failed(wiring, facts, number, failure, result)
        written: Written = result  # type: ignore[assignment]  # what `_writing` returns
        place, now = facts.places[number], self.clock.monotonic()
        tell(self.observe, wiring, facts, number, PublishResult.WRITTEN, written.seconds)
        outdated = place.seen is not None and place.seen.outdated
        return facts.with_place(
            number,
            seen=written.seen,
            last=written.seen,
            looked_at=now,
            wrote=Wrote(written.seen.stamp, document.account, self.clock.wall()),
            hooked=None if outdated else place.hooked,  # the same token, but readers must read it anew
            failures=0,
            conflicts=0,
            trouble=None,
            reported=None,
            busy=None,
        )

    def reported(self, wiring: Wiring, facts: Facts) -> Facts:
        """Reports a rotation once its token has reached a place, even if that took several attempts."""
        held = facts.current
        if held is None or held.unreported_since is None:
            return facts
        reached = tuple(
            sink.name for sink, it in zip(wiring.sinks, facts.places, strict=True) if it.seen and holds(it, held)
        )
        if not reached:
            return facts
        seconds = self.clock.monotonic() - held.unreported_since
        self.observe(Rotated(facts.name, held.document, seconds, reached, held.request_id))
        return facts._replace(held=held._replace(unreported_since=None))


def _writing(sink: Sink, document: Document, seen: Seen, clock: Clock) -> Callable[[], Written]:
    def write() -> Written:
        started = clock.monotonic()
        return Written(sink.publish(document, seen), clock.monotonic() - started)

    return write
