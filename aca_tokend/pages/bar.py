"""The bar of a token: where its rotation point, its expiry and now lie in its life, in percent. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.saying import relative, span

if TYPE_CHECKING:
    from datetime import datetime

    from aca_tokend.core.status import TokenStatus

# How far beyond its expiry the bar of a dead token goes on, as a share of its life.
BEYOND = 0.25


@dataclass(frozen=True, slots=True)
class Bar:
    """Percent from the left; `label` says the same in words."""

    rotation: float
    expiry: float
    now: float
    label: str


def bar(token: TokenStatus, now: datetime) -> Bar | None:
    """The bar, or None where nothing is known of a life."""
    issued, rotate, expires = token.issued_at, token.rotate_at, token.expires_at
    if issued is None or rotate is None or expires is None or expires <= issued:
        return None
    life = (expires - issued).total_seconds()
    end = life if now <= expires else life * (1 + BEYOND)

    def place(at: datetime) -> float:
        return round(min(max((at - issued).total_seconds() / end, 0.0), 1.0) * 100, 2)

    point = "its rotation point passed" if rotate <= now else "rotates"
    end_of_life = "expired" if expires <= now else "expires"
    label = (
        f"A life of {span(life)}: issued {relative(issued, now)}, {point} {relative(rotate, now)}, "
        f"{end_of_life} {relative(expires, now)}."
    )
    return Bar(place(rotate), place(expires), place(now), label)
