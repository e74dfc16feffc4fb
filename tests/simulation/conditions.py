"""What the promise rests on at any moment: which endpoint, place, account and process are well, and since when."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass
class Conditions:
    """For each thing that can be ill: since when it has been well (infinity: it is ill now), and the time it needs.

    `needs` is how long after it became well again a published token can be asked for; `settles` how long it takes until
    what expired meanwhile is replaced too. `recovered` is called with each thing that is well again.
    """

    recovered: Callable[[str], None]
    ill: dict[str, int] = field(default_factory=dict)
    well_since: dict[str, float] = field(default_factory=dict)
    needs: dict[str, float] = field(default_factory=dict)
    settles: dict[str, float] = field(default_factory=dict)
    disturbed_at: float = 0.0  # when anything began or ended to be ill

    def falls_ill(self, what: str, now: float, needs: float, settles: float = 0.0) -> None:
        """It does not do its work from now on."""
        self.ill[what] = self.ill.get(what, 0) + 1
        self.well_since[what] = math.inf
        self.needs[what] = max(needs, self.needs.get(what, 0.0)) if self.ill[what] > 1 else needs
        self.settles[what] = max(settles, self.settles.get(what, 0.0)) if self.ill[what] > 1 else settles
        self.disturbed_at = now

    def recovers(self, what: str, now: float) -> None:
        """It works again, unless it is ill in another way still."""
        self.ill[what] -= 1
        self.disturbed_at = now
        if not self.ill[what]:
            self.well_since[what] = now
            self.recovered(what)

    def excuse(self, whats: Iterable[str], now: float) -> str | None:
        """Why a token need not be fresh at this moment; None: it must be."""
        for what in whats:
            if now - self.well_since.get(what, -math.inf) < self.needs.get(what, 0.0):
                return what
        return None

    def unsettled(self, whats: Iterable[str], now: float, seconds: float) -> str | None:
        """What has not been well for so many seconds, or for as long as it takes to settle."""
        for what in whats:
            needs = max(self.needs.get(what, 0.0), self.settles.get(what, 0.0), seconds)
            if now - self.well_since.get(what, -math.inf) < needs:
                return what
        return None

    def elsewhere(self, whats: Iterable[str], now: float, seconds: float) -> bool:
        """Whether anything but these is ill, or was within so many seconds."""
        own = set(whats)
        return any(what not in own and now - since < seconds for what, since in self.well_since.items())
