"""The invariants about how busy a token is: attempts a minute, requests of an attempt, and requests while it rests."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation import engine_view

if TYPE_CHECKING:
    from aca_tokend.core.config import TokenConfig
    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.simulation.places import Place
    from tests.simulation.asking import Key
    from tests.simulation.checker import Checker

MINUTE = 60.0
# A suspended token looks for another credential every three seconds; one whose endpoint fails asks every second at
# first and then less and less often. That is 20 a minute each, and twice that is still far from a loop.
ATTEMPTS_A_MINUTE = 40
# A retry waits for a quarter of what is left, so in the last minute of a life it may come every half second.
URGENT_SECONDS = 60.0
URGENT_ATTEMPTS_A_MINUTE = 150
# Requests to places. An attempt claims and settles its record against other replicas in some rounds at most, and looks
# at each place and writes it in three.
REQUESTS_AN_ATTEMPT = 40
REQUESTS_A_PLACE = 6
# A token that rests makes none at all but for its rotations: its record twice, two looks and a write for each place.
REQUESTS_A_ROTATION = 4
REQUESTS_A_ROTATION_AND_PLACE = 4


@dataclass
class Pace:
    """The attempts of the last minute of each token, and the requests that it had made at some moments."""

    checker: Checker
    _attempts: dict[Key, deque[float]] = field(default_factory=dict)
    _urgent: dict[Key, deque[float]] = field(default_factory=dict)
    _places: dict[str, tuple[Place, ...]] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)
    _rested: dict[str, int] = field(default_factory=dict)

    def ended(self, key: Key, state: ManagedToken) -> None:
        """An attempt ended: how many were there within a minute, and what did this one ask?"""
        now, life, checker = self.checker.cluster.world.now, engine_view.life(state), self.checker
        left = life.expires - now if life else 0.0
        self._few(self._urgent, key, URGENT_ATTEMPTS_A_MINUTE)
        if not 0.0 < left < URGENT_SECONDS:
            self._few(self._attempts, key, ATTEMPTS_A_MINUTE)
        made, places = self._made(state.name)
        requests, self._last[state.name] = made - self._last.get(state.name, made), made
        if requests > (REQUESTS_AN_ATTEMPT + REQUESTS_A_PLACE * places) * checker.scenario.replicas:
            checker.broken("no_tight_loop", f"{state.name}: {requests} requests in one attempt")
        if engine_view.waits_for_a_claim(state) and checker.served.spent_unseen(
            state.name, now - checker.scenario.lease
        ):
            # a process died over it, days ago perhaps: until the last holder's token is late, nobody rests
            self._rested[state.name] = self._rested.get(state.name, 0) + requests

    def restarted(self) -> None:
        """Attempts of a process that died ended without a word: what they asked is nobody's."""
        self._last.clear()

    def _few(self, kept: dict[Key, deque[float]], key: Key, most: int) -> None:
        now = self.checker.cluster.world.now
        recent = kept.get(key)
        if recent is None:
            recent = kept[key] = deque()
        recent.append(now)
        while recent[0] <= now - MINUTE:
            recent.popleft()
        if len(recent) > most:
            self.checker.broken("no_tight_loop", f"{key[2]}: {len(recent)} attempts within {now - recent[0]:.3f} s")

    def look_around(self, token: TokenConfig, seconds: float, *, rested: bool) -> None:
        """So much time went by, in which the token `rested` or not: what did it ask?"""
        scenario, (made, places) = self.checker.scenario, self._made(token.name)
        requests, self._rested[token.name] = made - self._rested.get(token.name, 0), made
        if not rested:
            return
        rotations = seconds / scenario.shortest_rotation + 2
        allowed = rotations * (REQUESTS_A_ROTATION + REQUESTS_A_ROTATION_AND_PLACE * places) * scenario.replicas
        if requests > allowed:
            rate = requests / seconds * MINUTE
            self.checker.broken("rests_quietly", f"{token.name}: {requests} requests, {rate:.1f} a minute")

    def _made(self, token: str) -> tuple[int, int]:
        """Requests to its places so far, by all replicas, and how many places a replica has."""
        places = self._places.get(token)
        replicas = self.checker.cluster.replicas
        if places is None:
            of_all = (place for replica in replicas for place in replica.places[token])
            places = self._places[token] = tuple({id(place): place for place in of_all}.values())
        return sum(place.asked for place in places), len(replicas[0].places[token])
