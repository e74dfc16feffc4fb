"""Faults planted in when to come again, look, adopt and publish."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.rotation import decide as rules_of
from aca_tokend.rotation.admission import Gate
from aca_tokend.rotation.decide import Action, Do, Rest, decide
from aca_tokend.rotation.grant import Answered, Granter
from aca_tokend.rotation.look import Looker
from aca_tokend.rotation.publish import Publisher
from aca_tokend.rotation.standing import lacking
from aca_tokend.simulation.driver import SimDriver
from aca_tokend.simulation.places import SimSink
from tests.simulation.faults import Fault
from tests.simulation.planting import instead, plant, rotator, rules, sink, without

if TYPE_CHECKING:
    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.errors import ReasonedError
    from aca_tokend.core.outcome import Failure
    from aca_tokend.core.steps import Work
    from aca_tokend.core.token import Document, Seen
    from aca_tokend.rotation.facts import Facts, Held, Moment
    from aca_tokend.rotation.lockout import Permit, Wait
    from aca_tokend.rotation.managed import ManagedToken, Wiring

HOUR = 3600.0
DAY = 24 * HOUR

# ── when to come again ────────────────────────────────────────────────────────────────────────────────────────────────


class LosesTheJob(SimDriver):
    """Now and then an attempt ends and the next is not put on schedule."""

    def keep(self, work: Work, at: float) -> None:
        if self.world.rng.random() > 0.02:
            super().keep(work, at)


plant("lost_reschedule", ["always_scheduled"], "stormy", {"driver": LosesTheJob})


def gives_up(facts: Facts, moment: Moment) -> Action | Rest:
    """After some failures there is no next attempt."""
    decision = decide(facts, moment)
    failures = facts.trouble.count if facts.trouble else 0
    return decision._replace(until=math.inf) if isinstance(decision, Rest) and failures > 2 else decision


plant("gives_up", ["attempt_in_time"], "stormy", rotator(decide=gives_up))


def waits_for_a_whole_life(facts: Facts, moment: Moment) -> Action | Rest:
    """After a failed attempt the next comes when a whole life is over."""
    decision = decide(facts, moment)
    failed = isinstance(decision, Rest) and facts.trouble is not None
    return decision._replace(until=decision.until + 2 * HOUR) if failed and isinstance(decision, Rest) else decision


plant(
    "failure_waits_for_a_whole_life",
    ["attempt_in_time", "never_stale", "waits_for_no_expiry"],
    "late",
    rotator(decide=waits_for_a_whole_life),
)


class BackoffPastExpiry(Granter):
    """Waits grow without a look at what is left of the token."""

    def failed(self, facts: Facts, failure: Failure, *, asked: bool = True) -> Facts:
        facts = super().failed(facts, failure, asked=asked)
        assert facts.trouble is not None
        return facts._replace(trouble=replace(facts.trouble, remaining=0.0))


plant(
    "backoff_past_expiry",
    ["attempt_in_time", "never_stale", "waits_for_no_expiry"],
    "late",
    rotator(granter=BackoffPastExpiry),
    tokens=1,
)


class Hammering(Granter):
    """No wait at all after a failure."""

    def failed(self, facts: Facts, failure: Failure, *, asked: bool = True) -> Facts:
        facts = super().failed(facts, failure, asked=asked)
        assert facts.trouble is not None
        return facts._replace(trouble=replace(facts.trouble, hastened_to=facts.trouble.at))


plant("retry_without_backoff", ["no_hammering", "no_tight_loop"], "late", rotator(granter=Hammering), tokens=1)


class ObedientGate(Gate):
    """A server that asks for a pause gets it, whatever becomes of the token, from those who wait too."""

    def failed(self, token: str, expires: float, now: float, retry_after: float | None, draw: float) -> list[Wake]:
        super().failed(token, expires, now, retry_after, draw)
        return []


plant(
    "retry_after_obeyed_to_death",
    ["attempt_in_time", "never_stale", "waits_for_no_expiry"],
    "late",
    rotator(granter=BackoffPastExpiry, gate=ObedientGate),
    tokens=1,
    replicas=1,
    seconds=DAY,
    faults=(Fault("outage", 4600.0, 2500.0, how="429", value=3600.0),),
)


def comes_at_once(facts: Facts, moment: Moment) -> Action | Rest:
    """A token that is not due comes again at once."""
    decision = decide(facts, moment)
    return decision._replace(until=moment.now) if isinstance(decision, Rest) else decision


plant("tight_loop", ["no_tight_loop"], "quiet", rotator(decide=comes_at_once), tokens=1, seconds=HOUR)


def without_floor(facts: Facts, moment: Moment) -> Action | Rest:
    """The rotation point of a short life comes before min_interval."""
    decision, held = decide(facts, moment), facts.current
    if not isinstance(decision, Rest) or held is None or facts.trouble is not None:
        return decision
    soon = held.issued_at + 0.3 * held.lifetime
    return Action(Do.GRANT) if soon <= moment.now else decision._replace(until=min(decision.until, soon))


plant(
    "min_interval_ignored",
    ["min_interval"],
    "quiet",
    rotator(decide=without_floor),
    tokens=3,
    replicas=1,
    lifetime=20.0,
    seconds=HOUR,
)


class JitterRedrawn(Granter):
    """The jitter is drawn anew for each life."""

    async def _verified(self, token: ManagedToken, facts: Facts, granted: Held) -> Facts:
        return await super()._verified(token, facts._replace(jitter=self.rng.random()), granted)


plant("jitter_redrawn", ["jitter_kept"], "quiet", rotator(granter=JitterRedrawn), tokens=3, seconds=DAY)


class LifeFromTheAnswer(Granter):
    """A token's life is counted from the moment its answer came."""

    def send(self, token: ManagedToken, permit: Permit) -> Answered | Wait | None:
        answered = super().send(token, permit)
        if not isinstance(answered, Answered):
            return answered
        return replace(answered, started=self.clock.monotonic(), started_wall=self.clock.wall())


plant("life_from_the_answer", ["life_not_overstated"], "quiet", rotator(granter=LifeFromTheAnswer), seconds=DAY)

# ── look, adopt, publish ──────────────────────────────────────────────────────────────────────────────────────────────

plant("never_looks_before_a_grant", ["no_needless_grant"], "quiet", rules(without(rules_of.adopt)), seconds=DAY)


def adopts_the_dead(facts: Facts, moment: Moment, grant: float) -> Action | None:
    """An expired token is taken for a valid one."""
    for number, place in enumerate(facts.places):
        if facts.held is None and place.seen is not None and place.seen.document is not None:
            return Action(Do.ADOPT, (number,))
    return rules_of.adopt(facts, moment, grant)


class AgelessAdoption(Publisher):
    """The life of an adopted token begins when it is adopted."""

    def issued_at(self, facts: Facts, document: Document) -> float:
        del facts, document
        return self.clock.monotonic()


plant(
    "expired_token_adopted",
    ["adopted_works"],
    "quiet",
    rotator(decide=partial(decide, chain=instead(rules_of.adopt, adopts_the_dead)), publisher=AgelessAdoption),
    tokens=3,
    replicas=1,
    seconds=DAY,
    faults=(Fault("kill", 4000.0, 3 * HOUR),),
)
plant(
    "adopted_life_begins_anew",
    ["fresh_when_quiet", "never_stale", "waits_for_no_expiry", "rests_quietly"],
    "quiet",
    rotator(publisher=AgelessAdoption),
    tokens=3,
    replicas=1,
    seconds=2 * DAY,
    faults=(Fault("kill", 4000.0, 10.0),),
)


def takes_any_account(facts: Facts, moment: Moment, grant: float) -> Action | None:
    """Whose token it is does not matter."""
    for number, place in enumerate(facts.places):
        document = place.seen.document if place.seen else None
        newer = facts.held is None or (document is not None and document.issued_after(facts.held.document))
        if document is not None and newer and document.expires_at.timestamp() > moment.wall:
            return Action(Do.ADOPT, (number,))
    return rules_of.adopt(facts, moment, grant)


class TakesAnyAccount(Publisher):
    """What is adopted is taken for a token of the configured account: one that is of another would not be there."""

    def adopt(self, token: ManagedToken, number: int) -> Facts:
        facts = super().adopt(token, number)
        assert facts.held is not None
        assert facts.identity is not None
        document = replace(facts.held.document, account=facts.identity.account)
        return facts._replace(held=facts.held._replace(document=document))


plant(
    "another_account_adopted",
    ["own_tokens_only"],
    "accounts",
    rotator(
        decide=partial(decide, chain=instead(rules_of.adopt, takes_any_account)),
        publisher=TakesAnyAccount,
    ),
)


class ReplacesForeign(SimSink):
    """Somebody else's content is shown as if there were nothing."""

    def look(self) -> Seen:
        seen = super().look()
        return replace(seen, foreign=None) if seen.foreign else seen


plant("foreign_content_replaced", ["own_tokens_only"], "foreign", sink(ReplacesForeign))


class SilentFailure(Looker):
    """A place that failed is not tried again."""

    def failed(self, wiring: Wiring, facts: Facts, number: int, failure: Failure, error: ReasonedError) -> Facts:
        facts = super().failed(wiring, facts, number, failure, error)
        trouble = facts.places[number].trouble
        return facts.with_place(number, trouble=trouble and replace(trouble, at=math.inf))


plant(
    "failed_publish_forgotten",
    ["fresh_when_quiet", "never_stale", "waits_for_no_expiry", "isolation"],
    "stormy",
    rotator(looker=SilentFailure),
    tokens=3,
    replicas=1,
    seconds=2 * DAY,
    faults=(Fault("sink", 4300.0, 600.0, how="vault"),),
)


def without_fence(facts: Facts, moment: Moment, grant: float) -> Action | None:
    """Ours is written over whatever is there."""
    del grant
    held = facts.current
    if held is None or held.expires_at <= moment.now:
        return None
    numbers = tuple(number for number in range(len(facts.places)) if lacking(facts, number))
    return Action(Do.PUBLISH, numbers) if numbers else None


def adopts_without_hurry(facts: Facts, moment: Moment, grant: float) -> Action | None:
    """What came between a look and a write is not taken over."""
    return None if any(place.conflicts for place in facts.places) else rules_of.adopt(facts, moment, grant)


# Writes of replicas overlap, and none takes longer than a look is waited for.
SLOW_VAULT = (0.05, 0.6, 0.002)
UNFENCED = instead(rules_of.publish, without_fence, instead(rules_of.adopt, adopts_without_hurry))
plant("fence_dropped", ["never_backwards"], "race", rules(UNFENCED), latency=SLOW_VAULT)


class NoCheckAndSet(SimSink):
    """What is there is replaced, whatever it is by now."""

    def publish(self, document: Document, seen: Seen) -> Seen:
        return super().publish(document, replace(seen, stamp=self.place.version))


plant(
    "check_and_set_dropped",
    ["never_backwards"],
    "race",
    sink(NoCheckAndSet),
    latency=SLOW_VAULT,
)
