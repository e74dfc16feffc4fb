"""What the checker reads of what the engine knows of a token: the one place to change where it is kept elsewhere.

Nothing else in these tests looks into a token. All times are monotonic seconds of its own process.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING

from aca_tokend.rotation.decide import STRANGER_SECONDS, need_at
from aca_tokend.rotation.decide import poll_seconds as poll
from aca_tokend.rotation.standing import Standing, rival_until, standing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.policy import Life
    from aca_tokend.rotation.facts import Moment
    from aca_tokend.rotation.managed import ManagedToken


def life(token: ManagedToken) -> Life | None:
    """Issue, rotation point and expiry of the token that it holds; None where it holds none."""
    return token.facts.life


def failing(token: ManagedToken) -> bool:
    """Whether its last attempt to get a token failed."""
    return token.facts.trouble is not None


def revoked(token: ManagedToken) -> bool:
    """Whether the token that it holds was refused before its time."""
    return token.facts.revoked


def suspended(token: ManagedToken) -> bool:
    """Whether it waits for another credential."""
    return token.facts.suspension is not None


def poll_seconds(token: ManagedToken) -> float:
    """How often it looks for that credential."""
    return poll(token.facts.config)


def retry_after_seconds(token: ManagedToken) -> float | None:
    """For how long the endpoint asked to be left alone at the last failure."""
    trouble = token.facts.trouble
    return trouble.failure.retry_after_seconds if trouble else None


def rotates_at(token: ManagedToken) -> float:
    """When it needs the next token."""
    return need_at(token.facts)


def seen_at(token: ManagedToken, number: int) -> float:
    """When the look began of which it knows what its place of this number holds, or when it wrote there itself."""
    return token.facts.places[number].looked_at


def knows(token: ManagedToken, number: int) -> bool:
    """Whether its last call to the place of this number succeeded."""
    place = token.facts.places[number]
    return place.seen is not None and place.trouble is None and place.busy is None


def occupied_until(token: ManagedToken, moment: Moment) -> float:
    """Until when the places that somebody else has are left alone: a stranger's, a rival's."""
    facts = token.facts
    until = -math.inf
    for number, place in enumerate(facts.places):
        match standing(facts, number):
            case Standing.STRANGER:
                until = max(until, place.looked_at + STRANGER_SECONDS)
            case Standing.FORMER:
                until = max(until, rival_until(facts, place, moment))
            case _:
                pass
    return until


def waits_for_a_claim(token: ManagedToken) -> bool:
    """Whether it waits since no attempt with its credential is left, and none is known to have been refused."""
    return token.facts.waits_for == "claimed_elsewhere"


def spent_unseen(record: Mapping[str, object], most: int, before: float = math.inf) -> bool:
    """Whether an attempt record had all attempts spent `before` a wall time, and does not know how they ended."""
    entries = [entry for entry in record.values() if isinstance(entry, dict)]
    spent = (entry for entry in entries if not entry["proven"] and entry["spent"] >= most and not entry["reason"])
    return any(datetime.fromisoformat(entry["changed_at"]).timestamp() < before for entry in spent)
