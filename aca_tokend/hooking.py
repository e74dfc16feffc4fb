"""What is run after a write: for whom, how often, and when again. It runs on a schedule of its own.

    ask        a sink holds a token that its hook was not run for: the attempt of the token says so and goes on
    attempt    of the hook: takes up all that was written so far, runs once for all of it, and tells how that went

No token ever waits for a hook, and a failed one is run again alone: no look, no grant, no write.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.breaker import Wake
from aca_tokend.core.errors import HookError, contained
from aca_tokend.core.outcome import Component, Event, HookRan, Step
from aca_tokend.core.policy import HOOK_SPACING_SECONDS, retry_delay
from aca_tokend.core.steps import Call
from aca_tokend.state import Written

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from aca_tokend.core.errors import ReasonedError
    from aca_tokend.core.ports import Clock
    from aca_tokend.state import HookState, TokenState


def ask(state: TokenState, now: float, wake: Callable[[Wake], None]) -> None:
    """Asks for the hooks of all sinks that hold another token than their hook was last asked to run for.

    That is so after a write, and after the first look of a process: the one before may have died between the two.
    """
    woken: dict[str, HookState] = {}
    for sink in state.sinks:
        hook, published = sink.hook, sink.published
        if hook is None or published is None or published == sink.hooked:
            continue
        secrets = [document.access_token for document in (published, sink.hooked) if document is not None]
        hook.ask(Written(state.name, sink.sink.name), tuple(secrets))
        sink.hooked = published
        woken[hook.name] = hook
    for hook in woken.values():  # once all of them are asked: sinks of one token with the same hook share its run
        wake(Wake(hook.name, max(now, hook.not_before)))


def _take_up(state: HookState) -> None:
    """What was asked for so far is this run's. A token that left the configuration is waited for no more."""
    while state.asked:
        state.waiting[state.asked.popleft()] = None
    state.waiting = {written: None for written in state.waiting if written.token in state.tokens}
    for written in list(state.known):  # in one go: others add to it
        if written.token not in state.tokens:
            state.known.pop(written, None)


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
        secrets = [secret for known in list(state.known.values()) for secret in known]
        tokens = _tokens(state)
        try:
            output = await Call(state.name, lambda: state.hook.run(secrets), finish=True)
        except HookError as error:
            return self._failed(state, began, error, error.output)
        seconds = self.clock.monotonic() - began
        recovered = bool(state.failures)
        state.waiting, state.failures, state.failing, state.failure = {}, 0, frozenset(), None
        self.observe(HookRan(state.hook.label, tokens, seconds, output, recovered=recovered, place=state.name))
        return math.inf  # what was asked for meanwhile has put the next one on schedule

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
