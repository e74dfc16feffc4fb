"""The invariants about what an endpoint is asked: how often, how soon again, with what, and whether needed."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.breaker import THRESHOLD
from aca_tokend.core.policy import URGENT_INTERVAL_SECONDS
from aca_tokend.rotation.decide import SAME_LOOK_SECONDS
from tests.simulation import engine_view
from tests.simulation.refusals import Refusals
from tests.simulation.scene import CAP

if TYPE_CHECKING:
    from aca_tokend.core.grant import Credentials
    from aca_tokend.core.outcome import Reason
    from aca_tokend.simulation.places import Place
    from aca_tokend.simulation.server import Minted, SimEndpoint
    from tests.simulation.checker import Checker

EPSILON = 1e-3
HOUR = 3600.0
PROBES_A_SECOND = 3
# With attempts a minute apart at most, and half of that in the middle.
MOST_GRANTS_AN_HOUR = 200

# A token of a process: the replica, which of its processes, the token.
Key = tuple[int, int, str]


@dataclass
class Asking:
    """What endpoints were asked so far, and what the checker makes of it."""

    checker: Checker
    grants: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    # of each account: after a reload that changed it a token asks at once
    last_grant: dict[tuple[Key, str], float] = field(default_factory=dict)
    # of each endpoint as configured: after a reload that changed it a token asks at once, for it may be fixed
    last_answer: dict[SimEndpoint, float] = field(default_factory=dict)
    failures: dict[Key, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    grants_of: dict[Key, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    failed_tokens: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    open_since: dict[int, float] = field(default_factory=dict)
    probes: dict[int, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    # of each replica, token and place: when it was told that a call there does not answer
    hung: dict[tuple[int, str, str], float] = field(default_factory=dict)
    refusals: Refusals = field(init=False)

    def __post_init__(self) -> None:
        """Counts refusals apart."""
        self.refusals = Refusals(self.checker)

    def granted(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """A token was minted: was it needed, and is it far enough from the one before?"""
        self.grants[minted.token] += 1
        if minted.lost:
            return
        self.checker.skew_at[id(minted)] = endpoint.clock.skew
        key = self._key(endpoint)
        whose = key, minted.account
        now = self.checker.cluster.world.now
        if self._lives(endpoint):
            self.works(endpoint.replica)
        if minted.issued < now:  # handed out again
            self._kept_distance(endpoint, now, slack=self.checker.scenario.longest_grant)
            self.last_answer[endpoint] = self.checker.cluster.world.answer_at
            return
        self._kept_distance(endpoint, minted.sent)
        self.last_answer[endpoint] = minted.answered
        last = self.last_grant.get(whose)
        rotation = self.checker.scenario.rotation
        if (
            last is not None
            and minted.sent - last < rotation.min_interval - EPSILON
            and not self.checker.scenario.verify
        ):
            self.checker.broken("min_interval", f"{minted.token}: two grants {minted.sent - last:.3f} s apart")
        self.last_grant[whose] = minted.sent
        recent = self.grants_of[key]
        recent.append(now)
        while recent[0] < now - HOUR:
            recent.popleft()
        if self.checker.scenario.verify and len(recent) > MOST_GRANTS_AN_HOUR:
            self.checker.broken("no_grant_storm", f"{minted.token}: {len(recent)} grants within an hour")
        if not self.checker.cluster.servers[endpoint.name].reuse:
            self._was_needed(endpoint, minted)

    def refused(self, endpoint: SimEndpoint, credentials: Credentials, reason: Reason) -> None:
        """A credential was refused: how often by now?"""
        self.works(endpoint.replica)
        self._kept_distance(endpoint, self.checker.cluster.world.now, slack=self.checker.scenario.longest_grant)
        self.last_answer[endpoint] = self.checker.cluster.world.answer_at
        self.refusals.refused(endpoint, credentials, reason)

    def failed(self, endpoint: SimEndpoint) -> None:
        """An attempt failed: are they far enough apart, and few?"""
        world = self.checker.cluster.world
        key = self._key(endpoint)
        self._kept_distance(endpoint, world.now, slack=self.checker.scenario.longest_grant)
        self.last_answer[endpoint] = world.answer_at
        self._was_probe(endpoint, world.now, world.answer_at)
        recent = self.failures[key]
        recent.append(world.now)
        while recent[0] < world.now - HOUR:
            recent.popleft()
        if len(recent) > self.checker.scenario.most_failures_an_hour:
            self.checker.broken("no_hammering", f"{endpoint.token}: {len(recent)} failed attempts within an hour")

    def works(self, replica: int) -> None:
        """The endpoint did its work for this process: it may be asked by everybody again."""
        self.failed_tokens[replica].clear()
        self.open_since.pop(replica, None)

    def _was_probe(self, endpoint: SimEndpoint, now: float, answered: float) -> None:
        """Once three tokens were told that the endpoint fails, the others hold back."""
        replica, probes = endpoint.replica, self.probes[endpoint.replica]
        sent_before = now - self.checker.scenario.longest_grant
        if sent_before > self.open_since.get(replica, float("inf")) and self._lives(endpoint):
            probes.append(now)
            while probes[0] <= now - 1.0:
                probes.popleft()
            if len(probes) > PROBES_A_SECOND:
                self.checker.broken("few_probes", f"replica {replica} asked {len(probes)} times within a second")
        if not self._lives(endpoint):
            return
        tokens = self.failed_tokens[replica]
        tokens.add(endpoint.token)
        if len(tokens) >= THRESHOLD:
            self.open_since.setdefault(replica, answered)

    def _key(self, endpoint: SimEndpoint) -> tuple[int, int, str]:
        return endpoint.replica, endpoint.start, endpoint.token

    def _lives(self, endpoint: SimEndpoint) -> bool:
        """Whether the process that sent this is still there."""
        replica = self.checker.cluster.replicas[endpoint.replica]
        return replica.alive and replica.starts == endpoint.start

    def _kept_distance(self, endpoint: SimEndpoint, sent: float, slack: float = 0.0) -> None:
        if not self._lives(endpoint):
            return
        last = self.last_answer.get(endpoint)
        least = min(URGENT_INTERVAL_SECONDS, self.checker.scenario.rotation.backoff.initial)
        if last is not None and sent - last < least - slack - EPSILON:
            self.checker.broken("no_hammering", f"{endpoint.token}: asked again {sent - last:.3f} s after an answer")

    def _was_needed(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """A grant is needless if a fresh token had been there since before this attempt looked."""
        scenario, replica = self.checker.scenario, self.checker.cluster.replicas[endpoint.replica]
        if scenario.odd_clocks or scenario.odd_lifetimes or not self._lives(endpoint):
            return
        began = replica.driver.began(endpoint.token)
        state, places = replica.tokens.by_name[endpoint.token], replica.places[endpoint.token]
        began = minted.sent if began is None else began
        readable: list[tuple[Minted, Place]] = []
        for number, (place, sink) in enumerate(zip(places, state.wiring.sinks, strict=True)):
            if minted.sent - self.hung.get((replica.number, endpoint.token, sink.name), -HOUR) < CAP:
                continue  # what it told late may be what was there when the call began
            there = place.minted
            if there is None or there is minted or there.account != minted.account or there.revoked <= minted.sent:
                continue
            whats = (place.store.name, place.name, f"alive {replica.number}", "api", f"token {endpoint.token}")
            excuse = self.checker.conditions.excuse(whats, minted.sent)
            # whoever does not look has no excuse
            knows_since = min(began, max(engine_view.seen_at(state, number), began - SAME_LOOK_SECONDS))
            if not excuse and self.checker.published_at[id(place)] <= knows_since:
                readable.append((there, place))
        if not readable:
            return
        # where places hold different ones, the latest is in use: it may be due before one from before that lives longer
        there, place = max(readable, key=lambda it: it[0].sent)
        rotation, life = scenario.rotation, there.expires - there.issued
        earliest = there.sent + max(life * rotation.fraction * (1 - rotation.jitter), rotation.min_interval)
        if minted.sent < earliest - EPSILON:
            self.checker.broken(
                "no_needless_grant", f"{replica.name}, {minted.token}: {place.name} holds one that is fresh"
            )
