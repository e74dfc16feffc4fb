"""Faults planted in the rules: one dropped, two swapped, a condition forgotten, a value of another account kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aca_tokend.rotation import decide as rules_of
from aca_tokend.rotation.decide import Action, Do, Rest, decide
from aca_tokend.rotation.standing import Standing, standing
from tests.simulation.planting import instead, moved, plant, rotator, rules, without

if TYPE_CHECKING:
    from aca_tokend.rotation.facts import Facts, Moment

STALE = ("never_stale", "fresh_when_quiet", "isolation", "waits_for_no_expiry", "own_replaced", "attempt_in_time")

plant(
    "rule_publish_dropped",
    [*STALE, "no_tight_loop", "rests_quietly", "min_interval"],
    "steady",
    rules(without(rules_of.publish)),
)
plant("rule_hook_dropped", ["hook_follows_write"], "hooks", rules(without(rules_of.hook)))
plant("rule_canary_dropped", ["death_noticed"], "deaths", rules(without(rules_of.canary)))
plant(
    "rule_identify_dropped",
    ["no_former_account", *STALE],
    "accounts",
    rules(without(rules_of.identify)),
)
plant("grant_before_look", ["no_needless_grant"], "quiet", rules(moved(rules_of.grant, rules_of.look)))
plant("grant_before_adopt", ["no_needless_grant"], "quiet", rules(moved(rules_of.grant, rules_of.adopt)))


def by_the_wrong_clock(facts: Facts, moment: Moment) -> Action | Rest:
    """What places hold is judged by a wall clock that is half an hour behind."""
    return decide(facts, moment._replace(wall=moment.wall - 1800.0))


plant(
    "wrong_clock",
    ["adopted_works", "no_needless_grant", "never_stale", "fresh_when_quiet", "attempt_in_time", "no_tight_loop"],
    "steady",
    rotator(decide=by_the_wrong_clock),
)


def takes_what_a_stranger_has(facts: Facts, moment: Moment, grant: float) -> Action | None:
    """A comparison turned: a stranger's place is written."""
    held = facts.current
    strangers = tuple(n for n in range(len(facts.places)) if standing(facts, n) is Standing.STRANGER)
    if held is not None and held.expires_at > moment.now and strangers:
        return Action(Do.PUBLISH, strangers)
    return rules_of.publish(facts, moment, grant)


plant(
    "stranger_overwritten", ["own_tokens_only"], "foreign", rules(instead(rules_of.publish, takes_what_a_stranger_has))
)


def ignores_rivals(facts: Facts, moment: Moment) -> Action | Rest:
    """Who wrote last is forgotten, so another daemon's token under the same name is written over at once."""
    places = tuple(place._replace(wrote=None) for place in facts.places)
    return decide(facts._replace(places=places), moment)


plant("rivals_overwrite_each_other", ["no_overwriting_for_ever"], "rivals", rotator(decide=ignores_rivals))


def rests_too_long(facts: Facts, moment: Moment) -> Action | Rest:
    """A place that failed is not asked when to come again."""
    decision = decide(facts, moment)
    if isinstance(decision, Rest) and any(place.trouble for place in facts.places):
        return decision._replace(until=max(decision.until, moment.began + 2 * 3600.0))
    return decision


plant("failed_place_rests_too_long", [*STALE], "steady", rotator(decide=rests_too_long))


def never_held_up(facts: Facts, moment: Moment) -> Action | Rest:
    """What a token waits for is forgotten at once."""
    return decide(facts._replace(waiting=None, turn_at=-math.inf), moment)


plant(
    "waiting_forgotten",
    ["no_hammering", "no_tight_loop", "few_probes", "rests_quietly"],
    "steady",
    rotator(decide=never_held_up),
)
