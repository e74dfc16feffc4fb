"""All tokens of one process: on schedule, woken, reconfigured. The daemon and the simulation have the same.

A message is put before the attempt that is to take it in is brought forward: whichever attempt comes next has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from aca_tokend.core.config import vaults_of
from aca_tokend.core.steps import BEGIN
from aca_tokend.rotation.lockout import TURNS
from aca_tokend.rotation.managed import ClockStepped, Late, ManagedToken, Reconfigured, VaultBack, Woken
from aca_tokend.rotation.reconfigure import begin

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.config import TokenConfig
    from aca_tokend.core.ports import Clock
    from aca_tokend.core.steps import Work
    from aca_tokend.rotation.changes import Changes
    from aca_tokend.rotation.managed import Message, Wiring
    from aca_tokend.rotation.rotator import Rotator

# When a Vault can be logged in to again, its tokens are tried within so many seconds rather than all at once.
BACK_SPREAD_SECONDS = 1.0
# After the wall clock was set every token reckons anew, within so many seconds rather than all at once.
STEP_SPREAD_SECONDS = 2.0
# A token for which nothing is due without a message comes again all the same.
HEARTBEAT_SECONDS = 3600.0


class Schedule(Protocol):
    """What keeps attempts on schedule."""

    def keep(self, work: Work, at: float) -> None:
        """Puts work on schedule, in the place of what was there under its name."""

    def hasten(self, name: str, at: float) -> None:
        """Brings the next attempt forward."""

    def drop(self, name: str) -> None:
        """Takes work off the schedule."""


@dataclass(slots=True)
class Tokens:
    """The tokens of one process by name.

    Args:
        schedule: keeps their attempts.
        wire: what a token is made of in the configuration that holds now.
        ended: told the end of each attempt, and when the next is due.
    """

    clock: Clock
    rng: random.Random
    schedule: Schedule
    wire: Callable[[TokenConfig], Wiring]
    ended: Callable[[ManagedToken, float], None] = lambda _token, _until: None
    once: bool = False
    rotator: Rotator = field(init=False)
    by_name: dict[str, ManagedToken] = field(default_factory=dict)

    def add(self, config: TokenConfig, at: float) -> ManagedToken:
        """A token that nothing is known of yet; its jitter is drawn, and its first attempt begins at `at`."""
        wiring = self.wire(config)
        token = self.by_name[config.name] = ManagedToken(wiring, begin(wiring, self.rng.random()))
        self.schedule.keep(TokenWork(self, token), at)
        return token

    def remove(self, name: str) -> ManagedToken:
        """Takes a token off the schedule; an attempt under way goes on to its end."""
        token = self.by_name.pop(name)
        self.schedule.drop(name)
        return token

    def keep_all(self) -> None:
        """Puts every token on schedule for now, whatever became of it."""
        for token in self.by_name.values():
            self.schedule.keep(TokenWork(self, token), self.clock.monotonic())

    def pass_turns(self, token: ManagedToken) -> None:
        """A token that left sends no more requests: another that waits does. One that came back has its turn itself."""
        if token.name not in self.by_name:
            for wake in token.wiring.passed(token.name, self.clock.monotonic()):
                self.wake(wake)

    def follow(self, changes: Changes) -> list[ManagedToken]:
        """Adds, changes and removes tokens, as a reload says. Returns those that left."""
        now = self.clock.monotonic()
        gone = [self.remove(name) for name in changes.removed]
        for config in changes.added:
            self.add(config, now)
        for change in changes.changed:
            token = self.by_name[change.config.name]
            token.inbox.append(Reconfigured(self.wire(change.config), change))
            self.schedule.keep(TokenWork(self, token), now)
        return gone

    def send(self, token: ManagedToken, message: Message, at: float) -> None:
        """Puts a message into the inbox of a token, and has its next attempt begin by `at`."""
        token.inbox.append(message)
        self.schedule.hasten(token.name, at)

    def wake(self, wake: Wake) -> None:
        """Lets a token go on that waited for another's attempt."""
        token = self.by_name.get(wake.token)
        if token is not None:
            self.send(token, Woken(wake.at), wake.at)

    def late(self, token: ManagedToken, number: int, result: object) -> None:
        """A place answered after the attempt had gone on without it."""
        self.send(token, Late(number, result), self.clock.monotonic())

    def clock_stepped(self) -> None:
        """The wall clock was set."""
        for token in list(self.by_name.values()):
            self.send(token, ClockStepped(), self.clock.monotonic() + self.rng.random() * STEP_SPREAD_SECONDS)

    def vault_back(self, name: str) -> None:
        """This Vault can be logged in to again: what failed there is tried."""
        for token in list(self.by_name.values()):
            facts = token.facts
            failing = facts.trouble is not None or any(place.trouble for place in facts.places)
            if failing and name in vaults_of(facts.config):
                self.send(token, VaultBack(), self.clock.monotonic() + self.rng.random() * BACK_SPREAD_SECONDS)

    async def attempt(self, token: ManagedToken) -> float:
        """One attempt; returns when the next is due."""
        until = await self.rotator.attempt(token)
        self.ended(token, until)
        # a token that waits for another's attempt, or for a place, has not had its attempt yet
        waits = token.facts.waits_for in TURNS or any(place.busy for place in token.facts.places)
        if self.once and not waits:
            return math.inf
        return until if until < math.inf else self.clock.monotonic() + HEARTBEAT_SECONDS


@dataclass(frozen=True, slots=True, eq=False)
class TokenWork:
    """The attempts of one token. It has no functions of its own: there are thousands."""

    tokens: Tokens
    token: ManagedToken
    pool: ClassVar[str] = BEGIN  # none of a place: what hangs there would hold up the token's other places
    finish: ClassVar[bool] = False  # what has not begun when the daemon stops is not begun

    @property
    def name(self) -> str:
        """The name of the token."""
        return self.token.name

    def attempt(self) -> Coroutine[Any, Any, float]:
        """Starts one."""
        return self.tokens.attempt(self.token)

    def urgency(self) -> float:
        """When readers meet an expired token."""
        return self.token.urgency
