"""The invariants about what is run after a write: it follows each one, and seldom more than that."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.config import after_of
from aca_tokend.core.policy import HOOK_SPACING_SECONDS

if TYPE_CHECKING:
    from aca_tokend.core.config import After
    from aca_tokend.simulation.places import Place, SimHook
    from aca_tokend.simulation.replica import Replica
    from tests.simulation.checker import Checker

EPSILON = 1e-3
# A failing hook is run again at the cap, and one that hangs takes so long.
CAP = 60.0
HANGS = 10.0


@dataclass
class Hooked:
    """Which writes no run has followed yet."""

    checker: Checker
    owed: dict[int, float] = field(default_factory=dict)  # by place: when it was written
    last: dict[tuple[int, int, After], float] = field(default_factory=dict)  # of each process and hook: its last run
    runs: dict[After, int] = field(default_factory=lambda: defaultdict(int))
    writes: dict[After, int] = field(default_factory=lambda: defaultdict(int))
    _homes: dict[int, tuple[Replica, After]] | None = None

    @property
    def within(self) -> float:
        """How long a run may take to follow while all is well: sinks that hang are waited for before it."""
        return self.checker.scenario.longest_hang + CAP + HANGS + HOOK_SPACING_SECONDS + 5.0

    def written(self, place: Place) -> None:
        """From now on a run is owed, if it has a hook."""
        home = self._home(place)
        if home is None:
            return
        world = self.checker.cluster.world
        self.owed[id(place)] = world.now
        self.writes[home[1]] += 1
        world.at(world.now + self.within, self._followed, place, home, world.now)

    def ran(self, hook: SimHook, began: float) -> None:
        """A run succeeded: for all that was written before it began."""
        replica, after = hook.replica, hook.after
        self.runs[after] += 1
        last = self.last.get((replica.number, hook.start, after))
        if last is not None and began - last < HOOK_SPACING_SECONDS - EPSILON:
            self.checker.broken("hooks_keep_distance", f"{replica.name}: two runs {began - last:.3f} s apart")
        self.last[replica.number, hook.start, after] = began
        for places in replica.places.values():
            for place in places:
                home = self._home(place)
                if home is not None and home[1] == after and self.owed.get(id(place), began + 1.0) <= began:
                    del self.owed[id(place)]

    def _home(self, place: Place) -> tuple[Replica, After] | None:
        """Of a file: the replica that writes it, and what is run after that."""
        if self._homes is None:
            self._homes = {}
            for replica in self.checker.cluster.replicas:
                for token in self.checker.scenario.config.tokens:
                    for it, publish in zip(replica.places[token.name], token.publish, strict=True):
                        if (after := after_of(publish)) is not None:
                            self._homes[id(it)] = (replica, after)
        return self._homes.get(id(place))

    def _followed(self, place: Place, home: tuple[Replica, After], written: float) -> None:
        """A run has followed by now, or there is an excuse; then it is asked again."""
        if self.owed.get(id(place)) != written:
            return
        self.checker.checks += 1
        world, conditions = self.checker.cluster.world, self.checker.conditions
        replica, after = home
        whats = [f"hook {replica.number} {after}", f"alive {replica.number}", f"configured {place.token}"]
        whats += [store.name for store in (place.store, *self.checker.cluster.vaults.values())]
        whats += [place.name, f"token {place.token}"]  # a write whose answer comes late, or never, is not known yet
        latest = max(conditions.well_since.get(what, 0.0) for what in whats)
        if world.now - latest >= self.within:
            self.checker.broken("hook_follows_write", f"{place.name}: no run since it was written {written:.3f}")
        world.at(world.now + self.within, self._followed, place, home, written)

    def at_the_end(self) -> None:
        """On quiet days there are no more runs than writes, and one for each place at the start."""
        for after, runs in self.runs.items():
            if runs > self.writes[after] + len(self._homes or {}):
                self.checker.broken("hooks_bounded", f"{runs} runs for {self.writes[after]} writes")
