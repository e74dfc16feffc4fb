"""What is run after a write: for whom, how often, and when again. It runs on a schedule of its own.

    ask        a sink holds a token that its hook was not run for: the attempt of the token says so and goes on
    attempt    of the hook: takes up all that was written so far, runs once for all of it, and tells how that went

No token ever waits for a hook, and a failed one is run again alone: no look, no grant, no write.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.breaker import Wake
from aca_tokend.core.errors import HookError, ReasonedError, contained
from aca_tokend.core.outcome import Component, Event, HookRan, Reason, Step
from aca_tokend.core.policy import HOOK_SPACING_SECONDS, retry_delay
from aca_tokend.core.steps import BUSY, Busy, Call, Calls
from aca_tokend.rotation.standing import published

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from aca_tokend.core.config import BackoffConfig
    from aca_tokend.core.outcome import Failure
    from aca_tokend.core.ports import Clock, Hook
    from aca_tokend.core.secret import Secret
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.managed import ManagedToken


@dataclass(frozen=True, slots=True)
class Written:
    """A sink that holds a token which its hook was not run for yet."""

    token: str
    sink: str


@dataclass(slots=True, eq=False)
class HookState:
    """What is known of one hook, shared by all sinks that have the same: one run is for everything written before it.

    Its own attempts write it, one at a time; the attempts of tokens only add to `asked`.

    Attributes:
        name: of its pool, and on the schedule.
        tokens: the tokens that have this hook by the configuration.
        asked: what was written and not taken up yet, with what the output of a run must not show.
        waiting: what was taken up and had no run that succeeded.
        known: the tokens that its output may show: those that its sinks hold, and held before.
        not_before: no run begins sooner, in monotonic seconds.
        out: a run is not over; another begins after it, though it can be neither awaited nor ended.
        last: the daemon stops, so a run begins at once, and none follows one that failed.
        failures: how many runs failed since the last success, and `failing` for which tokens the last of them.
        failure: of the last of them; None where it succeeded.
    """

    name: str
    hook: Hook
    backoff: BackoffConfig
    tokens: frozenset[str] = frozenset()
    asked: deque[tuple[Written, tuple[Secret, ...]]] = field(default_factory=deque)
    waiting: dict[Written, None] = field(default_factory=dict)
    known: dict[Written, tuple[Secret, ...]] = field(default_factory=dict)
    not_before: float = 0.0
    out: bool = False
    last: bool = False
    failures: int = 0
    failing: frozenset[str] = frozenset()
    failure: Failure | None = None

    def ask(self, written: Written, secrets: tuple[Secret, ...]) -> None:
        """Asks for a run that begins after now. Called by attempts of tokens, from any thread."""
        self.asked.append((written, secrets))

    def owes(self, written: Written) -> bool:
        """Whether no run for it may have succeeded yet."""
        return bool(self.asked) or written in self.waiting


def ask(token: ManagedToken, places: tuple[int, ...], now: float, wake: Callable[[Wake], None]) -> Facts:
    """Asks for the hooks of places that hold another token than their hook was last asked to run for.

    That is so after a write, and after the first look of a process: the one before may have died between the two.
    """
    facts, woken = token.facts, dict[str, HookState]()
    for number in places:
        hook, document, place = token.wiring.hooks[number], published(facts, number), facts.places[number]
        if hook is None or document is None:
            continue
        secrets = [it.access_token for it in (document, place.hooked) if it is not None]
        hook.ask(Written(facts.name, token.wiring.sinks[number].name), tuple(secrets))
        facts = facts.with_place(number, hooked=document)
        woken[hook.name] = hook
    for hook in woken.values():  # once all of them are asked: places of one token with the same hook share its run
        wake(Wake(hook.name, max(now, hook.not_before)))
    return facts


def _take_up(state: HookState) -> None:
    """What was asked for so far is this run's. For a token that left the configuration one run is made, and no more."""
    state.waiting = {written: None for written in state.waiting if written.token in state.tokens}
    state.known = {written: secrets for written, secrets in state.known.items() if written.token in state.tokens}
    while state.asked:
        written, secrets = state.asked[0]
        state.waiting[written], state.known[written] = None, secrets
        state.asked.popleft()  # now that it is owed there: others look at any moment


def _tokens(state: HookState) -> tuple[str, ...]:
    """The tokens that wait for its run."""
    return tuple(dict.fromkeys(written.token for written in state.waiting))


@dataclass(frozen=True, slots=True)
class Hooker:
    """Runs hooks."""

    clock: Clock
    rng: random.Random
    observe: Callable[[Event], None]

    async def attempt(self, state: HookState) -> float:
        """Runs it once for all that was written before, and returns when to come again, in monotonic seconds.

        A bug ends the run alone: it has failed, and comes again by the backoff.
        """
        began = self.clock.monotonic()
        try:
            return await self._run(state, began)
        except Exception as error:  # noqa: BLE001 -- contained here for all hooks
            internal, event = contained(Component.HOOK, state.hook.label, error)
            self.observe(event)
            return self._failed(state, began, internal)

    async def _run(self, state: HookState, began: float) -> float:
        if began < state.not_before and not state.last:
            return state.not_before
        _take_up(state)
        if not state.waiting:
            state.failures, state.failing, state.failure = 0, frozenset(), None
            return math.inf
        state.not_before = began + HOOK_SPACING_SECONDS
        tokens = _tokens(state)
        output = await self._output(state)
        if isinstance(output, HookError):
            return self._failed(state, began, output, output.output)
        seconds = self.clock.monotonic() - began
        recovered = bool(state.failures)
        state.waiting, state.failures, state.failing, state.failure = {}, 0, frozenset(), None
        self.observe(HookRan(state.hook.label, tokens, seconds, output, recovered=recovered, place=state.name))
        return math.inf  # what was asked for meanwhile has put the next one on schedule

    async def _output(self, state: HookState) -> str | HookError:
        """Makes a run, unless one hangs, and returns what it said or how it failed."""
        secrets = [secret for known in state.known.values() for secret in known]

        def run() -> str:
            try:
                return state.hook.run(secrets)
            finally:
                state.out = False

        result: str | ReasonedError | Busy = BUSY
        if not state.out:
            state.out = True
            (result,) = await Calls((Call(state.name, run, finish=True),), state.hook.patience)
        if result is BUSY:
            message = f"hook {state.hook.label} can be neither awaited nor ended; until it is over no other run begins"
            return HookError(Reason.COMMAND_TIMEOUT, message)
        state.out = False  # also where it was not begun, for want of a thread
        if isinstance(result, ReasonedError) and not isinstance(result, HookError):
            raise result
        return result

    def _failed(self, state: HookState, began: float, error: ReasonedError, output: str = "") -> float:
        now, tokens = self.clock.monotonic(), _tokens(state)
        state.failures += 1
        state.failing, state.failure = frozenset(tokens), error.as_failure(Step.HOOK)
        delay = retry_delay(state.failures, 0.0, state.backoff, self.rng.random())
        state.not_before = max(state.not_before, now + delay)
        self.observe(
            HookRan(
                state.hook.label,
                tokens,
                now - began,
                output,
                state.failure,
                state.failures,
                math.inf if state.last else state.not_before - now,
                place=state.name,
            )
        )
        return math.inf if state.last else state.not_before
