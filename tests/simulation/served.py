"""The promise about each place: it holds a token that works, unless something that this very place rests on is ill.

What happens to other tokens, and to other places of the same token, is no excuse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.simulation.places import OWN_RECORD, Hand
from aca_tokend.simulation.world import START
from tests.simulation import engine_view

if TYPE_CHECKING:
    from aca_tokend.simulation.places import Place
    from aca_tokend.simulation.server import Minted
    from tests.simulation.checker import Checker

HOUR = 3600.0
PLAUSIBLE_SECONDS = 300.0
# A token that cannot be tried is kept back for as long as readers can do without it.
UNTRIED = "api answers"


@dataclass
class Served:
    """What each place rests on, and whether it is served."""

    checker: Checker
    _parts: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def parts(self, place: Place) -> tuple[str, ...]:
        """What must be well, by the names of the conditions."""
        parts = self._parts.get(id(place))
        if parts is None:
            scenario, disks = self.checker.scenario, self.checker.cluster.disks
            token = place.token
            parts = (
                "main",
                "api",
                "any replica",
                scenario.user(token),
                scenario.client(token),
                f"configured {token}",
                f"token {token}",
                place.store.name,
                place.name,
                *([f"alive {disks.index(place.store)}"] if place.store in disks else ()),
            )
            self._parts[id(place)] = parts
        return parts

    def expires(self, place: Place, minted: Minted) -> None:
        """A published token ceases to work: has it been replaced, or is there an excuse?"""
        checker, now = self.checker, self.checker.cluster.world.now
        checker.checks += 1
        if place.minted is not minted or minted.revoked <= now or checker.scenario.hopeless:
            return
        if (excuse := self.excuse(place, now)) is None:
            self._broken(place, "never_stale", "holds an expired token")
        else:
            checker.cluster.world.note("checker", f"{place.name} is stale, excused by {excuse}")

    def excuse(self, place: Place, now: float) -> str | None:
        """Why it need not be fresh at this moment."""
        special = self._special(place, now)
        return special or self.checker.conditions.excuse(self.parts(place), now)

    def recovered(self, what: str) -> None:
        """Something is well again: in a while all that rests on it is served."""
        checker, scenario, conditions = self.checker, self.checker.scenario, self.checker.conditions
        needs = max(conditions.needs.get(what, 0.0), conditions.settles.get(what, 0.0), scenario.settle)
        checker.cluster.world.at(checker.cluster.world.now + needs + 1e-3, self._settled, what)

    def _settled(self, what: str) -> None:
        if self.checker.scenario.hopeless or self.checker.scenario.odd_clocks:
            return
        now = self.checker.cluster.world.now
        for place in self.checker.cluster.places:
            if what not in self.parts(place) or self.unsettled(place, self.checker.scenario.settle):
                continue
            self.checker.checks += 1
            if place.minted is None or (place.minted.expires <= now and place.minted.revoked > now):
                self._broken(place, "never_stale", "holds no token that works")

    def unsettled(self, place: Place, seconds: float, *more: str) -> str | None:
        """Why it need not have recovered by now."""
        now, conditions = self.checker.cluster.world.now, self.checker.conditions
        return self._special(place, now) or conditions.unsettled((*self.parts(place), *more), now, seconds)

    def rested(self, token: str, seconds: float) -> bool:
        """Whether nothing that concerns this token, any place of it or any process was ill within so many seconds."""
        checker, now = self.checker, self.checker.cluster.world.now
        replicas = checker.cluster.replicas
        whats = [UNTRIED, *(f"alive {replica.number}" for replica in replicas)]
        for replica in replicas:
            for place in replica.places[token]:
                whats += self.parts(place)
        if self._spent_in_crashes(token, now) or not checker.accounts.agreed(token, seconds):
            return False
        return not checker.conditions.unsettled(whats, now, seconds)

    def late(self, place: Place) -> None:
        """Its token is not past its rotation point for long, while all has been well with it for long."""
        checker, scenario, now = self.checker, self.checker.scenario, self.checker.cluster.world.now
        there = place.minted
        if there is None or there.revoked <= now or not checker.accounts.agreed(place.token):
            return
        life = there.expires - there.issued
        latest = there.sent + max(life * scenario.rotation.fraction, scenario.rotation.min_interval)
        if now > latest + scenario.longest_attempt and not self.unsettled(place, scenario.calm_after, UNTRIED):
            self._broken(place, "fresh_when_quiet", f"past its rotation point by {now - latest:.1f} s")

    def account(self, token: str) -> None:
        """All processes have had another account for a while: its token is where the former one's was."""
        checker, now = self.checker, self.checker.cluster.world.now
        for place in checker.cluster.places:
            there = place.minted
            if place.token != token or self.unsettled(place, checker.scenario.settle, UNTRIED):
                continue
            checker.checks += 1
            if there is None or not checker.accounts.agreed(token):
                continue
            if not checker.accounts.configured(token, there.whose):
                checker.broken(
                    "own_replaced", f"{place.name} still holds a token of {there.whose.username} at {now:.1f}"
                )

    def _broken(self, place: Place, name: str, what: str) -> None:
        """It is not served: because what we wrote was not replaced, because of others, or for no reason at all."""
        checker, there = self.checker, place.minted
        now, settle = checker.cluster.world.now, checker.scenario.settle
        if place.hand is Hand.OURS and there is not None and self._former(place, there):
            checker.broken("own_replaced", f"{place.name} {what}, of what was its account")
        if checker.conditions.elsewhere(self.parts(place), now, settle):
            checker.broken("isolation", f"{place.name} {what}")
        checker.broken(name, f"{place.name} {what}")

    def _former(self, place: Place, there: Minted) -> bool:
        """Whether the token there is of an account, or of a server's name, that is not configured any more."""
        disks, accounts = self.checker.cluster.disks, self.checker.accounts
        writers = [disks.index(place.store)] if place.store in disks else range(len(disks))
        return all(accounts.fingerprint(place.token, replica) != there.account for replica in writers)

    def _special(self, place: Place, now: float) -> str | None:
        if self._spent_in_crashes(place.token, now):
            return "attempts of processes that died"
        if place.minted is not None and self._out_of_step(place.minted):
            return self.checker.conditions.excuse((f"alive {place.minted.replica}",), now)
        return None

    def _spent_in_crashes(self, token: str, now: float) -> bool:
        """Whether processes died over as many attempts as there are: nobody knows how they ended."""
        checker = self.checker
        spent = checker.scenario.rotation.max_rejections
        kills = [moment for moment in checker.kills if moment >= now - (checker.scenario.retry_rejected or now) - HOUR]
        return len(kills) >= spent and self.spent_unseen(token)

    def spent_unseen(self, token: str, before: float = math.inf) -> bool:
        """Whether a record of it had all attempts spent by then, and does not know how they ended."""
        checker = self.checker
        most, wall = checker.scenario.rotation.max_rejections, START + before
        return any(
            engine_view.spent_unseen(place.records.get(OWN_RECORD, (0, {}))[1], most, wall)
            for replica in checker.cluster.replicas
            for place in replica.places[token]
        )

    def _out_of_step(self, minted: Minted) -> bool:
        """Whether it was granted under a wall clock that is plainly wrong to others, who reckon with what it says."""
        skew = self.checker.skew_at.get(id(minted), 0.0)
        return any(abs(replica.clock.skew - skew) > PLAUSIBLE_SECONDS for replica in self.checker.cluster.replicas)
