"""One attempt of a token: take in messages, decide, act, until nothing is due.

    take in    what others had to say since: woken, reconfigured, the clock was set, a place answered late
    decide     what is due by what is known (decide.py)
    act        identify, look, adopt, publish, ask hooks, poll, try, grant, check: one action, and what is known then
    rest       until the first moment at which the rules would act

Nothing here sleeps, retries, logs or touches a socket or a file. Only one attempt of a token runs at a time, and
nothing else writes what is known of it. What nobody foresaw ends the attempt, not the process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.errors import contained
from aca_tokend.core.outcome import Component, Event, Failed, Skipped, Step
from aca_tokend.core.policy import URGENT_INTERVAL_SECONDS
from aca_tokend.rotation.attempts import AttemptRecords
from aca_tokend.rotation.credentials import Resolver
from aca_tokend.rotation.decide import Action, Do, Rest, decide, need_at, next_token_at, serviceable_at
from aca_tokend.rotation.facts import Moment
from aca_tokend.rotation.grant import Granter, expires_at
from aca_tokend.rotation.hook_runner import ask
from aca_tokend.rotation.lockout import Lockout
from aca_tokend.rotation.look import PATIENCE_SECONDS, Looker
from aca_tokend.rotation.managed import ClockStepped, Late, Reconfigured, VaultBack, Woken
from aca_tokend.rotation.publish import Publisher
from aca_tokend.rotation.reconfigure import hastened, reconfigured
from aca_tokend.rotation.standing import unhooked

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.ports import Clock, Secrets
    from aca_tokend.rotation.facts import Facts, Waiting
    from aca_tokend.rotation.managed import ManagedToken, Message

# Far above what any attempt needs: look, grant, publish, and three rounds with another writer at each place.
MOST_ACTIONS = 40


@dataclass(frozen=True, slots=True)
class Rotator:
    """Rotates tokens.

    Args:
        observe: told each event as it happens.
        wake: brings the attempt of a token, or the run of a hook, forward.
        late: hands on the answer of a place that came late, as a message to its token.
        decide: says what is due; the simulation's tests put others in its place.
    """

    clock: Clock
    secrets: Secrets
    rng: random.Random
    observe: Callable[[Event], None]
    wake: Callable[[Wake], None]
    late: Callable[[ManagedToken, int, object], None]
    decide: Callable[[Facts, Moment], Action | Rest] = decide
    granter: Granter = field(init=False)
    looker: Looker = field(init=False)
    publisher: Publisher = field(init=False)

    def __post_init__(self) -> None:
        """Puts the actions together."""
        lockout = Lockout(self.clock, AttemptRecords(self.clock, PATIENCE_SECONDS), self.wake)
        resolver = Resolver(self.secrets)
        granter = Granter(self.clock, resolver, self.rng, self.observe, self.wake, lockout)
        looker = Looker(self.clock, self.rng, self.observe, self.late)
        object.__setattr__(self, "granter", granter)
        object.__setattr__(self, "looker", looker)
        object.__setattr__(self, "publisher", Publisher(self.clock, self.observe, looker))

    async def attempt(self, token: ManagedToken) -> float:
        """One attempt: does what is due for this token and returns when to come again, in monotonic seconds."""
        began = self.clock.monotonic()
        try:
            until = await self._attempt(token, began)
        except Exception as error:  # noqa: BLE001 -- the one place that contains what an attempt did not foresee
            until = self._contain(token, error, began)
        token.facts = token.facts._replace(tried_once=True) if not token.facts.tried_once else token.facts
        return until

    async def _attempt(self, token: ManagedToken, began: float) -> float:
        waited = token.facts.waiting
        for _ in range(MOST_ACTIONS):
            self._take_in(token, began)
            decision = self.decide(token.facts, self._moment(began))
            if not isinstance(decision, Rest):
                token.facts = await self._act(token, decision, began)
            elif token.facts.turn_at <= began:
                # it needs no turn, or cannot use it, and waits for none any more: another's comes
                token.facts = token.facts._replace(turn_at=math.inf, waiting=None)
            elif not token.inbox:
                self._pass_turns(token, began)
                self._report(token, began, decision.until)
                self._explain(token, waited)
                return decision.until
        return began + URGENT_INTERVAL_SECONDS

    async def _act(self, token: ManagedToken, action: Action, began: float) -> Facts:
        """Does one thing, and returns what is known then."""
        match action.do:
            case Do.LOOK:
                return await self.looker.look(token, action.places)
            case Do.ADOPT:
                return self.publisher.adopt(token, action.places[0])
            case Do.PUBLISH:
                return await self.publisher.publish(token, action.places)
            case Do.ASK_HOOKS:
                return ask(token, action.places, self.clock.monotonic(), self.wake)
            case _:
                return await self._obtain(token, action.do, self._moment(began))

    async def _obtain(self, token: ManagedToken, do: Do, moment: Moment) -> Facts:
        """The same for what concerns the endpoint."""
        match do:
            case Do.ASK_TURN:
                return self.granter.ask_turn(token)
            case Do.IDENTIFY:
                return await self.granter.identify(token, moment)
            case Do.POLL:
                return await self.granter.poll(token, moment)
            case Do.TRY:
                return await self.granter.try_pending(token)
            case Do.GRANT:
                return await self.granter.grant(token, moment)
            case _:
                return await self.granter.check(token)

    # ── messages ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_in(self, token: ManagedToken, began: float) -> None:
        """Takes in what others had to say, in its order. What it makes due is due in this attempt."""
        while token.inbox:
            message = token.inbox.pop(0)
            if isinstance(message, Reconfigured):
                before = token.wiring
                # what was written until now has the hook that it was written with
                token.facts = ask(token, unhooked(token.facts), self.clock.monotonic(), self.wake)
                if before.gate is not message.wiring.gate:
                    for wake in before.passed(token.name, self.clock.monotonic()):
                        self.wake(wake)
                token.facts = reconfigured(token.facts, before, message, began)
                token.wiring = message.wiring
            else:
                token.facts = self._told(token, message, began)

    def _told(self, token: ManagedToken, message: Message, began: float) -> Facts:
        """What is known with a message."""
        facts = token.facts
        match message:
            case Woken(at):
                return facts._replace(turn_at=min(facts.turn_at, at))
            case ClockStepped():
                return self.publisher.dated(facts)
            case VaultBack():
                refused = facts.trouble is not None and facts.trouble.failure.rejected
                sooner = hastened(facts, began)
                return sooner._replace(trouble=facts.trouble) if refused else sooner
            case Late(number, result):
                return self._answered(token, number, result)
            case _:
                return facts

    def _answered(self, token: ManagedToken, number: int, result: object) -> Facts:
        """A place answered after the attempt had gone on without it, unless a reload replaced the place since."""
        facts = token.facts
        place = next((it for it, found in enumerate(facts.places) if found.busy and found.busy.number == number), None)
        busy = facts.places[place].busy if place is not None else None
        if place is None or busy is None:
            return facts
        if busy.writing is None:
            # it may have been read a moment ago, so it is not what was there before a request of ours since
            return self.looker.take_in(token.wiring, facts, place, result, self.clock.monotonic())
        facts = self.publisher.take_in(token.wiring, facts, place, result, busy.writing)
        return self.publisher.reported(token.wiring, facts)

    # ── the end of an attempt ─────────────────────────────────────────────────────────────────────────────────────────

    def _pass_turns(self, token: ManagedToken, began: float) -> None:
        """Where it asked the endpoint for nothing and does not wait to: if it was its turn, another token's comes."""
        facts, gate = token.facts, token.wiring.gate
        waits = facts.waiting is not None and facts.waiting.why == "endpoint_held"
        if not waits and facts.requested_at < began:
            for wake in gate.passed(token.name, self.clock.monotonic(), failing=facts.trouble is not None):
                self.wake(wake)
        self.granter.lockout.ended(token.wiring, facts)

    def _report(self, token: ManagedToken, began: float, until: float) -> None:
        """Where this attempt was to bring a new token to readers and no place could be served, it failed."""
        facts, now = token.facts, self.clock.monotonic()
        held = facts.current
        failing = [it for it in facts.places if it.failure is not None and it.looked_at >= began]
        if not failing or failing[0].failure is None:
            return
        undelivered = held is not None and held.unreported_since is not None and (held.asked_at or 0.0) >= began
        if undelivered or (need_at(facts) <= now and serviceable_at(facts, self._moment(began)) > now):
            self.observe(
                Failed(facts.name, failing[0].failure, failing[0].failures, until - now, expires_at(facts), asked=False)
            )

    def _explain(self, token: ManagedToken, before: Waiting | None) -> None:
        """Where it came to wait for others in this attempt: why, and until when, by the rules themselves."""
        facts, moment = token.facts, self._moment(self.clock.monotonic())
        if facts.waiting is not None and facts.waiting is not before:
            seconds = next_token_at(facts, moment) - moment.now
            self.observe(Skipped(facts.name, facts.waiting.why, seconds, expires_at(facts)))

    def _contain(self, token: ManagedToken, error: Exception, began: float) -> float:
        """What nobody foresaw costs one attempt: it is reported without any value, and tried again by the backoff."""
        unexpected, event = contained(Component.ATTEMPT, token.name, error)
        self.observe(event)
        token.facts = self.granter.failed(token.facts, unexpected.as_failure(Step.GRANT), asked=False)
        self._pass_turns(token, began)
        trouble = token.facts.trouble
        return trouble.again_at(token.facts.config) if trouble else self.clock.monotonic() + URGENT_INTERVAL_SECONDS

    def _moment(self, began: float) -> Moment:
        return Moment(self.clock.monotonic(), self.clock.wall(), began)
