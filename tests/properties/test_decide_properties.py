"""What holds of `decide` for all facts: rest, rate, grants, fence, obligation, isolation and convergence.

Each is said in words of its own and not by the functions that `decide` is made of.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, assume, given, settings

from aca_tokend.core.config import VaultPublish
from aca_tokend.core.policy import revocation_delay
from aca_tokend.core.token import Seen
from aca_tokend.rotation.decide import Action, Do, Rest, decide
from aca_tokend.rotation.facts import Busy, Place
from tests.changed import replace
from tests.properties.facts import (
    AUTHORITY,
    NAME,
    NOW,
    OURS,
    USER,
    Dice,
    any_content,
    any_facts,
    any_place,
    dice,
    moment,
)
from tests.properties.model import Model, World, any_world, failing

if TYPE_CHECKING:
    from aca_tokend.core.token import Document
    from aca_tokend.rotation.facts import Facts, Held, Moment


def examples(count: int) -> settings:
    """So many, and the same in each run: what a run finds it finds again. `make test-on` tries a few of them."""
    few = bool(os.environ.get("FEW_EXAMPLES"))
    return settings(
        max_examples=count // 20 if few else count,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.filter_too_much],
    )


def any_model(roll: Dice, world: World | None = None) -> Model:
    """A token of which anything may be known, in any world; places that were not read hold anything."""
    facts = any_facts(roll)
    model = Model(facts, any_world(roll) if world is None else world)
    for number, place in enumerate(facts.places):
        if place.seen is None:
            model.contents[number] = any_content(roll, facts.held)
    return model


# ── words of their own ────────────────────────────────────────────────────────────────────────────────────────────────


def token_of(facts: Facts) -> Held | None:
    """The token in use, where it is the configured account's."""
    return facts.held if facts.held and facts.identity and facts.held.document.account == OURS else None


def is_valid(document: Document, at: Moment) -> bool:
    return document.expires_at.timestamp() > at.wall


def later(one: Document, other: Document) -> bool:
    return (one.issued_at, one.expires_at) > (other.issued_at, other.expires_at)


def is_plausible(document: Document, facts: Facts, place: Place, at: Moment) -> bool:
    lifetime = (document.expires_at - document.issued_at).total_seconds()
    genuine = document.username == USER and document.authority == AUTHORITY and document.token_type == "Bearer"
    read_at = at.wall - (at.now - place.looked_at)
    early = document.issued_at.timestamp() > read_at + 300
    return genuine and not early and 0 < lifetime <= facts.config.rotation.max_lifetime


def is_strangers(facts: Facts, number: int) -> bool:
    """Whether somebody else's content is there, which we were not told to replace."""
    place, target = facts.places[number], facts.config.publish[number]
    seen = place.seen
    if seen is None or (seen.document is None and seen.foreign is None) or target.replace_foreign:
        return False
    named = seen.document.token if seen.document else seen.token
    ours = named == NAME or (not named and seen.document is not None and seen.document.account == OURS)
    return not ours and not (place.wrote and place.wrote.stamp == seen.stamp)


def is_rivals(facts: Facts, number: int, at: Moment) -> bool:
    """Whether another live daemon with our name and another account wrote there after us."""
    place = facts.places[number]
    document, wrote = place.seen.document if place.seen else None, place.wrote
    if document is None or document.account == OURS or wrote is None or wrote.account != OURS:
        return False
    believed = (place.first_seen[1] if place.first_seen else place.looked_at) + facts.config.rotation.max_lifetime
    live = document.refresh_after.timestamp() > at.wall + 1e-6 and believed > at.now + 1e-6
    return live and document.issued_at.timestamp() > wrote.wall


def was_passed_over(facts: Facts, place: Place, token: Held, at: Moment) -> bool:
    """Whether what the place holds was read before our token was asked for, or adopted though that was there."""
    document = place.seen.document if place.seen else None
    if token.asked_at is not None:
        return place.looked_at <= token.asked_at
    passed = document is not None and not is_plausible(document, facts, place, at)
    return passed and place.looked_at <= token.adopted_at


def owes(facts: Facts, number: int, at: Moment) -> bool:
    """Whether the token in use belongs at this place now and is not there."""
    token, place = token_of(facts), facts.places[number]
    if token is None or token.revoked_at is not None or token.expires_at <= at.now or place.seen is None:
        return False
    if place.busy is not None or is_strangers(facts, number) or is_rivals(facts, number, at):
        return False
    untried = token.asked_at is None and facts.config.verify is not None and not token.works
    there = place.seen.document
    if there is None or there.account != OURS:
        return not untried or token.checked_at is not None
    if there.access_token == token.document.access_token:
        return place.seen.outdated or (token.asked_at is not None and there.issued_at != token.document.issued_at)
    if is_valid(there, at):
        return not untried and (was_passed_over(facts, place, token, at) or later(token.document, there))
    return not untried or token.checked_at is not None


def could_take(facts: Facts, number: int, at: Moment) -> bool:
    """Whether a new token could be of use there; with none in use, one that was not read may hold a good one."""
    place = facts.places[number]
    if place.seen is None or place.busy is not None:
        return token_of(facts) is not None
    return not is_strangers(facts, number) and not is_rivals(facts, number, at)


def has_adoptable(facts: Facts, at: Moment) -> bool:
    """Whether a place holds a later token of ours than the one in use."""
    token = token_of(facts)
    for number, place in enumerate(facts.places):
        document = place.seen.document if place.seen else None
        if document is None or document.account != OURS or facts.identity is None or not is_valid(document, at):
            continue
        if place.busy is not None or is_strangers(facts, number):
            continue
        if token is not None and not later(document, token.document):
            continue
        same = token is not None and document.access_token == token.document.access_token
        if same and token is not None and (token.asked_at is not None or token.revoked_at is not None):
            continue
        if is_plausible(document, facts, place, at):
            return True
    return False


def usable_pending(facts: Facts) -> Held | None:
    """The pending token, unless its reason is gone."""
    pending, token = facts.pending, token_of(facts)
    if pending is None or pending.document.account != OURS or pending.scope != facts.config.scope:
        return None
    # what was adopted since was not due when the pending one was asked for
    return None if facts.identity is None or needed_from(facts, token) > pending.issued_at else pending


def rotation_point(facts: Facts, token: Held) -> float:
    """When a token is due for another one by its life alone."""
    rotation = facts.config.rotation
    if token.reused_at is not None:
        left = token.expires_at - token.reused_at
        return token.reused_at + min(max(left * rotation.fraction, rotation.min_interval), left + 0.25)
    share = rotation.fraction * (1.0 - rotation.jitter * facts.jitter)
    return token.issued_at + max(token.lifetime * share, rotation.min_interval)


def needed_from(facts: Facts, token: Held | None) -> float:
    """From when a new token is needed in place of this one."""
    if token is None or token.scope != facts.config.scope:
        return -math.inf
    if token.revoked_at is not None:
        since = max(token.revoked_at, token.reused_at or 0.0)
        return min(since + revocation_delay(facts.revocations, facts.config.rotation), token.expires_at)
    return rotation_point(facts, token)


def is_needed(facts: Facts, at: Moment) -> bool:
    """Whether a new token is needed."""
    return at.now >= needed_from(facts, token_of(facts))


# ── 1 and 2: rest and rate ────────────────────────────────────────────────────────────────────────────────────────────


@examples(6000)
@given(dice)
def test_a_rest_ends_when_something_is_due_and_not_before(roll: Dice) -> None:
    """With the same facts the attempt that begins at `until` acts, and each that begins before rests until then."""
    model = any_model(roll)
    rest = model.attempt()
    facts, now, until = model.facts, model.now, rest.until
    floor = model.began + 0.5

    assert until >= max(floor, now), "it comes again at once"
    if until == math.inf:
        assert rest.then is None, "what is never due has a time"
        return
    expired = facts.pending is not None and now < facts.pending.expires_at <= until == floor  # and was not tried
    due = decide(facts, moment(until + 1e-6))
    assert expired or isinstance(due, Action), "nothing is due when the rest ends"
    if until in {floor, now}:
        return  # it may have been due within the half second, or while the attempt was under way
    for share in (0.0, 0.01, 0.5, 0.99):
        between = now + (until - now) * share
        sooner = decide(facts, moment(between))
        assert isinstance(sooner, Rest), f"{sooner} was due {until - between} seconds before the rest ends"
        assert math.isclose(sooner.until, max(until, between + 0.5), abs_tol=1e-5), "the end of the rest moves"


def busiest(facts: Facts, seconds: float) -> float:
    """So many attempts there may be at most in so many seconds, with all failing all the time."""
    rotation = facts.config.rotation
    polls = math.inf if facts.suspended is None else 3.0
    sources = len(facts.places) + 3  # identity, grant and canary
    # by the backoff; and closer together, for a while, where readers are about to meet an expired token
    by_backoff = seconds / max(0.5 * rotation.backoff.cap, 0.5) + 20
    handed_out_again = seconds / 1.25 if facts.held and facts.held.lifetime < 3600.0 else 0.0
    return sources * by_backoff + seconds / polls + handed_out_again


@examples(1500)
@given(dice)
def test_a_token_that_fails_at_everything_stays_quiet(roll: Dice) -> None:
    """Each attempt comes to an end by itself, and there are few of them however long everything fails."""
    model = any_model(roll, replace(failing(roll), poll="fails"))

    attempts = model.run(NOW + 300.0)

    assert attempts <= busiest(model.facts, 300.0), "a token that fails is too busy"


# ── 3 to 5: what is done, and what is left undone ─────────────────────────────────────────────────────────────────────


@examples(4000)
@given(dice)
def test_a_token_is_asked_for_only_where_it_must_be(roll: Dice) -> None:
    """A grant is needed, can be used, can be had from no place, comes after publishing, and in nobody's pause."""
    model = any_model(roll)
    model.attempt()
    for action, facts, at in model.log:
        if action.do in {Do.GRANT, Do.TRY}:
            assert is_needed(facts, at), "the token in use is still good"
        if action.do is not Do.GRANT:
            continue
        rotation, pending = facts.config.rotation, usable_pending(facts)
        places = range(len(facts.places))
        assert not has_adoptable(facts, at), "a place holds a later token of ours"
        began = moment(at.began - 1e-6)  # what has become due since waits for the next attempt
        owed = [number for number in places if owes(facts, number, at) and owes(facts, number, began)]
        assert not owed, "the token in use is not yet where it may be"
        assert facts.identity is not None, "whose token it is cannot be told"
        assert facts.identity.resolved_at >= at.began - 1.0, "the account may be another by now"
        idle = [it for it in facts.places if it.busy is None]
        assert all(it.looked_at >= at.began - 1.0 for it in idle), "a replica may have published a token since"
        if facts.asked is not None and facts.asked.account == OURS:
            assert at.now >= facts.asked.at + rotation.min_interval, "the last was asked for a moment ago"
        assert facts.suspended is None or facts.suspended.account != OURS, "the credential was refused"
        if facts.turn_at > at.now:
            assert facts.waiting is None or facts.waiting.until <= at.now, "it waits"
            assert facts.trouble is None or facts.trouble.again_at(facts.config) <= at.now, "it failed a moment ago"
        assert any(could_take(facts, number, at) for number in places), "no place could take it"
        if pending is not None:
            life = pending.life(facts.config, facts.jitter)
            assert at.now >= min(life.rotate, life.expires), "the pending token may turn out to work"


@examples(4000)
@given(dice)
def test_nothing_that_readers_need_is_replaced(roll: Dice) -> None:
    """A write replaces neither a later token of ours that is valid, nor what a stranger or a live rival wrote."""
    model = any_model(roll)
    model.attempt()
    for action, facts, at in model.log:
        if action.do is not Do.PUBLISH:
            continue
        token = token_of(facts)
        assert token is not None, "it is of another account"
        assert token.revoked_at is None, "it was refused"
        assert token.expires_at > at.now, "it has expired"
        assert action.places, "it is written nowhere"
        for number in action.places:
            place = facts.places[number]
            assert place.seen is not None, "what is there was not read"
            assert place.busy is None, "a call hangs there"
            assert not is_strangers(facts, number), "a stranger's content is replaced"
            assert not is_rivals(facts, number, at), "two daemons overwrite each other"
            there = place.seen.document
            if there is None or there.account != OURS or there.access_token == token.document.access_token:
                continue
            if is_valid(there, at):
                untried = token.asked_at is None and facts.config.verify is not None and not token.works
                tolerance = (there.expires_at - there.refresh_after).total_seconds()
                left = there.expires_at.timestamp() - at.wall
                assert not untried or (token.checked_at is not None and left <= tolerance), "it was never tried"
                earlier = was_passed_over(facts, place, token, at) or later(token.document, there)
                assert earlier, "a later token is replaced"


@examples(5000)
@given(dice)
def test_nothing_is_left_undone_by_a_token_that_rests(roll: Dice) -> None:
    """Before a token rests its places are read and served, its hooks are asked for, and what is due was tried."""
    model = any_model(roll)
    model.world = replace(model.world, seconds=0.0)
    rest = model.attempt()
    facts, at = model.facts, moment(model.now)
    token = token_of(facts)

    for number, (place, target) in enumerate(zip(facts.places, facts.config.publish, strict=True)):
        if place.busy is not None:
            continue
        if place.trouble is not None:
            assert at.now < place.trouble.again_at(facts.config), "a place in trouble is not tried again"
            continue
        assert place.seen is not None, "a place was not read"
        assert not owes(facts, number, at), "a place lacks the token in use"
        document = place.seen.document
        hooked = isinstance(target, VaultPublish) or target.after is None or document == place.hooked
        assert hooked or document is None or document.account != OURS or facts.identity is None, "a hook was not asked"
        if is_strangers(facts, number):
            assert rest.until <= max(place.looked_at + 60.0, model.began + 0.5), "nobody sees when the place is free"
    assert not has_adoptable(facts, at), "a later token of ours was not adopted"
    _asks_for_a_token(facts, at)
    pending = usable_pending(facts)
    if pending is not None and at.now < pending.expires_at and is_needed(facts, at):
        blocked = facts.trouble is not None and at.now < facts.trouble.again_at(facts.config)
        over = at.now > pending.life(facts.config, facts.jitter).rotate
        assert blocked or over, "a pending token was not tried"
    suspended = facts.suspended
    if suspended is not None and facts.identity is not None and suspended.account == OURS:
        assert at.now < suspended.polled_at + 60.0, "nobody sees when the credential changes"
    if token is not None and facts.config.verify is not None and facts.config.verify.every and not token.revoked_at:
        checked = token.checked_at is not None and at.now < token.checked_at + facts.config.verify.every
        assert checked or token.expires_at <= at.now, "the canary did not try the token in use"


def _asks_for_a_token(facts: Facts, at: Moment) -> None:
    """Who needs a token and rests has a reason."""
    trouble, waiting = facts.trouble, facts.waiting
    reasons = {
        "needs none": not is_needed(facts, at),
        "whose it is cannot be told": facts.identity is None and trouble is not None,
        "suspended": facts.suspended is not None and facts.suspended.account == OURS,
        "failed": trouble is not None and at.now < trouble.again_at(facts.config),
        "waits": waiting is not None and at.now < waiting.until,
        "min_interval": facts.asked is not None and at.now < facts.asked.at + facts.config.rotation.min_interval,
        "cannot be used": not any(could_take(facts, number, at) for number in range(len(facts.places))),
    }
    assert any(reasons.values()), "a token is needed and not asked for"


# ── 6 and 7: isolation and convergence ────────────────────────────────────────────────────────────────────────────────


@examples(1500)
@given(dice)
def test_what_befalls_one_place_changes_nothing_for_another(roll: Dice) -> None:
    """Whatever a place holds or suffers, short of a token to adopt, the others are read and written as without it."""
    facts = any_facts(roll)
    assume(len(facts.places) > 1)
    # the others can take a token, so that whether one is asked for does not depend on the first
    others = [_served(roll, it, facts) for it in facts.places[1:]]
    suffering = any_place(roll, facts.held)
    if suffering.seen is not None and suffering.seen.document is not None and suffering.busy is None:
        suffering = replace(suffering, seen=Seen(None, 1, foreign="access_token is missing"), wrote=None)
    elif suffering.seen is not None:
        suffering = replace(suffering, seen=None)
    well = replace(facts, places=(Place(busy=Busy(1, None)), *others), turn_at=math.inf)
    ill = replace(well, places=(suffering, *others))
    logs, poll = [], roll.pick(("works", "fails"))
    for it in (well, ill):
        model = Model(it, World(("fails", "works", "works"), poll=poll), contents={})
        model.run(NOW + 150.0)
        # what comes right before a grant depends on how long ago an attempt did it last
        granted = {at.began for action, _, at in model.log if action.do is Do.GRANT}
        log: dict[tuple[int, Do], list[float]] = {}
        for action, _, at in model.log:
            if action.do is not Do.LOOK or at.began not in granted:
                for number in action.places or (-1,):
                    log.setdefault((number, action.do), []).append(at.now - NOW)
        logs.append(log)

    for key in logs[0].keys() | logs[1].keys():
        one, other = (log.get(key, []) for log in logs)
        if not key[0] or key[1] in {Do.IDENTIFY, Do.CHECK}:
            continue  # the first place's own, and what a grant of the same moment makes needless
        repeats = key[1] in {Do.LOOK, Do.POLL}  # the last of them may fall after the end
        assert abs(len(one) - len(other)) <= repeats, f"{key}: {one} and {other}"
        # an attempt for the first place may begin less than half a second before one for another would
        late = [
            abs(at - at_other) - 0.5 * count for count, (at, at_other) in enumerate(zip(one, other, strict=False), 1)
        ]
        assert max(late, default=0.0) <= 1e-6, f"{key}: {one} and {other}"


def _served(roll: Dice, place: Place, facts: Facts) -> Place:
    """A place that could take a token."""
    is_idle = place.busy is None and place.trouble is None
    if is_idle and place.seen is not None and place.seen.document is not None and place.seen.document.account == OURS:
        return replace(place, busy=None, trouble=None, wrote=None, seen=replace(place.seen, outdated=False))
    return Place(
        Seen(facts.held.document if facts.held and roll.pick((True, False)) else None, 1), looked_at=roll.ago()
    )


@examples(2500)
@given(dice)
def test_every_place_is_served_soon_once_all_is_well(roll: Dice) -> None:
    """After any history, in a calm world, each place holds a token that works within the longest pause there is."""
    model = any_model(roll)
    for _ in range(roll.pick((0, 1, 2, 5))):
        rest = model.attempt()
        model.now = max(model.now, min(rest.until, model.now + 600.0))
    model.world, calm = World(), model.now
    facts = replace(model.facts, places=tuple(replace(it, busy=None) for it in model.facts.places))
    model.facts = facts
    rotation = facts.config.rotation
    pauses = rotation.backoff.cap, rotation.min_interval, 60.0, 30.0, revocation_delay(facts.revocations, rotation), 2.0

    model.run(calm + sum(pauses))

    facts, at = model.facts, moment(model.now)
    places = range(len(facts.places))
    ours = [number for number in places if not is_strangers(facts, number) and not is_rivals(facts, number, at)]
    for number in ours:
        place = facts.places[number]
        document = place.seen.document if place.seen else None
        assert document is not None, "a place holds nothing"
        assert document.account == OURS, "a place holds the token of another account"
        assert is_valid(document, at), "readers meet an expired token"
    assert not any(owes(facts, number, at) for number in places), "a place lacks the token in use"
    if ours:
        token = token_of(facts)
        assert token is not None, "no token is held"
        assert token.expires_at > at.now, "the token in use has expired"
        assert token.revoked_at is None, "the token in use was refused"
