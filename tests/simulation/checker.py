"""Watches a simulated run and ends it at the moment an invariant is broken."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NoReturn

from aca_tokend.core.outcome import Adopted, Granted
from aca_tokend.core.policy import URGENT_INTERVAL_SECONDS
from aca_tokend.core.token import Document
from aca_tokend.simulation.world import START
from tests.simulation.asking import EPSILON, HOUR, Asking, Key
from tests.simulation.conditions import Conditions
from tests.simulation.hooked import Hooked
from tests.simulation.invariants import Violated

if TYPE_CHECKING:
    from aca_tokend.core.grant import Credentials
    from aca_tokend.core.outcome import Event, Reason
    from aca_tokend.simulation.places import Place, SimHook
    from aca_tokend.simulation.replica import Cluster, Replica
    from aca_tokend.simulation.server import Minted, SimEndpoint
    from aca_tokend.state import TokenState
    from tests.simulation.scenario import Scenario

PLAUSIBLE_SECONDS = 300.0
RECOVERY_SECONDS = 10.0
# More attempts of one token than this within so short a time are a loop.
TIGHT_SECONDS = 0.5
TIGHT_ATTEMPTS = 50


class Checker:
    """Watches a cluster and raises `Violated` at the moment something is wrong."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.conditions = Conditions()
        self.asking = Asking(self)
        self.hooking = Hooked(self)
        self.cluster: Cluster
        self.rotations: dict[str, int] = defaultdict(int)
        self.kills: list[float] = []
        self.ends: dict[Key, tuple[float, int]] = {}
        self.share: dict[Key, float] = {}
        self.held: dict[int, Minted | None] = {}
        self.skew_at: dict[int, float] = {}
        self.published_at: dict[int, float] = {}
        self.checks = 0

    def broken(self, name: str, message: str) -> NoReturn:
        """Ends the run."""
        raise Violated(name, f"{message}, at {self.cluster.world.now:.3f}")

    # ── what the endpoint saw, and what is known of the world ─────────────────────────────────────────────────────

    def granted(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """A token was minted."""
        self.asking.granted(endpoint, minted)

    def refused(self, endpoint: SimEndpoint, credentials: Credentials) -> None:
        """A credential was refused."""
        self.asking.refused(endpoint, credentials)

    def failed(self, endpoint: SimEndpoint, reason: Reason) -> None:
        """An attempt failed."""
        del reason
        self.asking.failed(endpoint)

    def restarted(self, replica: int) -> None:
        """A new process knows nothing."""
        self.asking.works(replica)

    def reconfigured(self, replica: Replica, tokens: set[str]) -> None:
        """A token that left and comes back draws its jitter anew, and a changed endpoint is met as a new one."""
        self.asking.works(replica.number)
        for name in replica.states.keys() - tokens:
            self.share.pop((replica.number, replica.starts, name), None)

    def outage_over(self, needs: float) -> None:
        """The endpoint is back: whoever waited behind a probe is to be fresh soon."""
        now = self.cluster.world.now
        if len(self.asking.open_since) == self.scenario.replicas and not self.scenario.odd_lifetimes:
            waiting = [self._first_place(token) for token in set.intersection(*self.asking.failed_tokens.values())]
            self.cluster.world.at(now + RECOVERY_SECONDS + needs, self._recovered, waiting, now)

    def _recovered(self, waiting: list[Place], since: float) -> None:
        now = self.cluster.world.now
        if self.conditions.disturbed_at > since or any(self.conditions.ill.values()):
            return
        for place in waiting:
            stale = place.minted is not None and place.minted.issued < since
            if stale and not self._excuse(place, now):
                self.broken("fresh_after_outage", f"{place.name}: nothing new since the outage")

    def revoked(self, minted: Minted) -> None:
        """A token died early."""

    # ── what readers see ──────────────────────────────────────────────────────────────────────────────────────────

    def written(self, place: Place, before: object, minted: Minted | None) -> None:
        """What is published changed: forwards, and to something of ours?"""
        world = self.cluster.world
        held = self.held.get(id(place))
        self.held[id(place)] = minted
        self.published_at[id(place)] = world.now
        self.hooking.written(place)
        if minted is None:
            return
        document = place.content
        if minted.token != place.token or (document is not None and document.account != self._account(place.token)):
            if place.name not in self.scenario.defaced:
                self.broken("own_tokens_only", f"{place.name} got another account's token")
            return
        if isinstance(before, str) or (isinstance(before, Document) and before.account != self._account(place.token)):
            self.broken("own_tokens_only", f"{place.name}: something foreign was replaced")
        assert document is not None
        skew = self.skew_at.get(id(minted), 0.0)
        issued = document.issued_at.timestamp() - START - skew
        if issued > minted.issued + EPSILON and not self.cluster.servers["main"].reuse:
            late = issued - minted.issued
            self.broken("life_not_overstated", f"{place.name}: issued {late:.3f} s late")
        untried = self.conditions.excuse(("api answers", "main"), world.now) is not None
        if self.scenario.verify and minted.works_until <= minted.answered and not untried:
            self.broken("dead_not_published", f"{place.name}: it was dead before it was published")
        if held is not None and held is not minted:
            self.rotations[place.token] += place is self._first_place(place.token)
            allowed = abs(self.skew_at.get(id(held), 0.0) - skew)
            if minted.answered < held.sent - allowed - EPSILON:
                self.broken("never_backwards", f"{place.name}: {held.sent:.3f} replaced by {minted.sent:.3f}")
        world.at(minted.works_until, self._expires, place, minted)

    def found_dead(self, place: Place, died: float) -> None:
        """A token died early a while ago: is there a new one?"""
        now = self.cluster.world.now
        well = not any(self.conditions.ill.values()) and self.conditions.disturbed_at < died
        if well and self._excuse(place, now) is None and place.minted is not None:
            self.checks += 1
            if place.minted.works_until <= now:
                self.broken("death_noticed", f"{place.name} holds a token that died {now - died:.1f} s ago")

    def _first_place(self, token: str) -> Place:
        return self.cluster.replicas[0].places[token][0]

    def _account(self, token: str) -> str:
        return self.scenario.accounts[token]

    def _expires(self, place: Place, minted: Minted) -> None:
        """A published token ceases to work: has it been replaced, or is there an excuse?"""
        self.checks += 1
        now = self.cluster.world.now
        if place.minted is not minted or minted.revoked <= now or self.scenario.hopeless:
            return
        if (excuse := self._excuse(place, now)) is None:
            self.broken("never_stale", f"{place.name} holds an expired token")
        else:
            self.cluster.world.note("checker", f"{place.name} is stale, excused by {excuse}")

    def _excuse(self, place: Place, now: float) -> str | None:
        whats = [
            "api",
            f"configured {place.token}",
            "main",
            f"password {place.token}",
            "any replica",
            place.store.name,
            place.name,
        ]
        if self._spent_in_crashes(place.token, now):
            return "attempts of processes that died"
        if place.minted is not None and self._out_of_step(place.minted):
            whats.append(f"alive {place.minted.replica}")
        if place.store in self.cluster.disks:
            whats.append(f"alive {self.cluster.disks.index(place.store)}")
        return self.conditions.excuse(tuple(whats), now)

    def _spent_in_crashes(self, token: str, now: float) -> bool:
        """Whether processes died over as many attempts as there are: nobody knows how they ended."""
        _, records = self._first_place(token).records.get("attempts", (0, {}))
        spent = self.scenario.rotation.max_rejections
        known = [it for it in records.values() if isinstance(it, dict) and not it["proven"] and it["spent"] >= spent]
        period = self.scenario.rotation.retry_rejected or now
        kills = [moment for moment in self.kills if moment >= now - period - HOUR]
        return any(not it["reason"] for it in known) and len(kills) >= spent

    def _out_of_step(self, minted: Minted) -> bool:
        """Whether it was granted under a wall clock that is plainly wrong to others, who reckon with what it says."""
        skew = self.skew_at.get(id(minted), 0.0)
        return any(abs(replica.clock.skew - skew) > PLAUSIBLE_SECONDS for replica in self.cluster.replicas)

    def hooked(self, hook: SimHook, began: float) -> None:
        """A hook did its work."""
        self.hooking.ran(hook, began)

    # ── what the rotator says ─────────────────────────────────────────────────────────────────────────────────────

    def told(self, replica: Replica, event: Event) -> None:
        """Checks an adoption."""
        if isinstance(event, Adopted):
            minted = self.cluster.servers["main"].minted.get(event.document.access_token.reveal())
            if minted is None or minted.token != event.token or event.document.account != self._account(event.token):
                self.broken("own_tokens_only", f"{event.token}: adopted what is not its own")
            if minted.expires <= replica.clock.monotonic() and not self.scenario.odd_clocks:
                self.broken("adopted_works", f"{event.token}: adopted an expired token")
        elif isinstance(event, Granted):
            self.checks += 1

    def ended(self, replica: Replica, state: TokenState, next_at: float) -> None:
        """An attempt ended: does the next come in time, and is the rotation point where it always is?"""
        self.checks += 1
        now = self.cluster.world.now
        life, rotation = state.life, self.scenario.rotation
        key = (replica.number, replica.starts, state.name)
        since, times = self.ends.get(key, (now, 0))
        self.ends[key] = (since, times + 1) if now < since + TIGHT_SECONDS else (now, 1)
        if times > TIGHT_ATTEMPTS:
            self.broken("no_tight_loop", f"{state.name}: {times} attempts within {now - since:.3f} s")
        wait = next_at - now
        if not state.suspended:
            left = life.expires - now if life else 0.0
            longest = rotation.backoff.cap
            if life and now < life.rotate and not state.failures and not state.dead:
                longest = max(life.rotate - now, 0.0)
            elif left > 0:
                longest = min(longest, max(left * 0.75, 2 * URGENT_INTERVAL_SECONDS))
            wish = state.failure.retry_after_seconds if state.failure else None
            if wish is not None:
                longest = max(longest, min(wish, left * 0.75) if left > 0 else wish)
            if self.cluster.servers["main"].reuse and left > 0:
                longest = left + 1.0
            if wait > max(longest, rotation.min_interval) + EPSILON:
                self.broken("attempt_in_time", f"{state.name}: next attempt in {wait:.1f} s, at most {longest:.1f}")
        elif state.suspended and wait > state.poll_seconds + EPSILON:
            self.broken("attempt_in_time", f"{state.name}: suspended, and the next look comes in {wait:.1f} s")
        if life and not self.scenario.odd_clocks and life.rotate - life.issued > rotation.min_interval + EPSILON:
            self._kept_jitter(key, state, (life.rotate - life.issued) / (life.expires - life.issued))

    def _kept_jitter(self, key: Key, state: TokenState, share: float) -> None:
        if abs(self.share.setdefault(key, share) - share) > EPSILON:
            self.broken("jitter_kept", f"{state.name}: rotation point at {share:.4f}, not {self.share[key]:.4f}")

    # ── now and then ──────────────────────────────────────────────────────────────────────────────────────────────

    def look_around(self) -> None:
        """Every token of every live replica is on schedule; on a quiet day every place is fresh."""
        now, scenario = self.cluster.world.now, self.scenario
        for replica in self.cluster.processes():
            lost = replica.states.keys() - replica.driver.kept()
            if lost:
                self.broken("always_scheduled", f"{replica.name} has no next attempt for {', '.join(sorted(lost))}")
            late = replica.driver.overdue(scenario.longest_hang)
            if late and now >= replica.driver.frozen_until + scenario.longest_hang:
                self.broken("always_scheduled", f"{replica.name}: {', '.join(late)} overdue")
        quiet = not any(self.conditions.ill.values()) and now - self.conditions.disturbed_at > scenario.calm_after
        if not quiet or scenario.odd_clocks or scenario.odd_lifetimes:
            return
        for place in self.cluster.places:
            there = place.minted
            if (
                there is None
                or there.revoked <= now
                or self._excuse(place, now)
                or self._spent_in_crashes(place.token, now)
            ):
                continue
            life = there.expires - there.issued
            latest = there.sent + max(life * scenario.rotation.fraction, scenario.rotation.min_interval)
            if now > latest + scenario.longest_attempt:
                self.broken("fresh_when_quiet", f"{place.name}: past its rotation point by {now - latest:.1f} s")

    def at_the_end(self) -> None:
        """The sums."""
        if not self.scenario.quiet:
            return
        self.hooking.at_the_end()
        grants = sum(self.asking.grants.values())
        rotations = sum(self.rotations[token] + 1 for token in self.asking.grants)
        allowed = rotations * (1.05 if self.scenario.rotation.jitter else self.scenario.replicas)
        if grants > allowed + self.scenario.replicas * self.scenario.tokens:  # all at once at the start
            self.broken("grants_bounded", f"{grants} grants for {rotations} rotations")
