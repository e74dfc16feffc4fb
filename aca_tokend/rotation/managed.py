"""One token of a process: what it is made of, what is known of it, and the messages that wait for its next attempt.

Its own attempts alone write it, one at a time. Everybody else reads it, and puts a message into its inbox.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.config import TokenConfig
    from aca_tokend.core.guard import Rules
    from aca_tokend.core.ports import Sink, TokenEndpoint
    from aca_tokend.rotation.admission import Client, Gate
    from aca_tokend.rotation.changes import Change
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.hook_runner import HookState
    from aca_tokend.rotation.shared import Shared


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a token is made of in one configuration.

    Attributes:
        sinks: one for each `[[tokens.publish]]`, with `hooks` beside them.
        gate: the breaker of its endpoint, shared by all tokens of it.
        client: its application as it is configured, shared by all tokens of it.
        shared: what the tokens of this process know together.
        rules: how attempts with its credential are limited.
    """

    config: TokenConfig
    endpoint: TokenEndpoint
    sinks: tuple[Sink, ...]
    hooks: tuple[HookState | None, ...]
    gate: Gate
    client: Client
    shared: Shared
    rules: Rules

    def passed(self, token: str, now: float) -> list[Wake]:
        """This token sends no more requests here. Returns which others go on, where it was its turn."""
        return [
            wake for it in (self.gate, self.gate.claims, self.client, self.shared) for wake in it.passed(token, now)
        ]


@dataclass(frozen=True, slots=True)
class Woken:
    """Another token's attempt lets this one go on at a moment, in monotonic seconds."""

    at: float


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The wall clock was stepped."""


@dataclass(frozen=True, slots=True)
class VaultBack:
    """A Vault that could not be logged in to can be: what failed is due now."""


@dataclass(frozen=True, slots=True)
class Late:
    """The answer of a call at a place that had not come in time; `number` tells which it was."""

    number: int
    result: object


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """A reload changed this token, and this is what it is made of from now on."""

    wiring: Wiring
    change: Change


Message = Woken | ClockStepped | VaultBack | Late | Reconfigured


@dataclass(slots=True, eq=False)
class ManagedToken:
    """One `[[tokens]]` entry at work."""

    wiring: Wiring
    facts: Facts
    inbox: list[Message] = field(default_factory=list)  # seldom more than one, where each deque has room for 64

    @property
    def name(self) -> str:
        """The configured name."""
        return self.facts.config.name

    @property
    def failing_hooks(self) -> list[HookState]:
        """The hooks whose last run failed for it."""
        return list(dict.fromkeys(hook for hook in self.wiring.hooks if hook is not None and self.name in hook.failing))

    @property
    def failures(self) -> int:
        """How often running whatever fails most has failed."""
        trouble, places = self.facts.trouble, (place.failures for place in self.facts.places)
        return max(trouble.count if trouble else 0, *places, *(hook.failures for hook in self.failing_hooks))

    @property
    def urgency(self) -> float:
        """When readers meet an expired token; now, where nothing is published yet."""
        return self.facts.expires_at
