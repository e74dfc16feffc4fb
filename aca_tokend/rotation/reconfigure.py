"""What a changed configuration leaves of what is known of a token. Pure.

What is still true is kept: the token in use, what places held that stay, what they owe their hooks. What belongs to
another account carries it and is not there any more. A new grant is made at once only for another account or scope.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from aca_tokend.rotation.credentials import literal_identity
from aca_tokend.rotation.facts import Facts, Place
from aca_tokend.rotation.grant import identified, ours_by_mark
from aca_tokend.rotation.hook_runner import Written
from aca_tokend.rotation.standing import published

if TYPE_CHECKING:
    from aca_tokend.rotation.hook_runner import HookState
    from aca_tokend.rotation.managed import Reconfigured, Wiring


def begin(wiring: Wiring, jitter: float) -> Facts:
    """What is known of a token at first: nothing but its configuration."""
    identity = literal_identity(wiring.config, wiring.endpoint)
    return Facts(wiring.config, jitter, identity, tuple(Place() for _ in wiring.sinks))


def reconfigured(facts: Facts, before: Wiring, message: Reconfigured, now: float) -> Facts:
    """What is known with another configuration."""
    facts, after, change = ours_by_mark(facts), message.wiring, message.change
    places = tuple(
        Place() if number is None else _kept(facts, before, number, after.hooks[new], now, alike=alike)
        for new, (number, alike) in enumerate(zip(change.previous, change.alike, strict=True))
    )
    noted = "" if None in change.previous else facts.noted  # records lie beside places: those of new ones tell nothing
    facts = facts._replace(config=after.config, places=places, noted=noted)
    moved = _account(before) != _account(after)
    if moved:
        literal = literal_identity(after.config, after.endpoint)
        facts = facts._replace(identity=None) if literal is None else identified(facts, literal)
    if moved or change.tried_anew:
        # what failed may succeed by now, and what this token waited for may not wake it any more
        suspended = facts.suspended and facts.suspended._replace(polled_at=-math.inf)
        facts = hastened(facts, now)._replace(waiting=None, suspended=suspended)
    return facts


def hastened(facts: Facts, now: float) -> Facts:
    """What failed is due now."""
    trouble = facts.trouble and replace(facts.trouble, hastened_to=now)
    places = tuple(
        it._replace(trouble=replace(it.trouble, hastened_to=now)) if it.trouble else it for it in facts.places
    )
    return facts._replace(trouble=trouble, places=places)


def _account(wiring: Wiring) -> tuple[object, ...]:
    config = wiring.config
    return (wiring.endpoint.host, config.authority, config.username, config.client_id)


def _kept(facts: Facts, before: Wiring, number: int, hook: HookState | None, began: float, *, alike: bool) -> Place:
    """What is known of a place that was there before."""
    place, old, held = facts.places[number], before.hooks[number], published(facts, number)
    if old is not hook:  # another hook begins with the next write, and with what the old one owes
        written = Written(facts.name, before.sinks[number].name)
        # where there was none, what was written in this attempt may have been written since the reload
        owed = place.looked_at > began if old is None else place.hooked != held or old.owes(written)
        place = place._replace(hooked=None if owed else held)
    return place if alike else place._replace(seen=None, trouble=None, busy=None)
