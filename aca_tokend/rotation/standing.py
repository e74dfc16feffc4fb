"""What a place holds, and whether our token may be written there. Pure: facts and a moment in, an answer out.

The name decides what may be replaced, the account what may be adopted. What was read before our request was sent was
issued before our token, whatever the clocks say; only what came since is compared by its times.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

from aca_tokend.core.config import after_of
from aca_tokend.core.policy import SHARE_OF_REMAINING
from aca_tokend.core.token import implausible, owned

if TYPE_CHECKING:
    from aca_tokend.core.token import Document, Seen
    from aca_tokend.rotation.facts import Facts, Held, Moment, Place


class Standing(Enum):
    """What a place holds, for this token."""

    UNKNOWN = "unknown"  # not read, the last try failed, or a call hangs there
    EMPTY = "empty"
    OURS = "ours"  # a document of the configured account
    FORMER = "former"  # ours to replace, but of another account, or damaged
    STRANGER = "stranger"


def standing(facts: Facts, number: int) -> Standing:
    """What the place with this number holds."""
    place = facts.places[number]
    seen = place.seen
    if seen is None or place.busy is not None:
        return Standing.UNKNOWN
    document = seen.document
    if document is None and seen.foreign is None:
        return Standing.EMPTY
    if not (_ours(facts, place, seen) or facts.config.publish[number].replace_foreign):
        return Standing.STRANGER
    return Standing.OURS if document is not None and of_account(facts, document) else Standing.FORMER


def _ours(facts: Facts, place: Place, seen: Seen) -> bool:
    """Whether it was written for this token: its name, its account or our own mark says so."""
    account, document = facts.identity.account if facts.identity else "", seen.document
    named = seen.token == facts.name if document is None else owned(document, token=facts.name, account=account)
    return named or (place.wrote is not None and place.wrote.stamp == seen.stamp)


def of_account(facts: Facts, document: Document) -> bool:
    """Whether the document is a token of the configured account."""
    return facts.identity is not None and document.account == facts.identity.account


def published(facts: Facts, number: int) -> Document | None:
    """The token of the configured account that the place holds, as far as is known."""
    seen = facts.places[number].seen
    document = seen.document if seen else None
    return document if document is not None and of_account(facts, document) else None


def unhooked(facts: Facts) -> tuple[int, ...]:
    """The places that hold a token which their hook was not asked to run for."""
    return tuple(
        number
        for number, target in enumerate(facts.config.publish)
        if after_of(target) is not None and published(facts, number) not in (None, facts.places[number].hooked)
    )


def readable(facts: Facts, number: int) -> Document | None:
    """The token of ours that readers find there, also one of the account that was configured before."""
    place = facts.places[number]
    return place.last.document if place.last and _ours(facts, place, place.last) else None


def holds(place: Place, held: Held) -> bool:
    """Whether the place holds this token, as it should be written.

    Only the one whom a token was granted to knows its times; others leave them as they found them.
    """
    document = place.seen.document if place.seen else None
    if document is None or document.access_token != held.document.access_token:
        return False
    if document.account != held.document.account:
        return False
    return held.asked_at is None or document.issued_at == held.document.issued_at


def lacking(facts: Facts, number: int) -> bool:
    """Whether our token belongs there and is not there."""
    place, held = facts.places[number], facts.current
    if held is None or place.seen is None or (holds(place, held) and not place.seen.outdated):
        return False
    return standing(facts, number) not in {Standing.UNKNOWN, Standing.STRANGER}


def writable_at(facts: Facts, number: int, moment: Moment) -> float:
    """When our token may be written there; infinity where it may not, or need not."""
    held, place = facts.current, facts.places[number]
    if held is None or not lacking(facts, number):
        return math.inf
    document = published(facts, number)
    if document is None:
        return rival_until(facts, place, moment) if _tried(facts, held) else math.inf
    if document.access_token == held.document.access_token:
        return -math.inf  # never fenced: a token whose dates were set anew may look earlier
    expiry = moment.monotonic(document.expires_at.timestamp())
    at = -math.inf if _read_before(facts, place, held, moment) or held.document.issued_after(document) else expiry
    if works(facts, held):
        return at
    # one that could not be tried is brought there once readers are about to meet an expired token
    tolerance = (document.expires_at - document.refresh_after).total_seconds()
    return max(at, expiry - tolerance * SHARE_OF_REMAINING) if _tried(facts, held) else math.inf


def _read_before(facts: Facts, place: Place, held: Held, moment: Moment) -> bool:
    """Whether what is there was read before our token was asked for, and so gives way to it whatever its times say.

    What was read before ours was adopted is compared by its times; where those cannot be believed, it gives way too.
    """
    if held.asked_at is not None:
        return place.looked_at <= held.asked_at
    return place.looked_at <= held.adopted_at and adoptable(facts, place, moment) is None


def rival_until(facts: Facts, place: Place, moment: Moment) -> float:
    """Until when another account's document under our name stays.

    One that was issued after our write there is of another live daemon with the same name: the two must not overwrite
    each other for ever. One from before is ours to replace.
    """
    document, wrote, identity = place.seen.document if place.seen else None, place.wrote, facts.identity
    if document is None or wrote is None or identity is None or wrote.account != identity.account:
        return -math.inf
    if document.issued_at.timestamp() <= wrote.wall:
        return -math.inf
    first_seen = place.first_seen[1] if place.first_seen else place.looked_at
    # whatever times it tells of itself, it is not believed for longer than a token of ours
    return min(moment.monotonic(document.refresh_after.timestamp()), first_seen + facts.config.rotation.max_lifetime)


def fenced(facts: Facts, number: int, moment: Moment) -> bool:
    """Whether a later token keeps ours from the place, though it is not simply another replica's to adopt."""
    held = facts.current
    if held is None or held.asked_at is None or not moment.now < writable_at(facts, number, moment) < math.inf:
        return False
    return held.unreported_since is not None or adoptable(facts, facts.places[number], moment) is None


def adoptable(facts: Facts, place: Place, moment: Moment) -> Document | None:
    """The token that may be adopted from there: valid, of the configured account, and plausible in every field.

    It is judged by the time at which it was read, so that waiting does not change the answer.
    """
    identity = facts.identity
    document = place.seen.document if place.seen else None
    if document is None or identity is None or document.account != identity.account:
        return None
    if document.expires_at.timestamp() <= moment.wall:
        return None
    read_at = datetime.fromtimestamp(moment.wall - (moment.now - place.looked_at), UTC)
    why = implausible(
        document,
        username=identity.username,
        authority=identity.authority,
        now=read_at,
        max_lifetime=facts.config.rotation.max_lifetime,
    )
    return document if why is None else None


def works(facts: Facts, held: Held) -> bool:
    """Whether it may be brought everywhere: what we were granted was tried before we held it."""
    return held.asked_at is not None or facts.config.verify is None or held.works


def _tried(facts: Facts, held: Held) -> bool:
    """Whether it may be brought where readers have nothing better: it could at least not be refused."""
    return works(facts, held) or held.checked_at is not None
