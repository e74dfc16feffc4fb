"""What is due for one token: the only place that decides when anything is done. Pure and total.

`decide` asks its rules in one order. Each says what it would do and from when; the first whose time has come acts.
Where none has, the token rests until the first moment at which one would act. docs/how-it-works.md has the rules as a
table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from aca_tokend.core.config import VaultPublish, VaultReference, after_of, references
from aca_tokend.core.outcome import Step
from aca_tokend.core.policy import SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS, plan_reused, revocation_delay
from aca_tokend.rotation.standing import (
    Standing,
    adoptable,
    lacking,
    published,
    rival_until,
    standing,
    writable_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.config import TokenConfig
    from aca_tokend.rotation.facts import Facts, Held, Moment

# A look is still good for a grant after so long: thousands of tokens that start at once wait for the one that tries
# their client.
SAME_LOOK_SECONDS = 1.0
# A place that holds a stranger's document is looked at this often, to see whether it is free.
STRANGER_SECONDS = 60.0
# How often a suspended token looks whether its credential or its record changed; in Vault that costs a request.
POLL_SECONDS = 3.0
POLL_VAULT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class AskTurn:
    """Ask whether the endpoint may be asked again, before anything is read for a grant."""


@dataclass(frozen=True, slots=True)
class Identify:
    """Resolve the references of the account."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read these places."""

    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take over the token that this place holds."""

    place: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Write the token in use to these places."""

    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AskHooks:
    """Ask for the hooks of these places."""

    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Poll:
    """See whether a suspended token's credential changed and, with `records`, whether its records allow an attempt."""

    records: bool


@dataclass(frozen=True, slots=True)
class Try:
    """Try the pending token."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Ask for a new token."""


@dataclass(frozen=True, slots=True)
class Check:
    """Try the token in use."""


Action = AskTurn | Identify | Look | Adopt | Publish | AskHooks | Poll | Try | Grant | Check


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is due before `until`, in monotonic seconds; then this rule acts. Infinity: a message must come."""

    until: float
    rule: str


class Due(NamedTuple):
    """What a rule would do, and from when."""

    at: float
    action: Action


def decide(facts: Facts, moment: Moment) -> Action | Rest:
    """What is due now; where nothing is, until when to rest.

    Attempts of one token begin at least half a second apart, but for a message.
    """
    grant = grant_at(facts, moment)
    until, name = math.inf, ""
    for rule in CHAIN:
        due = rule(facts, moment, grant)
        if due is None:
            continue
        if due.at <= moment.now:
            return due.action
        if due.at < until:
            until, name = due.at, rule.__name__
    return Rest(max(until, moment.began + URGENT_INTERVAL_SECONDS), name)


# ── when a grant is due ───────────────────────────────────────────────────────────────────────────────────────────────


def need_at(facts: Facts) -> float:
    """When a new token is needed, whatever stands in its way."""
    held, config = facts.current, facts.config
    if held is None or held.scope != config.scope:
        return -math.inf
    if held.revoked_at is not None:
        return held.revoked_at + revocation_delay(facts.revocations, config.rotation)
    if held.reused_at is not None:
        return plan_reused(held.reused_at, held.expires_at - held.reused_at, config.rotation)
    return held.life(config, facts.jitter).rotate


def grant_at(facts: Facts, moment: Moment) -> float:
    """When a grant may be asked for; infinity where it cannot be used, or must not be asked for."""
    identity = facts.identity
    if identity is None or facts.suspension is not None:
        return math.inf
    at = max(need_at(facts), serviceable_at(facts, moment))
    if facts.asked is not None and facts.asked.account == identity.account:
        at = max(at, facts.asked.at + facts.config.rotation.min_interval)
    pending = usable_pending(facts)
    if pending is not None:
        at = max(at, pending.life(facts.config, facts.jitter).rotate)
    blocked = facts.trouble.again_at(facts.config) if facts.trouble else -math.inf
    if facts.waiting is not None:
        blocked = max(blocked, facts.waiting.until)
    return max(at, min(blocked, facts.turn_at))


def serviceable_at(facts: Facts, moment: Moment) -> float:
    """From when a place could be served by a new token.

    Where none can be read and we hold a token, we know when it must be replaced, and a grant now may be the last to be
    had before it expires. Without one, what is published may still be good, and a grant would be a waste.
    """
    at = math.inf
    for number, place in enumerate(facts.places):
        match standing(facts, number):
            case Standing.UNKNOWN:
                if facts.current is not None:
                    return -math.inf
            case Standing.EMPTY | Standing.OURS:
                return -math.inf
            case Standing.FORMER:
                at = min(at, rival_until(facts, place, moment))
            case Standing.STRANGER:
                pass
    return at


def usable_pending(facts: Facts) -> Held | None:
    """The pending token, unless its reason is gone: another account or scope, or a later token that we hold."""
    pending, held = facts.pending, facts.current
    if pending is None or facts.identity is None or pending.document.account != facts.identity.account:
        return None
    if pending.scope != facts.config.scope:
        return None
    later = held is not None and held.revoked_at is None and not pending.document.issued_after(held.document)
    return None if later else pending


def needed_at(facts: Facts) -> float:
    """When readers are about to meet an expired token: then one that could not be tried is better than none."""
    held = facts.current
    if held is None or held.revoked_at is not None:
        return -math.inf
    life = held.life(facts.config, facts.jitter)
    return life.expires - life.outage_tolerance * SHARE_OF_REMAINING


# ── the rules, in their order ─────────────────────────────────────────────────────────────────────────────────────────


def turn(facts: Facts, _moment: Moment, grant: float) -> Due | None:
    """A token that waits for its endpoint asks for its turn first, so that the places are spared a look until then."""
    waiting = facts.waiting
    held_up = waiting is not None and waiting.why == "endpoint_held" and grant < math.inf
    return Due(grant, AskTurn()) if held_up else None


def identify(facts: Facts, moment: Moment, grant: float) -> Due | None:
    """Whose token it is must be known, and is resolved anew before each grant."""
    identity, trouble = facts.identity, facts.trouble
    if identity is None:
        return Due(trouble.again_at(facts.config) if trouble else -math.inf, Identify())
    if identity.resolved_at == math.inf or identity.resolved_at >= moment.began - SAME_LOOK_SECONDS:
        return None
    return Due(grant, Identify())


def look(facts: Facts, moment: Moment, grant: float) -> Due | None:
    """Places are read at the start, after a failure, before a grant, and while a stranger or a rival holds them."""
    if facts.suspension is not None:  # another process may be granted the token that we cannot have
        grant = max(need_at(facts), max(it.looked_at for it in facts.places) + facts.config.rotation.backoff.cap)
    if facts.waiting is not None and facts.waiting.look:
        grant = -math.inf
    fresh = moment.began - SAME_LOOK_SECONDS
    first = math.inf
    due: list[int] = []
    for number, place in enumerate(facts.places):
        if place.busy is not None:
            continue
        if place.trouble is not None:
            at = place.trouble.again_at(facts.config)
        elif place.seen is None:
            at = -math.inf
        else:
            at = _again_at(facts, number, moment)
        if place.looked_at < fresh:
            at = min(at, grant)
        if at <= moment.now:
            due.append(number)
        first = min(first, at)
    return None if first == math.inf else Due(first, Look(tuple(due)))


def _again_at(facts: Facts, number: int, moment: Moment) -> float:
    """When a place that was read is read again though no grant is due."""
    place = facts.places[number]
    match standing(facts, number):
        case Standing.STRANGER:
            return place.looked_at + STRANGER_SECONDS
        case Standing.FORMER:
            free_at = rival_until(facts, place, moment)
            return free_at if free_at > place.looked_at else math.inf
        case _:
            return math.inf


def adopt(facts: Facts, moment: Moment, _grant: float) -> Due | None:
    """The latest token of ours that is published is taken over, if it is later than the one we hold."""
    held = facts.current
    best, found = held.document if held else None, None
    for number, place in enumerate(facts.places):
        document = place.seen.document if place.seen else None
        if document is None or (best is not None and not document.issued_after(best)):
            continue
        same = held is not None and document.access_token == held.document.access_token
        if same and held is not None and (held.asked_at is not None or held.revoked_at is not None):
            continue  # its times are ours to say; and what was refused stays refused
        if standing(facts, number) is Standing.OURS and adoptable(facts, place, moment) is not None:
            best, found = document, number
    return None if found is None else Due(-math.inf, Adopt(found))


def publish(facts: Facts, moment: Moment, _grant: float) -> Due | None:
    """The token in use is brought to each place that lacks it, while it is valid."""
    held = facts.current
    if held is None or held.revoked_at is not None or held.expires_at <= moment.now:
        return None
    first = math.inf
    due: list[int] = []
    for number in range(len(facts.places)):
        at = writable_at(facts, number, moment)
        if at <= moment.now:
            due.append(number)
        first = min(first, at)
    return None if first >= held.expires_at else Due(first, Publish(tuple(due)))


def hook(facts: Facts, _moment: Moment, _grant: float) -> Due | None:
    """A hook runs for each token that its place holds, also for one that was there when the process started."""
    due = []
    for number, (place, target) in enumerate(zip(facts.places, facts.config.publish, strict=True)):
        if after_of(target) is None:
            continue
        document = published(facts, number)
        if document is not None and document != place.hooked:
            due.append(number)
    return Due(-math.inf, AskHooks(tuple(due))) if due else None


def poll(facts: Facts, moment: Moment, _grant: float) -> Due | None:
    """A suspended token goes on once its credential changed, its records allow it, or a cautious attempt is due."""
    suspension = facts.suspension
    if suspension is None or facts.identity is None:
        return None
    cautious = suspension.cautious_at(facts.config)
    at = suspension.polled_at + poll_seconds(facts.config)
    at = min(at, max(cautious, suspension.polled_at + POLL_SECONDS))
    records = suspension.read_at + _read_seconds(facts.config) <= moment.now or cautious <= moment.now
    return Due(at, Poll(records))


def try_pending(facts: Facts, _moment: Moment, _grant: float) -> Due | None:
    """A token that was granted and could not be tried is tried again, until its rotation point."""
    pending, trouble = usable_pending(facts), facts.trouble
    if pending is None:
        return None
    untried = facts.config.verify is not None and trouble is not None and trouble.failure.step is Step.VERIFY
    at = trouble.again_at(facts.config) if untried and trouble else -math.inf
    return Due(at, Try()) if at < pending.life(facts.config, facts.jitter).rotate else None


def grant(facts: Facts, _moment: Moment, grant: float) -> Due | None:
    """A new token is asked for."""
    del facts
    return None if grant == math.inf else Due(grant, Grant())


def canary(facts: Facts, _moment: Moment, _grant: float) -> Due | None:
    """The token in use is tried, where that is configured; an expired one says nothing."""
    held, verify = facts.current, facts.config.verify
    if held is None or verify is None or held.revoked_at is not None:
        return None
    wanted = not held.works and any(lacking(facts, number) for number in range(len(facts.places)))
    if held.checked_at is None:
        at = -math.inf if wanted or verify.every else math.inf
    else:
        cap = facts.config.rotation.backoff.cap
        at = held.checked_at + (min(verify.every or cap, cap) if wanted else verify.every or math.inf)
    return Due(at, Check()) if at < held.expires_at and _moment.now < held.expires_at else None


Rule = "Callable[[Facts, Moment, float], Due | None]"
CHAIN: tuple[Callable[[Facts, Moment, float], Due | None], ...] = (
    turn,
    identify,
    look,
    adopt,
    publish,
    hook,
    poll,
    try_pending,
    grant,
    canary,
)


def poll_seconds(config: TokenConfig) -> float:
    """How often a suspended token looks whether its credential changed."""
    in_vault = any(isinstance(reference, VaultReference) for reference in references(config))
    return POLL_VAULT_SECONDS if in_vault else POLL_SECONDS


def _read_seconds(config: TokenConfig) -> float:
    """How often a suspended token reads its records."""
    in_vault = any(isinstance(target, VaultPublish) for target in config.publish)
    return POLL_VAULT_SECONDS if in_vault else POLL_SECONDS
