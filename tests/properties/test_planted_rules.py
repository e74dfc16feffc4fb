"""The properties checked: each fault planted in `decide` is noticed by the property that is there to notice it."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from aca_tokend.rotation import decide as rules_of
from aca_tokend.rotation.decide import CHAIN, Action, Do, Rest, decide
from tests.properties import model
from tests.properties import test_decide_properties as properties
from tests.properties.facts import dice

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.rotation.decide import Rule
    from aca_tokend.rotation.facts import Facts, Moment

    Decide = Callable[[Facts, Moment], Action | Rest]

# So many draws are tried at most, as many as for the real rules.
DRAWS = 6000


def without(dropped: Rule) -> Decide:
    """All rules but one."""
    return partial(decide, chain=tuple(rule for rule in CHAIN if rule is not dropped))


def moved(rule: Rule, before: Rule) -> Decide:
    """All rules, one of them asked before another that it follows."""
    rest = [it for it in CHAIN if it is not rule]
    at = rest.index(before)
    return partial(decide, chain=(*rest[:at], rule, *rest[at:]))


def interval_forgotten(facts: Facts, moment: Moment) -> Action | Rest:
    """The last request that gave us a token is forgotten."""
    return decide(facts._replace(asked=None), moment)


def rivals_ignored(facts: Facts, moment: Moment) -> Action | Rest:
    """Another daemon's token under the same name is written over at once: who wrote last is forgotten."""
    return decide(facts._replace(places=tuple(it._replace(wrote=None) for it in facts.places)), moment)


def looks_once(facts: Facts, moment: Moment) -> Action | Rest:
    """A place that was read once is not read again before a grant."""
    places = (it._replace(looked_at=moment.began) if it.seen is not None else it for it in facts.places)
    return decide(facts._replace(places=tuple(places)), moment)


def never_waits(facts: Facts, moment: Moment) -> Action | Rest:
    """What a token waits for is forgotten at once."""
    return decide(facts._replace(waiting=None), moment)


def comes_at_once(facts: Facts, moment: Moment) -> Action | Rest:
    """A token for which nothing is due comes again at once."""
    decision = decide(facts, moment)
    return decision._replace(until=moment.now) if isinstance(decision, Rest) else decision


def never_comes(facts: Facts, moment: Moment) -> Action | Rest:
    """A token that failed does not come again."""
    decision = decide(facts, moment)
    return decision._replace(until=math.inf) if isinstance(decision, Rest) and facts.trouble else decision


def writes_what_expired(facts: Facts, moment: Moment) -> Action | Rest:
    """The token in use is written though it has expired."""
    held = facts.current
    if held is not None and held.expires_at <= moment.now and held.revoked_at is None:
        for number, place in enumerate(facts.places):
            if place.seen is not None and place.seen.document is None and place.seen.foreign is None and not place.busy:
                return Action(Do.PUBLISH, (number,))
    return decide(facts, moment)


def published_untried(facts: Facts, moment: Moment) -> Action | Rest:
    """An adopted token is brought over another that is valid before it was tried."""
    held = facts.held
    return decide(facts._replace(held=held and held._replace(works=True)), moment)


def asks_in_spite_of_a_refusal(facts: Facts, moment: Moment) -> Action | Rest:
    """A refused credential is sent again as if nothing had been said of it."""
    return decide(facts._replace(suspended=None), moment)


ASKED = properties.test_a_token_is_asked_for_only_where_it_must_be
REPLACED = properties.test_nothing_that_readers_need_is_replaced
UNDONE = properties.test_nothing_is_left_undone_by_a_token_that_rests
RESTS = properties.test_a_rest_ends_when_something_is_due_and_not_before
# The rules with the fault, the property that breaks, and the words in which it says so.
PLANTED: dict[str, tuple[Decide, Callable[..., None], str]] = {
    "min_interval_forgotten": (interval_forgotten, ASKED, "the last was asked for a moment ago"),
    "waiting_forgotten": (never_waits, ASKED, "it waits|an attempt has no end"),
    "refusal_forgotten": (asks_in_spite_of_a_refusal, ASKED, "the credential was refused"),
    "grant_before_look": (moved(rules_of.grant, rules_of.look), ASKED, "a replica may have published a token since"),
    "grant_before_publish": (moved(rules_of.grant, rules_of.publish), ASKED, "is not yet where it may be"),
    "looks_once": (looks_once, ASKED, "a replica may have published a token since"),
    "rivals_overwrite_each_other": (rivals_ignored, REPLACED, "two daemons overwrite each other"),
    "writes_what_expired": (writes_what_expired, REPLACED, "it has expired"),
    "published_untried": (published_untried, REPLACED, "it was never tried"),
    "rule_publish_dropped": (without(rules_of.publish), UNDONE, "a place lacks the token in use"),
    "rule_adopt_dropped": (without(rules_of.adopt), UNDONE, "a later token of ours was not adopted"),
    "rule_hook_dropped": (without(rules_of.hook), UNDONE, "a hook was not asked"),
    "rule_poll_dropped": (without(rules_of.poll), UNDONE, "nobody sees when the credential changes"),
    "rule_try_dropped": (without(rules_of.try_pending), UNDONE, "not tried|needed and not asked for"),
    "rule_canary_dropped": (without(rules_of.canary), UNDONE, "the canary did not try the token in use"),
    "comes_at_once": (comes_at_once, RESTS, "it comes again at once"),
    "never_comes": (never_comes, RESTS, "what is never due has a time"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules with this fault break the property that is there for it."""
    planted, noticed_by, words = PLANTED[name]
    monkeypatch.setattr(model, "decide", planted)
    monkeypatch.setattr(properties, "decide", planted)
    # the first draw that breaks it is enough: it need not be made small
    draws = settings(
        max_examples=DRAWS,
        phases=[Phase.generate],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises(AssertionError, match=words):
        draws(given(dice)(noticed_by.hypothesis.inner_test))()  # type: ignore[attr-defined]  # given adds it
