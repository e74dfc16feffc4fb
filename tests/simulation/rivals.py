"""The invariant about daemons that keep different accounts at one place: they do not overwrite each other for ever."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aca_tokend.simulation.places import Place
    from aca_tokend.simulation.server import Minted, Whose
    from tests.simulation.checker import Checker

# One of each as the configuration changes, and one that was under way.
AT_FIRST = 2
# A place passes on where whoever has it is gone for a while. Daemons that overwrite what they find do so once a life.
TURNS_A_LIFE = 0.5


@dataclass
class Rivals:
    """Which tokens have two accounts, since when, and how often a place passed from one to the other."""

    checker: Checker
    since: dict[str, float] = field(default_factory=dict)
    _turns: dict[tuple[int, Whose], int] = field(default_factory=lambda: defaultdict(int))
    _last: dict[int, Whose] = field(default_factory=dict)

    def begin(self, token: str) -> None:
        """From now on replicas differ about it."""
        self.since[token] = self.checker.cluster.world.now
        self._turns.clear()
        self.checker.change(token)

    def end(self, token: str) -> None:
        """They agree again."""
        del self.since[token]
        self.checker.changed(token)

    def published(self, place: Place, minted: Minted) -> None:
        """A daemon wrote this: how often has it taken the place from the other by now?"""
        last, self._last[id(place)] = self._last.get(id(place)), minted.whose
        since = self.since.get(place.token)
        if since is None or last is None or last == minted.whose:
            return
        scenario = self.checker.scenario
        turn = id(place), minted.whose
        self._turns[turn] += 1
        lives = (self.checker.cluster.world.now - since) / scenario.shortest_rotation
        if self._turns[turn] > AT_FIRST + lives * TURNS_A_LIFE:
            message = f"{place.name}: taken {self._turns[turn]} times by {minted.whose.username} in {lives:.1f} lives"
            self.checker.broken("no_overwriting_for_ever", message)
