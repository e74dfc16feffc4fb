"""Watches a simulated run and ends it at the moment an invariant is broken."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NoReturn

from aca_tokend.core.outcome import Adopted, Granted, Published, Reason, Unexpected
from aca_tokend.core.policy import URGENT_INTERVAL_SECONDS
from aca_tokend.rotation.facts import Moment
from aca_tokend.simulation.places import Hand
from aca_tokend.simulation.world import START
from tests.simulation import engine_view
from tests.simulation.accounts import Accounts
from tests.simulation.asking import EPSILON, Asking, Key
from tests.simulation.conditions import Conditions
from tests.simulation.hooked import Hooked
from tests.simulation.invariants import Violated
from tests.simulation.pace import Pace
from tests.simulation.rivals import Rivals
from tests.simulation.scene import CAP
from tests.simulation.served import Served

if TYPE_CHECKING:
    from aca_tokend.core.grant import Credentials
    from aca_tokend.core.outcome import Event
    from aca_tokend.rotation.managed import ManagedToken
    from aca_tokend.simulation.places import Place, SimHook
    from aca_tokend.simulation.replica import Cluster, Replica
    from aca_tokend.simulation.server import Minted, SimEndpoint
    from tests.simulation.scenario import Scenario

RECOVERY_SECONDS = 10.0
# Where one token after another is found revoked, the API may be what is broken: so long at most is waited then.
LONGEST_REVOKED_SECONDS = 3600.0


class Checker:
    """Watches a cluster and raises `Violated` at the moment something is wrong."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.served = Served(self)
        self.conditions = Conditions(self.served.recovered)
        self.accounts = Accounts(self)
        self.rivals = Rivals(self)
        self.pace = Pace(self)
        self.asking = Asking(self)
        self.hooking = Hooked(self)
        self.cluster: Cluster
        self.rotations: dict[str, int] = defaultdict(int)
        self.kills: list[float] = []
        self.unable: set[int] = set()  # replicas that are told that their tokens do not work
        self.share: dict[Key, float] = {}
        self.held: dict[int, Minted | None] = {}
        self.skew_at: dict[int, float] = {}
        self.published_at: dict[int, float] = {}
        self.looked_at = 0.0
        self.checks = 0
        self._changing: set[str] = set()

    def begin(self) -> None:
        """Nothing is published yet; soon everything is."""
        self.accounts.refresh()
        self.conditions.falls_ill("any replica", 0.0, self.scenario.settle)
        self.conditions.recovers("any replica", 0.0)

    def broken(self, name: str, message: str) -> NoReturn:
        """Ends the run."""
        raise Violated(name, f"{message}, at {self.cluster.world.now:.3f}")

    # ── what the endpoint saw, and what is known of the world ─────────────────────────────────────────────────────

    def granted(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """A token was minted."""
        self.asking.granted(endpoint, minted)

    def refused(self, endpoint: SimEndpoint, credentials: Credentials, reason: Reason) -> None:
        """A credential was refused."""
        self.asking.refused(endpoint, credentials, reason)

    def failed(self, endpoint: SimEndpoint, reason: Reason) -> None:
        """An attempt failed."""
        del reason
        self.asking.failed(endpoint)

    def restarted(self, replica: int) -> None:
        """A new process knows nothing."""
        self.pace.restarted()
        self.asking.works(replica)

    def reconfigured(self, replica: Replica, tokens: set[str]) -> None:
        """A token that left and comes back draws its jitter anew, and a changed endpoint is met as a new one."""
        self.asking.works(replica.number)
        for name in replica.tokens.by_name.keys() - tokens:
            self.share.pop((replica.number, replica.starts, name), None)

    def change(self, token: str) -> None:
        """Its account is being changed: other faults of its account wait until that is over."""
        self._changing.add(token)

    def changed(self, token: str) -> None:
        """That is over."""
        self._changing.discard(token)

    def changing(self, token: str) -> bool:
        """Whether it is not over, or its account does not work."""
        whats = f"configured {token}", self.scenario.user(token), self.scenario.client(token)
        tokens = (it for it in self._changing if self.scenario.user(it) == self.scenario.user(token))
        return any(self.conditions.ill.get(what) for what in whats) or any(tokens)

    def account_changed(self, token: str) -> None:
        """Every process knows its account by now: soon no other's token is where it is published."""
        self.cluster.world.at(self.cluster.world.now + self.scenario.settle, self.served.account, token)

    def unrecorded(self, token: str) -> None:
        """What its attempt record says may be lost, or cannot be written everywhere."""
        self.asking.refusals.lost[token].append(self.cluster.world.now)

    def outage_over(self, needs: float) -> None:
        """The endpoint is back: the tokens that waited behind a probe are fresh soon."""
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
            if stale and not self.served.excuse(place, now):
                self.broken("fresh_after_outage", f"{place.name}: nothing new since the outage")

    def revoked(self, minted: Minted) -> None:
        """A token died early."""

    # ── what readers see ──────────────────────────────────────────────────────────────────────────────────────────

    def written(self, place: Place, before: Hand, minted: Minted | None) -> None:
        """What is published changed: forwards, and to something of ours?"""
        world = self.cluster.world
        held = self.held.get(id(place))
        self.held[id(place)] = minted
        self.published_at[id(place)] = world.now
        self.hooking.written(place)
        self.accounts.published(place, minted)
        if minted is None or place.hand is not Hand.OURS:
            return
        if before is Hand.STRANGER and not self.scenario.replace_foreign:
            self.broken("own_tokens_only", f"{place.name}: something foreign was replaced")
        self.rivals.published(place, minted)
        document = place.content
        assert document is not None
        skew, issued = self.skew_at.get(id(minted), 0.0), document.issued_at.timestamp() - START
        # by the clock it was granted under, or as it was dated anew when that was set
        skews = (replica.clock.skew for replica in self.cluster.replicas) if self.scenario.odd_clocks else ()
        late = issued - max(skew, *skews, skew) - minted.issued
        if late > EPSILON and not self.cluster.servers["main"].reuse:
            self.broken("life_not_overstated", f"{place.name}: issued {late:.3f} s late")
        if self.scenario.odd_clocks:  # others reckon with what it says by now
            skew = self.skew_at[id(minted)] = issued - minted.sent
        untried = self.conditions.excuse(("api answers", "main"), world.now) is not None
        if self.scenario.verify and minted.works_until <= minted.answered and not untried:
            self.broken("dead_not_published", f"{place.name}: it was dead before it was published")
        if held is not None and held is not minted and held.account == minted.account:
            self.rotations[place.token] += place is self._first_place(place.token)
            allowed = abs(self.skew_at.get(id(held), 0.0) - skew)
            if minted.answered < held.sent - allowed - EPSILON:
                self.broken("never_backwards", f"{place.name}: {held.sent:.3f} replaced by {minted.sent:.3f}")
        minted.published = min(minted.published, world.now)
        world.at(minted.works_until, self.served.expires, place, minted)

    def found_dead(self, place: Place, died: float) -> None:
        """A token died early a while ago: is there a new one?"""
        now = self.cluster.world.now
        well = not any(self.conditions.ill.values()) and self.conditions.disturbed_at < died
        if well and self.served.excuse(place, now) is None and place.minted is not None:
            self.checks += 1
            if place.minted.works_until <= now:
                self.broken("death_noticed", f"{place.name} holds a token that died {now - died:.1f} s ago")

    def _first_place(self, token: str) -> Place:
        return self.cluster.replicas[0].places[token][0]

    def hooked(self, hook: SimHook, began: float) -> None:
        """A hook did its work."""
        self.hooking.ran(hook, began)

    # ── what the rotator says ─────────────────────────────────────────────────────────────────────────────────────

    def told(self, replica: Replica, event: Event) -> None:
        """Checks an adoption."""
        if isinstance(event, Adopted):
            minted = self.cluster.servers["main"].minted.get(event.document.access_token.reveal())
            if minted is None and self.scenario.verify:
                return  # a forgery that nothing but trying it tells; it is tried before it goes to other places
            if minted is None or minted.whose not in self.accounts.ever(event.token):
                self.broken("own_tokens_only", f"{event.token}: adopted what is not its own")
            if minted.expires <= replica.clock.monotonic() and not self.scenario.odd_clocks:
                self.broken("adopted_works", f"{event.token}: adopted an expired token")
        elif isinstance(event, Unexpected) and not event.kind.endswith("Unforeseen"):
            self.broken("outlives_surprises", f"{event.owner}: a bug: {event.kind} at {event.trace[-1]}")
        elif isinstance(event, Published) and event.failure and event.failure.reason is Reason.TIMEOUT:
            self.asking.hung[replica.number, event.token, event.sink] = self.cluster.world.now
        elif isinstance(event, Granted):
            self.checks += 1

    def ended(self, replica: Replica, state: ManagedToken, next_at: float) -> None:
        """An attempt ended: does the next come in time, and is the rotation point where it always is?"""
        self.checks += 1
        life, rotation = engine_view.life(state), self.scenario.rotation
        key = (replica.number, replica.starts, state.name)
        self.pace.ended(key, state)
        self._revoked_is_true(state)
        self._comes_again(replica, state, next_at)
        self._waits_for_no_expiry(replica, state, next_at)
        if life and not self.scenario.odd_clocks and life.rotate - life.issued > rotation.min_interval + EPSILON:
            self._kept_jitter(key, state, (life.rotate - life.issued) / (life.expires - life.issued))

    def _revoked_is_true(self, state: ManagedToken) -> None:
        held = state.facts.current
        if held is None or held.revoked_at is None:
            return
        minted = self.cluster.servers["main"].minted.get(held.document.access_token.reveal())
        if minted is not None and minted.expires <= held.revoked_at < minted.revoked:
            self.broken("revoked_is_true", f"{state.name}: a token that only expired is taken for revoked")

    def _comes_again(self, replica: Replica, state: ManagedToken, next_at: float) -> None:
        strangers = all(place.hand is Hand.STRANGER for place in replica.places[state.name])
        hang = all(place.busy is not None for place in state.facts.places)
        if strangers or (hang and engine_view.life(state) is None):
            return  # nothing can be done before a place is cleared, or what hangs answers
        now, life, rotation = self.cluster.world.now, engine_view.life(state), self.scenario.rotation
        moment = Moment(now, START + now + replica.clock.skew, now)
        wait = next_at - now
        if engine_view.suspended(state):
            if wait > engine_view.poll_seconds(state) + EPSILON:
                self.broken("attempt_in_time", f"{state.name}: suspended, and the next look comes in {wait:.1f} s")
            return
        revoked, longest = engine_view.revoked(state), rotation.backoff.cap
        left = life.expires - now if life and not revoked else 0.0  # readers have nothing of one that is refused
        if life and now < life.rotate and not engine_view.failing(state) and not revoked:
            longest = max(life.rotate - now, 0.0)
        elif left > 0:
            longest = min(longest, max(left * 0.75, 2 * URGENT_INTERVAL_SECONDS))
        elif life and revoked:
            longest = max(longest, min(life.expires - now, LONGEST_REVOKED_SECONDS))
        wish = engine_view.retry_after_seconds(state)
        if wish is not None:
            longest = max(longest, min(wish, left * 0.75) if left > 0 else wish)
        if self.cluster.servers["main"].reuse and left > 0:
            longest = left + 1.0
        longest = max(longest, engine_view.occupied_until(state, moment) - now)
        if wait > max(longest, rotation.min_interval) + EPSILON:
            self.broken("attempt_in_time", f"{state.name}: next attempt in {wait:.1f} s, at most {longest:.1f}")

    def _waits_for_no_expiry(self, replica: Replica, state: ManagedToken, next_at: float) -> None:
        """Whatever it holds, it comes again before a place expires of which it knows what that holds."""
        now, scenario = self.cluster.world.now, self.scenario
        if scenario.odd_clocks or scenario.hopeless or engine_view.suspended(state) or engine_view.revoked(state):
            return
        wish = engine_view.retry_after_seconds(state) or 0.0
        for number, place in enumerate(replica.places[state.name]):
            there = place.minted
            if there is None or next_at <= there.expires or place.hand is not Hand.OURS:
                continue
            expires = there.sent + there.expires - there.issued  # as a document says, which errs on the safe side
            ours = there.account == self.accounts.fingerprint(state.name, replica.number)
            soon = max(scenario.min_interval, 2 * URGENT_INTERVAL_SECONDS)
            waits = soon if ours and expires > now else max(CAP, wish)
            known = engine_view.knows(state, number)
            if known and next_at > now + waits and engine_view.seen_at(state, number) >= self.published_at[id(place)]:
                message = f"{state.name}: next attempt at {next_at:.1f}, {place.name} expires at {there.expires:.1f}"
                self.broken("waits_for_no_expiry", message)

    def _kept_jitter(self, key: Key, state: ManagedToken, share: float) -> None:
        if abs(self.share.setdefault(key, share) - share) > EPSILON:
            self.broken("jitter_kept", f"{state.name}: rotation point at {share:.4f}, not {self.share[key]:.4f}")

    # ── now and then ──────────────────────────────────────────────────────────────────────────────────────────────

    def look_around(self) -> None:
        """Every token of every live replica is on schedule; what nothing is wrong with is fresh, and rests."""
        now, scenario = self.cluster.world.now, self.scenario
        for replica in self.cluster.processes():
            lost = replica.tokens.by_name.keys() - replica.driver.kept()
            if lost:
                self.broken("always_scheduled", f"{replica.name} has no next attempt for {', '.join(sorted(lost))}")
            late = self._overdue(replica)
            if late and now >= replica.driver.frozen_until + scenario.longest_hang:
                self.broken("always_scheduled", f"{replica.name}: {', '.join(late)} overdue")
        seconds, self.looked_at = now - self.looked_at, now
        if scenario.odd_clocks or scenario.odd_lifetimes:
            return
        for place in self.cluster.places:
            self.served.late(place)
        for token in scenario.config.tokens:
            rested = self.served.rested(token.name, seconds + scenario.calm_after)
            self.pace.look_around(token, seconds, rested=rested)

    def _overdue(self, replica: Replica) -> list[str]:
        """The tokens whose attempt takes longer than anything it waits for."""
        late, scenario = replica.driver.overdue(self.scenario.longest_hang), self.scenario
        now, conditions = self.cluster.world.now, self.conditions
        return [name for name in late if not conditions.unsettled((scenario.user(name),), now, scenario.settle)]

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
