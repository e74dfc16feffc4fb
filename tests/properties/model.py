"""A small model of acting: what each action makes of the facts, in a world that works, fails or answers oddly.

It has no servers and no threads; the actions themselves are held to the same by the simulation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Failure, Reason, Step
from aca_tokend.core.policy import SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS
from aca_tokend.core.token import Seen
from aca_tokend.rotation.decide import Action, Do, Rest, decide, need_at, needed_at, records_at
from aca_tokend.rotation.facts import Asked, Busy, Held, Identity, Place, Recorded, Suspension, Trouble, Waiting, Wrote
from aca_tokend.rotation.rotator import MOST_ACTIONS
from aca_tokend.rotation.standing import holds
from tests.changed import replace
from tests.properties.facts import AUTHORITY, NOW, OURS, USER, WALL, document, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aca_tokend.rotation.facts import Facts, Moment
    from tests.properties.facts import Dice

REFUSED = Failure(Step.GRANT, Reason.INVALID_GRANT, "400", suspends=True)
UNTRIED = Failure(Step.VERIFY, Reason.CONNECT_FAILED, "the API is down")
DEAD = Failure(Step.VERIFY, Reason.TOKEN_REFUSED, "401")
DOWN = Failure(Step.GRANT, Reason.CONNECT_FAILED, "down")
BROKEN = Failure(Step.LOOK, Reason.CONNECT_FAILED, "down")


@dataclass(frozen=True)
class World:
    """What comes of each kind of call; the plain value of each is that it works. `seconds` is how long one takes."""

    place: tuple[str, ...] = ("works",) * 3
    identify: str = "works"
    grant: str = "works"
    verify: str = "works"
    poll: str = "works"
    gate: str = "open"
    seconds: float = 0.0


def failing(roll: Dice) -> World:
    """A world in which nothing brings the token to readers, and each call fails in a way of its own."""
    return World(
        tuple(roll.pick(("fails", "writes fail", "conflicts", "hangs")) for _ in range(3)),
        roll.pick(("works", "fails")),
        roll.pick(("fails", "refused", "waits", "again", "works")),
        roll.pick(("fails", "refused")),
        roll.pick(("fails", "works")),
        roll.pick(("held", "open")),
        roll.pick((0.0, 0.125, 3.0)),
    )


def any_world(roll: Dice) -> World:
    """A world in which each kind of call works or fails."""
    broken = failing(roll)
    return replace(
        broken,
        place=tuple(roll.pick(("works", "works", it)) for it in broken.place),
        identify=roll.pick(("works", broken.identify)),
        grant=roll.pick(("works", broken.grant)),
        verify=roll.pick(("works", broken.verify)),
        poll=roll.pick(("works", broken.poll)),
    )


@dataclass
class Model:
    """One token in a world. `log` has the actions: when, what, where, by which facts."""

    facts: Facts
    world: World = World()
    now: float = NOW
    log: list[tuple[Action, Facts, Moment]] = field(default_factory=list)
    contents: dict[int, Seen] = field(default_factory=dict)  # of places, where it differs from what was read
    began: float = NOW
    granted: int = 0

    def attempt(self) -> Rest:
        """One attempt, as the rotator makes it."""
        self.began = self.now
        for _ in range(MOST_ACTIONS):
            at = moment(self.now, self.began)
            decision = decide(self.facts, at)
            if isinstance(decision, Action):
                self.log.append((decision, self.facts, at))
                self.now += self.world.seconds
                self.facts = ACTS[decision.do](self, self.facts, decision.places)
            elif self.facts.turn_at <= self.began:
                self.facts = replace(self.facts, turn_at=math.inf, waiting=None)
            else:
                return decision
        message = "an attempt has no end"
        raise AssertionError(message, [action for action, *_ in self.log[-6:]])

    def run(self, until: float) -> int:
        """Attempts until a moment, each when the one before says; returns how many."""
        for number in range(100_000):
            rest = self.attempt()
            if rest.until > until:
                return number + 1
            self.now = rest.until
        raise AssertionError

    # ── what each action makes of the facts ───────────────────────────────────────────────────────────────────────────

    def look(self, facts: Facts, places: tuple[int, ...]) -> Facts:
        """Reads places."""
        for number in places:
            place = facts.places[number]
            if self.world.place[number] == "fails":
                facts = self.place_failed(facts, number)
            elif self.world.place[number] == "hangs":
                facts = facts.with_place(number, busy=Busy(1, None))
            else:
                seen = self.contents.get(number) or place.seen or Seen(None, 0)
                self.contents[number] = seen
                first = place.first_seen
                if first is None or first[0] != hash(seen.document):
                    first = (hash(seen.document), self.now)
                read = replace(place, seen=seen, looked_at=self.now, first_seen=first, trouble=None)
                if facts.current is not None and holds(read, facts.current) and not seen.outdated:
                    read = replace(read, failures=0)
                facts = facts.with_places({number: read})
        return facts

    def place_failed(self, facts: Facts, number: int) -> Facts:
        """A try at a place failed."""
        place = facts.places[number]
        trouble = Trouble(BROKEN, place.failures + 1, self.now, 0.5, 0.0)
        return facts.with_place(
            number, seen=None, looked_at=self.now, trouble=trouble, failures=trouble.count, conflicts=0
        )

    def publish(self, facts: Facts, places: tuple[int, ...]) -> Facts:
        """Writes the token in use."""
        token = facts.current
        assert token is not None
        for number in places:
            place = facts.places[number]
            match self.world.place[number]:
                case "works":
                    stamp = (place.seen.stamp, self.now) if place.seen else None
                    seen = self.contents[number] = Seen(token.document, stamp)
                    wall = WALL + (self.now - NOW)
                    kept = Place(
                        seen=seen,
                        last=seen,
                        looked_at=self.now,
                        first_seen=place.first_seen,
                        wrote=Wrote(stamp, OURS, wall),
                        hooked=place.hooked,
                    )
                    facts = facts.with_places({number: kept})
                case "conflicts" if place.conflicts < 2:
                    facts = facts.with_place(number, seen=None, looked_at=self.now, conflicts=place.conflicts + 1)
                case "hangs":
                    facts = facts.with_place(number, busy=Busy(1, token.document))
                case _:
                    facts = self.place_failed(facts, number)
        return replace(facts, held=replace(token, unreported_since=None))

    def adopt(self, facts: Facts, places: tuple[int, ...]) -> Facts:
        """Takes over what a place holds."""
        seen = facts.places[places[0]].seen
        assert seen is not None and seen.document is not None  # noqa: PT018 -- for the type checker
        found = seen.document
        issued = self.now - (WALL + (self.now - NOW) - found.issued_at.timestamp())
        lifetime = (found.expires_at - found.issued_at).total_seconds()
        held = Held(found, issued, lifetime, None, facts.config.scope, adopted_at=self.now)
        facts = replace(facts, held=held, turn_at=math.inf)
        return replace(facts, trouble=None, waiting=None) if need_at(facts) > self.now else facts

    def ask_hooks(self, facts: Facts, places: tuple[int, ...]) -> Facts:
        """Asks for hooks."""
        for number in places:
            seen = facts.places[number].seen
            facts = facts.with_place(number, hooked=seen.document if seen else None)
        return facts

    def failed(self, facts: Facts, failure: Failure) -> Facts:
        """Counts a failure to get a token."""
        token, count = facts.current, facts.trouble.count + 1 if facts.trouble else 1
        remaining = max(token.expires_at - self.now, 0.0) if token and token.revoked_at is None else 0.0
        trouble = Trouble(failure, count, self.now, 0.5, remaining)
        return replace(facts, trouble=trouble, waiting=None, turn_at=math.inf)

    def identify(self, facts: Facts, _places: tuple[int, ...]) -> Facts:
        """Resolves whose token it is."""
        if self.world.identify != "works":
            return self.failed(facts, DOWN)
        known, identity = facts.identity, Identity(OURS, USER, AUTHORITY, self.now)
        if known is None:
            facts = replace(facts, trouble=None, waiting=None, revocations=0)
        return replace(facts, identity=identity)

    def ask_turn(self, facts: Facts, _places: tuple[int, ...]) -> Facts:
        """Whether the endpoint may be asked."""
        if self.world.gate == "open":
            return replace(facts, waiting=None)
        by_itself = facts.waiting is not None and facts.waiting.until <= self.now
        return self.waits(facts, "endpoint_held", self.now if by_itself else -math.inf)

    def waits(self, facts: Facts, why: str, look_before: float = -math.inf) -> Facts:
        """No request was sent."""
        token, cap = facts.held, facts.config.rotation.backoff.cap
        remaining = token.expires_at - self.now if token else 0.0
        urgent = max(remaining * SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS)
        patience = min(cap, urgent) if remaining > 0 else cap
        return replace(facts, waiting=Waiting(why, self.now + patience, look_before), turn_at=math.inf)

    def poll(self, facts: Facts, _places: tuple[int, ...]) -> Facts:
        """Looks whether a credential changed."""
        suspension = facts.suspension
        assert suspension is not None
        if self.world.poll == "fails":
            read_at = self.now if records_at(facts) <= self.now else suspension.read_at
            return replace(facts, suspended=replace(suspension, polled_at=self.now, read_at=read_at))
        trouble = facts.trouble and replace(facts.trouble, hastened_to=self.began)
        return replace(
            facts,
            suspended=None,
            trouble=trouble,
            waiting=None,
            identity=Identity(OURS, USER, AUTHORITY, self.now),
        )

    def try_pending(self, facts: Facts, _places: tuple[int, ...]) -> Facts:
        """Tries the pending token."""
        assert facts.pending is not None
        return self.verified(facts, facts.pending)

    def grant(self, facts: Facts, _places: tuple[int, ...]) -> Facts:
        """Asks for a token."""
        token = facts.current
        match self.world.grant:
            case "fails":
                return self.failed(facts, DOWN)
            case "waits":
                return self.waits(facts, "endpoint_held" if self.world.gate == "held" else "claimed_elsewhere")
            case "refused":
                suspended = Suspension(REFUSED, OURS, "credential", self.now, self.now, self.now, Recorded())
                return self.failed(replace(facts, suspended=suspended), REFUSED)
            case "again" if token is not None:
                if token.expires_at <= self.now:
                    token = replace(token, issued_at=self.now, lifetime=60.0, asked_at=self.now)
                refused = facts.revocations + (token.revoked_at is not None)
                again = replace(token, reused_at=self.now, scope=facts.config.scope)
                facts = replace(facts, held=again, trouble=None, suspended=None, waiting=None, turn_at=math.inf)
                return replace(facts, revocations=refused)
        self.granted += 1
        issued = self.now - NOW
        key = f"granted-{self.granted}"
        new = Held(document(key, issued), self.now, 7200.0, self.now, facts.config.scope, unreported_since=self.began)
        return self.verified(facts, new)

    def verified(self, facts: Facts, token: Held) -> Facts:
        """Tries a token where that is configured, and makes it the one in use."""
        if facts.config.verify is not None:
            works = self.world.verify == "works"
            if self.world.verify == "refused":
                return self.failed(replace(facts, pending=None), DEAD)
            if not works and self.now < needed_at(facts):
                return self.failed(replace(facts, pending=token), UNTRIED)
            token = replace(token, works=works, checked_at=self.now)
        asked = Asked(token.asked_at or token.issued_at, OURS)
        facts = replace(facts, held=token, pending=None, asked=asked, turn_at=math.inf)
        return replace(facts, trouble=None, suspended=None, waiting=None)

    def check(self, facts: Facts, _places: tuple[int, ...]) -> Facts:
        """Tries the token in use."""
        token = facts.current
        assert token is not None
        token = replace(token, checked_at=self.now)
        if self.world.verify == "works":
            return replace(facts, held=replace(token, works=True), revocations=0)
        if self.world.verify == "fails" or token.expires_at <= self.now:
            return replace(facts, held=token)
        revoked = replace(token, revoked_at=self.now)
        return replace(facts, held=revoked, revocations=facts.revocations + 1, pending=None)


ACTS: Mapping[Do, Callable[[Model, Facts, tuple[int, ...]], Facts]] = {
    Do.ASK_TURN: Model.ask_turn,
    Do.IDENTIFY: Model.identify,
    Do.LOOK: Model.look,
    Do.ADOPT: Model.adopt,
    Do.PUBLISH: Model.publish,
    Do.ASK_HOOKS: Model.ask_hooks,
    Do.POLL: Model.poll,
    Do.TRY: Model.try_pending,
    Do.GRANT: Model.grant,
    Do.CHECK: Model.check,
}
