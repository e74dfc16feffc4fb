"""What is due for one token: the only place that decides when anything is done. Pure and total.

`decide` asks its rules in one order. Each says what it would do and from when; the first whose time has come acts.
Where none has, the token rests until the first moment at which one would act. docs/how-it-works.md has the rules as a
table.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from aca_tokend.core.config import VaultPublish, VaultReference, references
from aca_tokend.core.policy import SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS, plan_reused, revocation_delay
from aca_tokend.rotation.standing import (
    Standing,
    adoptable,
    lacking,
    published,
    rival_until,
    standing,
    unhooked,
    works,
    writable_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.config import TokenConfig
    from aca_tokend.rotation.facts import Facts, Moment

    Rule = Callable[[Facts, Moment, float], "Action | None"]

# A look is still good for a grant after so long: thousands of tokens that start at once wait for the one that tries
# their client.
SAME_LOOK_SECONDS = 1.0
# A token that waits for its endpoint looks for a replica's token so often at most.
LOOK_AGAIN_SECONDS = 10.0
# A place that holds a stranger's document is looked at this often, to see whether it is free.
STRANGER_SECONDS = 60.0
# How often a suspended token looks whether its credential or its record changed; in Vault that costs a request.
POLL_SECONDS = 3.0
POLL_VAULT_SECONDS = 60.0


class Do(Enum):
    """What an attempt can do, one thing at a time."""

    ASK_TURN = "ask whether the endpoint may be asked again, before anything is read for a grant"
    IDENTIFY = "resolve the references of the account"
    LOOK = "read these places"
    ADOPT = "take over the token that this place holds"
    PUBLISH = "write the token in use to these places"
    ASK_HOOKS = "ask for the hooks of these places"
    POLL = "see whether a suspended token's credential changed, or its attempt records allow an attempt"
    TRY = "try the pending token"
    GRANT = "ask for a new token"
    CHECK = "try the token in use"


class Action(NamedTuple):
    """What is due, at which places, and from when, in monotonic seconds."""

    do: Do
    places: tuple[int, ...] = ()
    at: float = -math.inf


class Rest(NamedTuple):
    """Nothing is due before `until`, in monotonic seconds; `then` is. Infinity: a message must come."""

    until: float
    then: Do | None


def decide(facts: Facts, moment: Moment, chain: tuple[Rule, ...] | None = None) -> Action | Rest:
    """What is due now; where nothing is, until when to rest.

    An attempt does what was due when it began, and what follows from that: what fails in it waits for the next one, and
    holds up no later rule. They begin at least half a second apart, but for a message. Tests pass another chain.
    """
    grant = grant_at(facts, moment)
    until, then = math.inf, None
    for rule in chain or CHAIN:
        action = rule(facts, moment, grant)
        if action is None:
            continue
        if action.at <= moment.began:
            return action
        if action.at < until:
            until, then = action.at, action.do
    return Rest(max(until, moment.now, moment.began + URGENT_INTERVAL_SECONDS), then)


# ── when a grant is due ───────────────────────────────────────────────────────────────────────────────────────────────


def need_at(facts: Facts) -> float:
    """When a new token is needed, whatever stands in its way."""
    held, rotation = facts.current, facts.config.rotation
    if held is None or held.scope != facts.config.scope:
        return -math.inf
    if held.revoked_at is not None:  # a server that hands it out again has no other yet
        refused_at = max(held.revoked_at, held.reused_at or -math.inf)
        return min(refused_at + revocation_delay(facts.revocations, rotation), held.expires_at)
    if held.reused_at is not None:
        return plan_reused(held.reused_at, held.expires_at - held.reused_at, rotation)
    return held.life(facts.config, facts.jitter).rotate


def grant_at(facts: Facts, moment: Moment) -> float:
    """When a grant may be asked for; infinity where it cannot be used, or must not be asked for."""
    identity, config = facts.identity, facts.config
    if identity is None or facts.suspension is not None:
        return math.inf
    at = max(need_at(facts), serviceable_at(facts, moment), pending_until(facts))
    if facts.asked is not None and facts.asked.account == identity.account:
        at = max(at, facts.asked.at + config.rotation.min_interval)
    blocked = again_at(facts)
    if facts.waiting is not None:
        blocked = max(blocked, facts.waiting.until)
    return max(at, min(blocked, facts.turn_at))


def again_at(facts: Facts) -> float:
    """When the backoff after what failed last on the way to a new token is over."""
    return facts.trouble.again_at(facts.config) if facts.trouble else -math.inf


def serviceable_at(facts: Facts, moment: Moment) -> float:
    """From when a place could be served by a new token.

    Where one cannot be read and we hold a token, we know when it must be replaced, and a grant now may be the last to
    be had before it expires. Without one, what is published may still be good, and a grant would be a waste.
    """
    at = math.inf
    for number, place in enumerate(facts.places):
        match standing(facts, number):
            case Standing.EMPTY | Standing.OURS:
                return -math.inf
            case Standing.UNKNOWN if facts.current is not None:
                return -math.inf
            case Standing.FORMER:
                at = min(at, rival_until(facts, place, moment))
    return at


def pending_until(facts: Facts) -> float:
    """Until when no other token is asked for, because the pending one may turn out to work.

    Its reason is gone with another account or scope, and with a token that was adopted since and was not due then.
    """
    pending, identity = facts.pending, facts.identity
    if pending is None or identity is None or pending.document.account != identity.account:
        return -math.inf
    if need_at(facts) > pending.issued_at:
        return -math.inf
    life = pending.life(facts.config, facts.jitter)
    return min(life.rotate, life.expires) if pending.scope == facts.config.scope else -math.inf


def needed_at(facts: Facts) -> float:
    """When readers are about to meet an expired token: then one that could not be tried is better than none."""
    held = facts.current
    if held is None or held.revoked_at is not None:
        return -math.inf
    life = held.life(facts.config, facts.jitter)
    return life.expires - life.outage_tolerance * SHARE_OF_REMAINING


# ── the rules, in their order ─────────────────────────────────────────────────────────────────────────────────────────


def turn(facts: Facts, _moment: Moment, grant: float) -> Action | None:
    """A token that waits for its endpoint asks for its turn first, so that the places are spared a look until then."""
    held_up = facts.waiting is not None and facts.waiting.why == "endpoint_held"
    return Action(Do.ASK_TURN, at=grant) if held_up else None


def identify(facts: Facts, moment: Moment, grant: float) -> Action | None:
    """Whose token it is must be known, and is resolved anew before each grant, and before a pending one is tried."""
    identity = facts.identity
    if identity is None:
        return Action(Do.IDENTIFY, at=again_at(facts))
    if identity.resolved_at >= moment.began - SAME_LOOK_SECONDS:
        return None
    pending = try_pending(facts, moment, grant)
    return Action(Do.IDENTIFY, at=min(grant, pending.at if pending else math.inf))


def look(facts: Facts, moment: Moment, grant: float) -> Action | None:
    """Places are read at the start, after a failure, before a grant, and while they may become free or hold a token."""
    stale = moment.began - SAME_LOOK_SECONDS
    first, due = math.inf, []
    for number, place in enumerate(facts.places):
        if place.busy is not None:
            continue
        if place.trouble is not None:
            at = place.trouble.again_at(facts.config)
        elif place.seen is None:
            at = -math.inf
        else:
            at = _changes_at(facts, number, moment)
        if place.looked_at < stale:
            at = min(at, grant)
        if at <= moment.began:
            due.append(number)
        first = min(first, at)
    return Action(Do.LOOK, tuple(due), first)


def _changes_at(facts: Facts, number: int, moment: Moment) -> float:
    """When a place that was read is read again though no grant is due. Each counts from its own last look."""
    place, at = facts.places[number], math.inf
    if facts.suspension is not None or facts.pending is not None:  # another process may be granted one that works
        at = max(need_at(facts), place.looked_at + facts.config.rotation.backoff.cap)
    elif facts.waiting is not None and place.looked_at < facts.waiting.look_before:
        at = place.looked_at + LOOK_AGAIN_SECONDS
    match standing(facts, number):
        case Standing.STRANGER:
            at = place.looked_at + STRANGER_SECONDS
        case Standing.FORMER if (free_at := rival_until(facts, place, moment)) > place.looked_at:
            at = min(at, free_at)
    return at


def adopt(facts: Facts, moment: Moment, _grant: float) -> Action | None:
    """The latest token of ours that is published is taken over, if it is later than the one we hold."""
    held = facts.current
    best, found = held.document if held else None, None
    for number, place in enumerate(facts.places):
        document = published(facts, number)
        if document is None or (best is not None and not document.issued_after(best)):
            continue
        same = held is not None and document.access_token == held.document.access_token
        if same and held is not None and (held.asked_at is not None or held.revoked_at is not None):
            continue  # its times are ours to say; and what was refused stays refused
        if standing(facts, number) is Standing.OURS and adoptable(facts, place, moment) is not None:
            best, found = document, number
    return None if found is None else Action(Do.ADOPT, (found,))


def publish(facts: Facts, moment: Moment, _grant: float) -> Action | None:
    """The token in use is brought to each place that lacks it, while it is valid."""
    held = facts.current
    if held is None or held.revoked_at is not None or held.expires_at <= moment.now:
        return None
    first, due = math.inf, []
    for number in range(len(facts.places)):
        at = writable_at(facts, number, moment)
        if at <= moment.began:
            due.append(number)
        first = min(first, at)
    return Action(Do.PUBLISH, tuple(due), first) if first < held.expires_at else None


def hook(facts: Facts, _moment: Moment, _grant: float) -> Action | None:
    """A hook runs for each token that its place holds, also for one that was there when the process started."""
    due = unhooked(facts)
    return Action(Do.ASK_HOOKS, due) if due else None


def poll(facts: Facts, _moment: Moment, _grant: float) -> Action | None:
    """A suspended token goes on once its credential changed, its records allow it, or a cautious attempt is due."""
    suspension = facts.suspension
    if suspension is None or facts.identity is None:
        return None
    return Action(Do.POLL, at=_polled(facts, suspension.polled_at, poll_seconds(facts.config)))


def records_at(facts: Facts) -> float:
    """From when a poll reads the attempt records of a suspended token too."""
    in_vault = any(isinstance(target, VaultPublish) for target in facts.config.publish)
    read_at = facts.suspension.read_at if facts.suspension else math.inf
    return _polled(facts, read_at, POLL_VAULT_SECONDS if in_vault else POLL_SECONDS)


def _polled(facts: Facts, last: float, interval: float) -> float:
    """The next of a row of polls; one comes as soon as a cautious attempt is due."""
    cautious = facts.suspension.cautious_at(facts.config) if facts.suspension else math.inf
    return min(last + interval, cautious) if last < cautious else last + interval


def try_pending(facts: Facts, moment: Moment, _grant: float) -> Action | None:
    """A token that was granted and could not be tried is tried again, until its rotation point.

    Later a new one is asked for; where none is to be had, this one serves readers before they meet an expired one.
    """
    pending, at, until = facts.pending, again_at(facts), pending_until(facts)
    if pending is None or until == -math.inf:
        return None
    if at > until:
        at = max(at, needed_at(facts))
    return Action(Do.TRY, at=at) if max(at, moment.now) < pending.expires_at else None


def grant(_facts: Facts, _moment: Moment, grant: float) -> Action | None:
    """A new token is asked for."""
    return Action(Do.GRANT, (), grant)


def canary(facts: Facts, moment: Moment, _grant: float) -> Action | None:
    """The token in use is tried, where that is configured; an expired one says nothing."""
    held, verify = facts.current, facts.config.verify
    if held is None or verify is None or held.revoked_at is not None or held.expires_at <= moment.now:
        return None
    every = verify.every or math.inf
    if not works(facts, held) and any(lacking(facts, number) for number in range(len(facts.places))):
        every = min(every, facts.config.rotation.backoff.cap)
    at = held.checked_at + every if held.checked_at is not None else -math.inf
    return Action(Do.CHECK, at=at) if at < held.expires_at and every < math.inf else None


CHAIN: tuple[Rule, ...] = (turn, identify, look, adopt, publish, hook, poll, try_pending, grant, canary)
# Those of them that lead to another token.
FOR_A_TOKEN: tuple[Rule, ...] = (identify, try_pending, grant)


def next_token_at(facts: Facts, moment: Moment) -> float:
    """When another token is next asked for or tried, as status and log tell it; infinity for never."""
    if facts.suspension is not None:
        return facts.suspension.cautious_at(facts.config)
    decision = decide(facts, moment, FOR_A_TOKEN)
    return decision.until if isinstance(decision, Rest) else moment.now


def poll_seconds(config: TokenConfig) -> float:
    """How often a suspended token looks whether its credential changed."""
    in_vault = any(isinstance(reference, VaultReference) for reference in references(config))
    return POLL_VAULT_SECONDS if in_vault else POLL_SECONDS
