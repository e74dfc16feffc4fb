"""What the promise rests on at any moment: which endpoint, sink, credential and process are well, and since when."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Conditions:
    """For each thing that can be ill: since when it has been well (infinity: it is ill now), and the time it needs.

    `needs` is how long after it became well again a published token can be asked for.
    """

    ill: dict[str, int] = field(default_factory=dict)
    well_since: dict[str, float] = field(default_factory=dict)
    needs: dict[str, float] = field(default_factory=dict)
    disturbed_at: float = 0.0  # when anything began or ended to be ill

    def falls_ill(self, what: str, now: float, needs: float) -> None:
        """It does not do its work from now on."""
        self.ill[what] = self.ill.get(what, 0) + 1
        self.well_since[what] = math.inf
        self.needs[what] = max(needs, self.needs.get(what, 0.0)) if self.ill[what] > 1 else needs
        self.disturbed_at = now

    def recovers(self, what: str, now: float) -> None:
        """It works again, unless it is ill in another way still."""
        self.ill[what] -= 1
        self.disturbed_at = now
        if not self.ill[what]:
            self.well_since[what] = now

    def excuse(self, whats: tuple[str, ...], now: float) -> str | None:
        """Why a token need not be fresh at this moment; None: it must be."""
        for what in whats:
            if now - self.well_since.get(what, -math.inf) < self.needs.get(what, 0.0):
                return what
        return None
