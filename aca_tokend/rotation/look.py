"""The action look: reads places side by side, and takes in what they hold, or why they could not be read or written."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.errors import InternalError, ReasonedError, contained
from aca_tokend.core.outcome import Component, Event, Failure, Published, PublishResult, Reason, Step
from aca_tokend.core.steps import BUSY, FIRST, Call, Calls
from aca_tokend.rotation.facts import Busy, Moment, Trouble
from aca_tokend.rotation.standing import Standing, fenced, holds, readable, rival_until, standing

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

    from aca_tokend.core.ports import Clock
    from aca_tokend.core.token import Document, Seen
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.managed import ManagedToken, Wiring

    # Hands on the answer of a call at a place, by its number, for which the attempt waits no longer.
    LateAnswer = Callable[[ManagedToken, int, object], None]

# A place that takes longer than this is left to answer by a message, so that it holds up no other place.
PATIENCE_SECONDS = 2.0
# A publish that meets another writer looks again and decides anew, this many times before it counts as failed.
CONFLICTS = 3


@dataclass(frozen=True, slots=True)
class Looker:
    """Reads places. `numbers`: those of calls at places, each of which is used once."""

    clock: Clock
    rng: random.Random
    observe: Callable[[Event], None]
    late: LateAnswer
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def look(self, token: ManagedToken, numbers: tuple[int, ...]) -> Facts:
        """Reads these places, and returns what is known then."""
        facts, wiring, began = token.facts, token.wiring, self.clock.monotonic()
        for number, result in await self.call(token, {number: wiring.sinks[number].look for number in numbers}):
            facts = self.take_in(wiring, facts, number, result, began)
        return facts

    async def call(
        self, token: ManagedToken, runs: Mapping[int, Callable[[], object]], writing: Document | None = None
    ) -> list[tuple[int, object]]:
        """Makes a call at each of these places, side by side.

        One that hangs gives a `Busy`, and its answer comes as a message.
        """
        finish = writing is not None or token.facts.undelivered  # what was granted would be lost otherwise
        urgency, calls, busy = FIRST if finish else token.urgency, [], []
        for number, run in runs.items():
            busy.append(Busy(next(self.numbers), writing))
            late = partial(self.late, token, busy[-1].number)
            calls.append(Call(token.wiring.sinks[number].pool, run, urgency, finish=finish, late=late))
        results = await Calls(calls, PATIENCE_SECONDS)
        return [
            (number, it if result is BUSY else result) for number, it, result in zip(runs, busy, results, strict=True)
        ]

    def take_in(self, wiring: Wiring, facts: Facts, number: int, result: object, began: float) -> Facts:
        """What a read that `began` then tells of a place."""
        if isinstance(result, Busy):
            return self.hangs(wiring, facts, number, result)
        if isinstance(result, ReasonedError):
            return self.failed(wiring, facts, number, result.as_failure(Step.LOOK, wiring.sinks[number].name), result)
        seen: Seen = result  # type: ignore[assignment]  # what `look` returns
        place, mark = facts.places[number], hash(seen.document)
        first_seen = place.first_seen
        if first_seen is None or first_seen[0] != mark:
            first_seen = (mark, self.clock.monotonic())
        place = place._replace(seen=seen, last=seen, looked_at=began, trouble=None, busy=None, first_seen=first_seen)
        return self._report(wiring, facts.with_places({number: place}), number)

    def hangs(self, wiring: Wiring, facts: Facts, number: int, busy: Busy) -> Facts:
        """A place did not answer in time, which counts as its failure until it holds what it should."""
        sink, step = wiring.sinks[number].name, Step.LOOK if busy.writing is None else Step.PUBLISH
        failure = Failure(step, Reason.TIMEOUT, f"{sink}: no answer yet", sink=sink)
        tell(self.observe, wiring, facts, number, failure)
        return facts.with_place(number, busy=busy, trouble=None, reported=failure)

    def failed(self, wiring: Wiring, facts: Facts, number: int, failure: Failure, error: ReasonedError) -> Facts:
        """A try at a place failed. One that met another writer is repeated at once, a few times."""
        place, now = facts.places[number], self.clock.monotonic()
        if isinstance(error, InternalError):
            self.observe(contained(Component.ATTEMPT, facts.name, error)[1])
        found = readable(facts, number)
        remaining = found.expires_at.timestamp() - self.clock.wall() if found else 0.0
        place = place._replace(seen=None, looked_at=now, busy=None)
        if failure.reason is Reason.CONFLICT and place.conflicts + 1 < CONFLICTS:
            return facts.with_places({number: place._replace(conflicts=place.conflicts + 1)})
        count = place.failures + 1
        trouble = Trouble(failure, count, now, self.rng.random(), max(remaining, 0.0))
        tell(self.observe, wiring, facts, number, failure)
        return facts.with_places(
            {number: place._replace(trouble=trouble, failures=count, conflicts=0, reported=failure)}
        )

    def _report(self, wiring: Wiring, facts: Facts, number: int) -> Facts:
        """Says what keeps our token from a place that was read, or that nothing does any longer."""
        place, held = facts.places[number], facts.current
        now = self.clock.monotonic()
        moment, sink = Moment(now, self.clock.wall(), now), wiring.sinks[number].name
        if facts.identity is None or place.seen is None:
            return facts
        if held is not None and holds(place, held):
            if not place.seen.outdated:
                tell(self.observe, wiring, facts, number, PublishResult.UNCHANGED)
                facts = facts.with_place(number, failures=0, conflicts=0, reported=None)
            return facts
        what = standing(facts, number)
        if what is Standing.STRANGER:
            why = place.seen.foreign or "it is the token of another account, or was written under another name"
            message = f"{sink} holds something this token did not write: {why}"
            failure = Failure(Step.LOOK, Reason.FOREIGN_DOCUMENT, message, sink=sink)
        elif what is Standing.FORMER and rival_until(facts, place, moment) > now:
            message = f"{sink}: another daemon publishes the token of another account there under this name"
            failure = Failure(Step.LOOK, Reason.CONFLICT, message, sink=sink)
        else:
            if fenced(facts, number, moment):
                tell(self.observe, wiring, facts, number, PublishResult.FENCED)
            return facts
        tell(self.observe, wiring, facts, number, failure)
        return facts.with_place(number, failures=place.failures + 1, reported=failure)


def tell(
    observe: Callable[[Event], None],
    wiring: Wiring,
    facts: Facts,
    number: int,
    outcome: PublishResult | Failure,
    seconds: float = 0.0,
) -> None:
    """Reports what became of our token at one place."""
    sink = wiring.sinks[number]
    failure = outcome if isinstance(outcome, Failure) else None
    result = outcome if isinstance(outcome, PublishResult) else PublishResult.FAILED
    recovered = failure is None and facts.places[number].reported is not None
    observe(Published(facts.name, sink.name, sink.kind, result, seconds, failure, recovered))
