"""Where a fault strikes: the simulated cluster, the run's own conditions, and how long it takes to be over a fault."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.config import Config, TokenConfig
    from aca_tokend.simulation.places import Place, SimSecrets
    from aca_tokend.simulation.replica import Cluster, Replica
    from aca_tokend.simulation.server import Server
    from tests.simulation.checker import Checker
    from tests.simulation.conditions import Conditions
    from tests.simulation.faults import Fault
    from tests.simulation.scenario import Scenario

CAP = 60.0
# An attempt goes on without a place that does not answer for so long.
BUSY_SECONDS = 15.0
# Replicas take up a new configuration within so many seconds of each other.
ROLLOUT_SECONDS = 2.0


@dataclass(frozen=True)
class Scene:
    """One fault and all that it may concern."""

    fault: Fault
    checker: Checker

    @property
    def cluster(self) -> Cluster:
        """What it happens to."""
        return self.checker.cluster

    @property
    def scenario(self) -> Scenario:
        """The run it is part of."""
        return self.checker.scenario

    @property
    def conditions(self) -> Conditions:
        """Where it is written down."""
        return self.checker.conditions

    @property
    def now(self) -> float:
        """Virtual time."""
        return self.cluster.world.now

    @property
    def server(self) -> Server:
        """The endpoint."""
        return self.cluster.servers["main"]

    @property
    def secrets(self) -> SimSecrets:
        """What the references lead to."""
        return self.cluster.secrets

    @property
    def replica(self) -> Replica:
        """The replica that it hits."""
        return self.cluster.replicas[self.fault.target % len(self.cluster.replicas)]

    @property
    def token(self) -> TokenConfig:
        """The token that it hits, as it is configured at the start."""
        return self.scenario.config.tokens[self.fault.target % self.scenario.tokens]

    @property
    def place(self) -> Place:
        """The place of that token that it hits: its first one, or the one that `value` counts to."""
        number = self.fault.target // self.scenario.tokens % len(self.cluster.replicas)
        places = self.cluster.replicas[number].places[self.token.name]
        return places[int(self.fault.value) % len(places)]

    def at(self, when: float, action: Callable[..., None], *arguments: object) -> None:
        """Has something happen later, if it is to happen at all."""
        if math.isfinite(when):
            self.cluster.world.at(when, action, *arguments)

    def after(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """The same, so many seconds from now."""
        self.at(self.now + seconds, action, *arguments)

    def ill_for(self, what: str, seconds: float, needs: float, settles: float = 0.0) -> None:
        """Something does not do its work for so long."""
        self.conditions.falls_ill(what, self.now, needs, settles)
        self.after(seconds, self.well, what)

    def well(self, what: str) -> None:
        """It works again."""
        self.conditions.recovers(what, self.now)

    @property
    def skew(self) -> float:
        """How much later than it is a replica may take an adopted token's expiry to be."""
        skews = [replica.clock.skew for replica in self.cluster.replicas]
        return min(max(skews) - min(skews), 310.0)

    def needs_after(self, how: str = "", retry_after: float = 0.0) -> float:
        """How long after an outage a new token may be asked for.

        An attempt under way when it ends is in vain, then a wait of a quarter of what is left or half a second, then a
        whole attempt. A server's wish may take three quarters of what is left.
        """
        attempt = self.scenario.longest_attempt + self.skew
        vain = self.server.timeout if how == "hang" else attempt
        if retry_after:
            return 4 * (vain + attempt) + 0.5
        return vain + max(attempt / 0.75, attempt + 0.5) + 0.1

    # ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def able(self, replica: Replica) -> bool:
        """Whether it can keep tokens fresh now."""
        awake = replica.alive and self.now >= replica.driver.frozen_until
        return awake and replica.number not in self.checker.unable

    def down(self, replica: Replica, needs: float = 0.0) -> None:
        """It can keep no token fresh from now on."""
        busy = BUSY_SECONDS if any(place.hangs for place in self.cluster.places) else 0.0
        needs = max(needs, 2 * self.scenario.longest_attempt + self.skew + 0.6 + busy)
        self.conditions.falls_ill(f"alive {replica.number}", self.now, needs)
        if not any(it is not replica and self.able(it) for it in self.cluster.replicas):
            self.conditions.falls_ill("any replica", self.now, needs)

    def up(self, replica: Replica) -> None:
        """It can again."""
        self.well(f"alive {replica.number}")
        while self.conditions.ill.get("any replica"):
            self.well("any replica")

    def kill(self, replica: Replica) -> None:
        """Its process ends."""
        replica.kill()
        self.checker.kills.append(self.now)
        self.down(replica)

    def start(self, replica: Replica) -> None:
        """Another process takes its place."""
        replica.start()
        self.checker.restarted(replica.number)
        self.up(replica)
        self.cluster.world.note("fault", f"{replica.name} started")

    def swap(self, replica: Replica, config: Config) -> None:
        """It runs another configuration from now on, or from its next start."""
        self.checker.reconfigured(replica, {it.name for it in config.tokens})
        replica.reload(config)
        self.checker.accounts.refresh()

    @property
    def reconfigured(self) -> bool:
        """Whether any replica runs another configuration than at the start: one change at a time."""
        return any(it.config != self.scenario.config for it in self.cluster.replicas)
