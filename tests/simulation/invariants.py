"""The invariants that every simulated run is held to, each with a name; the first one broken ends the run."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, NoReturn

from aca_tokend.core.breaker import THRESHOLD
from aca_tokend.core.outcome import Adopted, Granted
from aca_tokend.core.policy import URGENT_INTERVAL_SECONDS
from aca_tokend.core.token import Document
from aca_tokend.simulation.world import START
from tests.simulation.conditions import Conditions

if TYPE_CHECKING:
    from aca_tokend.core.grant import Credentials
    from aca_tokend.core.outcome import Event, Reason
    from aca_tokend.simulation.places import Place
    from aca_tokend.simulation.replica import Cluster, Replica
    from aca_tokend.simulation.server import Minted, SimEndpoint
    from aca_tokend.state import TokenState
    from tests.simulation.scenario import Scenario

EPSILON = 1e-3
HOUR = 3600.0
PLAUSIBLE_SECONDS = 300.0
PROBES_A_SECOND = 3
RECOVERY_SECONDS = 10.0
# With attempts a minute apart at most, and half of that in the middle.
MOST_GRANTS_AN_HOUR = 200
# More attempts of one token than this within so short a time are a loop.
TIGHT_SECONDS = 0.5
TIGHT_ATTEMPTS = 50

NAMES = {
    "never_stale": "no expired token is read while the promise covers it",
    "fresh_when_quiet": "with everything well every place holds a token that is not past its rotation point",
    "within_max_rejections": "one unchanged credential is refused at most max_rejections times",
    "never_backwards": "a token is never replaced by one whose grant was over before its own began",
    "grants_bounded": "three replicas on quiet days need at most 1.05 grants a rotation, over all tokens",
    "no_needless_grant": "no grant is made while a fresh token of ours is published where it can be read",
    "min_interval": "two grants by one replica are never closer than min_interval",
    "always_scheduled": "every token of a live replica has a next attempt, or one under way",
    "attempt_in_time": "the next attempt comes while there is time for it",
    "no_tight_loop": "attempts of one token do not follow each other without time passing",
    "no_hammering": "attempts of one token keep their distance and are few",
    "few_probes": "an endpoint that fails for several tokens is asked at most three times a second by one process",
    "fresh_after_outage": "tokens that waited for an endpoint are fresh within ten seconds after it is back",
    "life_not_overstated": "what is published never claims to have been issued later than it was",
    "dead_not_published": "where new tokens are tried, one that does not work is not published",
    "death_noticed": "where the token in use is tried, one that died early is replaced soon",
    "no_grant_storm": "an API that refuses every token does not lead to grant after grant",
    "jitter_kept": "the rotation point of a token lies at the same share of each life",
    "own_tokens_only": "nothing but this token's own is adopted or published, and nothing foreign is replaced",
    "adopted_works": "what is adopted works",
}


class Violated(AssertionError):  # noqa: N818 -- a finding, which is what a run may end with
    """An invariant does not hold."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name} ({NAMES[name]}): {message}")
        self.name = name


class Checker:
    """Watches a cluster and raises `Violated` at the moment something is wrong."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.conditions = Conditions()
        self.cluster: Cluster
        self.grants = 0
        self.rotations: dict[str, int] = defaultdict(int)
        self.granted_by_token: dict[str, int] = defaultdict(int)
        self.refusals: dict[tuple[str, str], int] = defaultdict(int)
        self.refused_since: dict[tuple[str, str], float] = {}
        self.last_grant: dict[tuple[int, int, str], float] = {}
        self.last_success: dict[int, float] = {}
        self.last_answer: dict[tuple[int, int, str], float] = {}
        self.failures: dict[tuple[int, int, str], deque[float]] = defaultdict(deque)
        self.kills: list[float] = []
        self.grants_of: dict[tuple[int, int, str], deque[float]] = defaultdict(deque)
        self.ends: dict[tuple[int, int, str], tuple[float, int]] = {}
        self.failed_tokens: dict[int, set[str]] = defaultdict(set)
        self.open_since: dict[int, float] = {}
        self.probes: dict[int, deque[float]] = defaultdict(deque)
        self.share: dict[tuple[int, int, str], float] = {}
        self.held: dict[int, Minted | None] = {}
        self.skew_at: dict[int, float] = {}
        self.published_at: dict[int, float] = {}
        self.checks = 0

    def broken(self, name: str, message: str) -> NoReturn:
        """Ends the run."""
        raise Violated(name, f"{message}, at {self.cluster.world.now:.3f}")

    # ── what the endpoint saw ─────────────────────────────────────────────────────────────────────────────────────

    def granted(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """A token was minted: was it needed, and is it far enough from the one before?"""
        self.grants += 1
        self.granted_by_token[minted.token] += 1
        if minted.lost:
            return
        self.skew_at[id(minted)] = endpoint.clock.skew
        key = self._key(endpoint)
        now = self.cluster.world.now
        if self._lives(endpoint):
            self._works(endpoint.replica)
        if minted.issued < now:  # handed out again
            self._kept_distance(endpoint, key, now, slack=self.scenario.longest_grant)
            self.last_answer[key] = self.cluster.world.answer_at
            return
        self._kept_distance(endpoint, key, minted.sent)
        self.last_answer[key] = minted.answered
        last = self.last_grant.get(key)
        rotation = self.scenario.rotation
        if last is not None and minted.sent - last < rotation.min_interval - EPSILON and not self.scenario.verify:
            self.broken("min_interval", f"{minted.token}: two grants {minted.sent - last:.3f} s apart")
        self.last_grant[key] = minted.sent
        self.last_success[endpoint.replica] = minted.answered
        recent = self.grants_of[key]
        recent.append(now)
        while recent[0] < now - HOUR:
            recent.popleft()
        if self.scenario.verify and len(recent) > MOST_GRANTS_AN_HOUR:
            self.broken("no_grant_storm", f"{minted.token}: {len(recent)} grants within an hour")
        if not self.cluster.servers[endpoint.name].reuse:
            self._was_needed(endpoint, minted)

    def refused(self, endpoint: SimEndpoint, credentials: Credentials) -> None:
        """A credential was refused: how often by now?"""
        self._works(endpoint.replica)
        key = self._key(endpoint)
        self._kept_distance(endpoint, key, self.cluster.world.now, slack=self.scenario.longest_grant)
        self.last_answer[key] = self.cluster.world.answer_at
        credential = (endpoint.token, credentials.password.reveal())
        self.refusals[credential] += 1
        since = self.refused_since.setdefault(credential, self.cluster.world.now)
        rotation = self.scenario.rotation
        allowed = rotation.max_rejections
        if rotation.retry_rejected:
            allowed += int((self.cluster.world.now - since + 2 * self.scenario.longest_grant) / rotation.retry_rejected)
        if self.refusals[credential] > allowed:
            self.broken("within_max_rejections", f"{endpoint.token}: refused {self.refusals[credential]} times")

    def failed(self, endpoint: SimEndpoint, reason: Reason) -> None:
        """An attempt failed: are they far enough apart, and few?"""
        del reason
        world = self.cluster.world
        key = self._key(endpoint)
        self._kept_distance(endpoint, key, world.now, slack=self.scenario.longest_grant)
        self.last_answer[key] = world.answer_at
        self._was_probe(endpoint, world.now, world.answer_at)
        recent = self.failures[key]
        recent.append(world.now)
        while recent[0] < world.now - HOUR:
            recent.popleft()
        if len(recent) > self.scenario.most_failures_an_hour:
            self.broken("no_hammering", f"{endpoint.token}: {len(recent)} failed attempts within an hour")

    def _works(self, replica: int) -> None:
        """The endpoint did its work for this process: it may be asked by everybody again."""
        self.failed_tokens[replica].clear()
        self.open_since.pop(replica, None)

    def restarted(self, replica: int) -> None:
        """A new process knows nothing."""
        self._works(replica)
        self.last_success.pop(replica, None)

    def reconfigured(self, replica: Replica, tokens: set[str]) -> None:
        """A token that left and comes back draws its jitter anew, and a changed endpoint is met as a new one."""
        self._works(replica.number)
        for name in replica.states.keys() - tokens:
            self.share.pop((replica.number, replica.starts, name), None)

    def _was_probe(self, endpoint: SimEndpoint, now: float, answered: float) -> None:
        """Once three tokens were told that the endpoint fails, the others hold back."""
        replica, probes = endpoint.replica, self.probes[endpoint.replica]
        sent_before = now - self.scenario.longest_grant
        if sent_before > self.open_since.get(replica, float("inf")) and self._lives(endpoint):
            probes.append(now)
            while probes[0] <= now - 1.0:
                probes.popleft()
            if len(probes) > PROBES_A_SECOND:
                self.broken("few_probes", f"replica {replica} asked {len(probes)} times within a second")
        if not self._lives(endpoint):
            return
        tokens = self.failed_tokens[replica]
        tokens.add(endpoint.token)
        if len(tokens) >= THRESHOLD:
            self.open_since.setdefault(replica, answered)

    def outage_over(self, needs: float) -> None:
        """The endpoint is back: whoever waited behind a probe is to be fresh soon."""
        now = self.cluster.world.now
        if len(self.open_since) == self.scenario.replicas and not self.scenario.odd_lifetimes:
            waiting = [self._first_place(token) for token in set.intersection(*self.failed_tokens.values())]
            self.cluster.world.at(now + RECOVERY_SECONDS + needs, self._recovered, waiting, now)

    def _recovered(self, waiting: list[Place], since: float) -> None:
        now = self.cluster.world.now
        if self.conditions.disturbed_at > since or any(self.conditions.ill.values()):
            return
        for place in waiting:
            stale = place.minted is not None and place.minted.issued < since
            if stale and not self._excuse(place, now):
                self.broken("fresh_after_outage", f"{place.name}: nothing new since the outage")

    def _key(self, endpoint: SimEndpoint) -> tuple[int, int, str]:
        return endpoint.replica, endpoint.start, endpoint.token

    def _lives(self, endpoint: SimEndpoint) -> bool:
        """Whether the process that sent this is still there."""
        replica = self.cluster.replicas[endpoint.replica]
        return replica.alive and replica.starts == endpoint.start

    def _kept_distance(self, endpoint: SimEndpoint, key: tuple[int, int, str], sent: float, slack: float = 0.0) -> None:
        if not self._lives(endpoint):
            return
        last = self.last_answer.get(key)
        least = min(URGENT_INTERVAL_SECONDS, self.scenario.rotation.backoff.initial)
        woken = self.last_success.get(endpoint.replica)
        if last is not None and woken is not None and woken >= last - endpoint.server.timeout:
            return  # the endpoint works again, and whoever waited for that goes at once
        if last is not None and sent - last < least - slack - EPSILON:
            self.broken("no_hammering", f"{endpoint.token}: asked again {sent - last:.3f} s after an answer")

    def _was_needed(self, endpoint: SimEndpoint, minted: Minted) -> None:
        """A grant is needless if a fresh token had been there since before this attempt looked."""
        scenario, replica = self.scenario, self.cluster.replicas[endpoint.replica]
        if scenario.odd_clocks or scenario.odd_lifetimes or not self._lives(endpoint):
            return
        for place in replica.places[endpoint.token]:
            there = place.minted
            if there is None or there is minted or there.revoked <= minted.sent:
                continue
            began = replica.driver.began(endpoint.token)
            began = minted.sent if began is None else began
            rotation = scenario.rotation
            life = there.expires - there.issued
            earliest = there.sent + max(life * rotation.fraction * (1 - rotation.jitter), rotation.min_interval)
            whats = (place.store.name, place.name, f"alive {replica.number}", "api")
            excuse = self.conditions.excuse(whats, minted.sent)
            if excuse or self.published_at[id(place)] > began or minted.sent >= earliest - EPSILON:
                continue
            self.broken("no_needless_grant", f"{replica.name}, {minted.token}: {place.name} holds one that is fresh")

    def revoked(self, minted: Minted) -> None:
        """A token died early."""

    # ── what readers see ──────────────────────────────────────────────────────────────────────────────────────────

    def written(self, place: Place, before: object, minted: Minted | None) -> None:
        """What is published changed: forwards, and to something of ours?"""
        world = self.cluster.world
        held = self.held.get(id(place))
        self.held[id(place)] = minted
        self.published_at[id(place)] = world.now
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

    def _kept_jitter(self, key: tuple[int, int, str], state: TokenState, share: float) -> None:
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
        rotations = sum(self.rotations[token] + 1 for token in self.granted_by_token)
        allowed = rotations * (1.05 if self.scenario.rotation.jitter else self.scenario.replicas)
        if self.grants > allowed + self.scenario.replicas * self.scenario.tokens:  # all at once at the start
            self.broken("grants_bounded", f"{self.grants} grants for {rotations} rotations")
