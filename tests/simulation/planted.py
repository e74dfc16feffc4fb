"""Faults planted in when to come again, look, adopt and publish."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from aca_tokend.admission import Gate
from aca_tokend.core.outcome import Adopted, Failure
from aca_tokend.core.policy import Life, plan
from aca_tokend.granting import Asked, Granter
from aca_tokend.publishing import Publisher
from aca_tokend.rotator import Rotator
from aca_tokend.simulation.driver import SimDriver
from aca_tokend.simulation.places import SimSink
from tests.simulation.faults import Fault
from tests.simulation.planting import plant, rotator, sink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.grant import Grant
    from aca_tokend.core.steps import Work
    from aca_tokend.core.token import Document, Seen
    from aca_tokend.credentials import Resolved
    from aca_tokend.guarding import Wait
    from aca_tokend.state import Minted, SinkState, TokenState

HOUR = 3600.0
DAY = 24 * HOUR

# ── when to come again ────────────────────────────────────────────────────────────────────────────────────────────────


class LosesTheJob(SimDriver):
    """Now and then an attempt ends and the next is not put on schedule."""

    def keep(self, work: Work, at: float) -> None:
        if self.world.rng.random() > 0.02:
            super().keep(work, at)


plant("lost_reschedule", ["always_scheduled"], "stormy", {"driver": LosesTheJob})


class GivesUp(Rotator):
    """After some failures there is no next attempt."""

    async def attempt(self, state: TokenState) -> float:
        next_at = await super().attempt(state)
        return math.inf if state.failures > 2 else next_at


plant("gives_up", ["attempt_in_time"], "stormy", rotator(GivesUp))


class WaitsForTheRotationPoint(Rotator):
    """After a failed attempt the next comes when a whole life is over."""

    async def attempt(self, state: TokenState) -> float:
        next_at = await super().attempt(state)
        return next_at + 2 * HOUR if state.failures else next_at


plant("failure_waits_for_a_whole_life", ["attempt_in_time", "never_stale"], "late", rotator(WaitsForTheRotationPoint))


class BackoffPastExpiry(Rotator):
    """Waits grow without a look at what is left of the token."""

    def _delay(self, state: TokenState, failure: Failure) -> float:
        del failure
        return min(60.0, 2.0**state.failures)


plant("backoff_past_expiry", ["attempt_in_time", "never_stale"], "late", rotator(BackoffPastExpiry), tokens=1)


class Hammering(Rotator):
    """No wait at all after a failure."""

    def _delay(self, state: TokenState, failure: Failure) -> float:
        del state, failure
        return 0.0


plant("retry_without_backoff", ["no_hammering", "no_tight_loop"], "late", rotator(Hammering), tokens=1)


class Obedient(Rotator):
    """A server that asks for a pause gets it, whatever becomes of the token."""

    def _delay(self, state: TokenState, failure: Failure) -> float:
        return max(super()._delay(state, failure), failure.retry_after_seconds or 0.0)


class ObedientGate(Gate):
    """The same for whoever waits."""

    def failed(self, token: str, expires: float, now: float, retry_after: float | None, draw: float) -> list[Wake]:
        super().failed(token, expires, now, retry_after, draw)
        return []


plant(
    "retry_after_obeyed_to_death",
    ["attempt_in_time", "never_stale"],
    "late",
    rotator(Obedient, gate=ObedientGate),
    tokens=1,
    replicas=1,
    seconds=DAY,
    faults=(Fault("outage", 4600.0, 2500.0, how="429", value=3600.0),),
)


class TightLoop(Rotator):
    """A token that is not due comes again at once."""

    def _next(self, state: TokenState) -> float:
        return min(super()._next(state), self.clock.monotonic())


plant("tight_loop", ["no_tight_loop"], "quiet", rotator(TightLoop), tokens=1, seconds=HOUR)


class NoFloor(Granter):
    """The rotation point of a short life comes before min_interval."""

    def _minted(self, state: TokenState, asked: Asked, grant: Grant) -> Minted | Failure:
        minted = super()._minted(state, asked, grant)
        if isinstance(minted, Failure):
            return minted
        issued, expires = minted.life.issued, minted.life.expires
        return replace(minted, life=Life(issued, issued + 0.3 * (expires - issued), expires))


plant(
    "min_interval_ignored",
    ["min_interval"],
    "quiet",
    rotator(granter=NoFloor),
    tokens=3,
    replicas=1,
    lifetime=20.0,
    seconds=HOUR,
)


class JitterRedrawn(Granter):
    """The jitter is drawn anew for each life."""

    def _minted(self, state: TokenState, asked: Asked, grant: Grant) -> Minted | Failure:
        state.draw = self.rng.random()
        return super()._minted(state, asked, grant)


plant("jitter_redrawn", ["jitter_kept"], "quiet", rotator(granter=JitterRedrawn), tokens=3, seconds=DAY)


class LifeFromTheAnswer(Granter):
    """A token's life is counted from the moment its answer came."""

    def _ask_if_admitted(self, state: TokenState, resolved: Resolved) -> Asked | Wait:
        asked = super()._ask_if_admitted(state, resolved)
        if not isinstance(asked, Asked):
            return asked
        return replace(asked, started=self.clock.monotonic(), started_wall=self.clock.wall())


plant("life_from_the_answer", ["life_not_overstated"], "quiet", rotator(granter=LifeFromTheAnswer), seconds=DAY)

# ── look, adopt, publish ──────────────────────────────────────────────────────────────────────────────────────────────


class NeverAdopts(Publisher):
    """What others published is not taken over: a grant for each replica."""

    def _adopt(self, state: TokenState) -> None:
        del state


plant("never_looks_before_a_grant", ["no_needless_grant"], "quiet", rotator(publisher=NeverAdopts), seconds=DAY)


class AdoptsTheDead(Publisher):
    """An expired token is taken for a valid one, for as long again as it had lived."""

    def _adopt(self, state: TokenState) -> None:
        for it in state.sinks:
            if it.published is not None and state.document is None:
                state.document = it.published
                state.life = plan(self.clock.monotonic(), 2 * HOUR, state.config.rotation, state.draw)
                state.rotate_at = state.life.rotate
                self.observe(Adopted(state.name, it.published, it.sink.name))
        super()._adopt(state)


plant(
    "expired_token_adopted",
    ["adopted_works"],
    "quiet",
    rotator(publisher=AdoptsTheDead),
    tokens=3,
    replicas=1,
    seconds=DAY,
    faults=(Fault("kill", 4000.0, 3 * HOUR),),
)


class AgelessAdoption(Publisher):
    """The life of an adopted token begins when it is adopted."""

    def _life_of(self, state: TokenState, document: Document) -> Life:
        lifetime = (document.expires_at - document.issued_at).total_seconds()
        return plan(self.clock.monotonic(), lifetime, state.config.rotation, state.draw)


plant(
    "adopted_life_begins_anew",
    ["fresh_when_quiet", "never_stale", "waits_for_no_expiry"],
    "quiet",
    rotator(publisher=AgelessAdoption),
    tokens=3,
    replicas=1,
    seconds=2 * DAY,
    faults=(Fault("kill", 4000.0, 10.0),),
)


class TakesAnyAccount(Publisher):
    """Whose token it is does not matter."""

    async def _look_at(self, state: TokenState, sinks: Sequence[SinkState]) -> None:
        await super()._look_at(state, sinks)
        for it in sinks:
            if it.seen is not None and it.seen.document is not None:
                it.published, it.failure = it.seen.document, None


plant("another_account_adopted", ["own_tokens_only"], "foreign", rotator(publisher=TakesAnyAccount))


class ReplacesForeign(SimSink):
    """Somebody else's content is shown as if there were nothing."""

    def look(self) -> Seen:
        seen = super().look()
        return replace(seen, foreign=None) if seen.foreign else seen


plant("foreign_content_replaced", ["own_tokens_only"], "foreign", sink(ReplacesForeign))


class SilentFailure(Publisher):
    """A publish that fails is not tried again."""

    async def publish(self, state: TokenState, sinks: Sequence[SinkState]) -> None:
        await super().publish(state, sinks)
        state.publish_at = None


plant(
    "failed_publish_forgotten",
    ["fresh_when_quiet", "never_stale"],
    "stormy",
    rotator(publisher=SilentFailure),
    tokens=3,
    replicas=1,
    seconds=2 * DAY,
    faults=(Fault("sink", 4300.0, 600.0, how="vault"),),
)


class NoFence(Publisher):
    """After another writer was met, ours is written over what it wrote."""

    async def _look_again(self, state: TokenState, sinks: Sequence[SinkState]) -> Sequence[SinkState]:
        await self._look_at(state, sinks)
        return sinks

    def _may_replace(self, state: TokenState, sink: SinkState, document: Document) -> bool:
        del state, sink, document
        return True


plant("fence_dropped", ["never_backwards"], "race", rotator(publisher=NoFence), latency=(0.05, 1.0, 0.002))


class NoCheckAndSet(SimSink):
    """What is there is replaced, whatever it is by now."""

    def publish(self, document: Document, seen: Seen) -> Seen:
        return super().publish(document, replace(seen, stamp=self.place.version))


plant("check_and_set_dropped", ["never_backwards"], "race", sink(NoCheckAndSet), latency=(0.05, 1.0, 0.002))
