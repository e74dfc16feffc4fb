"""The faults of a soak: which comes when by a seed, and how each is done to the real servers.

Each is over in a few seconds, so that no token may expire for it: what is looked for is what they leave behind.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from threading import Event

    from aca_tokend.demo.stage import Stage

# One in each of these, in its first part: so there are 40 seconds at least from one to the next.
EVERY_SECONDS = 60.0
WITHIN_SECONDS = 20.0
SHORTEST_SECONDS, LONGEST_SECONDS = 3.0, 7.0
# What the endpoint does, as a fault of the look-alike.
ANSWERS = ("unavailable_html", "hang", "reset", "cut_body")
RELOADS = ("reload: tokens", "reload: pools")
KINDS = (*ANSWERS, "endpoint down", "vault sealed", "vault halted", "vault restarted", *RELOADS)
# So many reloads of each kind come first, one in each of these.
SETTLING_RELOADS = 10
SETTLING_EVERY_SECONDS = 10.0
SETTLING_SECONDS = SETTLING_RELOADS * len(RELOADS) * SETTLING_EVERY_SECONDS


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault: when it begins, in seconds from the start, and for how long it lasts."""

    at: float
    kind: str
    seconds: float


def strikes(seed: int, seconds: float) -> list[Strike]:
    """The faults of a run of so many seconds. The kinds take turns, each turn in another order.

    Twenty reloads come first. Each has two configurations in memory for a moment, and Python gives back only pages that
    are free as a whole: what stays grows most with the first few, and that belongs to the warm-up.
    """
    rng = random.Random(seed)  # noqa: S311 -- to be repeatable is the point
    found = [
        Strike(number * SETTLING_EVERY_SECONDS, kind, SHORTEST_SECONDS)
        for number, kind in enumerate(RELOADS * SETTLING_RELOADS)
    ]
    waiting = rng.sample(KINDS[: -len(RELOADS)], len(KINDS) - len(RELOADS))
    for number in range(int((seconds - SETTLING_SECONDS) // EVERY_SECONDS)):
        if not waiting:
            waiting = rng.sample(KINDS, len(KINDS))
        at = SETTLING_SECONDS + number * EVERY_SECONDS + rng.uniform(0.0, WITHIN_SECONDS)
        found.append(Strike(at, waiting.pop(), rng.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)))
    return found


@dataclass(slots=True)
class Striker:
    """Does faults to the servers of a stage, and to the configuration and the process of its daemon.

    `leave` is how many tokens, the last of the configuration, leave at one reload and come back at the next.
    """

    stage: Stage
    config: Path
    pid: int
    leave: int
    _whole: str = field(init=False)
    _without: bool = False

    def __post_init__(self) -> None:
        """Keeps the configuration as it was written."""
        self._whole = self.config.read_text()

    def strike(self, strike: Strike, ended: Event) -> float:
        """Does one fault and, after its time or when all is to end, takes it away. Returns how long all of it took."""
        began = time.monotonic()
        begin, end = self._pair(strike.kind)
        begin()
        try:
            ended.wait(strike.seconds)
        finally:
            end()
        return time.monotonic() - began

    def _pair(self, kind: str) -> tuple[Callable[[], None], Callable[[], None]]:
        lookalike, bao = self.stage.lookalike, self.stage.bao
        if kind in ANSWERS:
            return lambda: lookalike.fail(kind), lookalike.heal
        return {
            "endpoint down": (lookalike.go_down, lookalike.come_up),
            "vault sealed": (bao.seal, bao.unseal),
            "vault halted": (lambda: os.kill(bao.pid, signal.SIGSTOP), lambda: os.kill(bao.pid, signal.SIGCONT)),
            "vault restarted": (bao.kill, bao.restart),
            "reload: tokens": (self._other_tokens, lambda: None),
            "reload: pools": (lambda: self._reload(wider=True), self._reload),
        }[kind]

    def _other_tokens(self) -> None:
        self._without = not self._without
        self._reload()

    def _reload(self, *, wider: bool = False) -> None:
        """Writes the configuration and rings, as an operator would."""
        head, *entries = self._whole.split("[[tokens]]")
        if wider:
            head = head.replace("[acaengine.main]", "[acaengine.main]\nmax_concurrency = 12")
        kept = entries[: len(entries) - self.leave] if self._without else entries
        fresh = self.config.with_suffix(".new")
        fresh.write_text("[[tokens]]".join([head, *kept]))
        fresh.rename(self.config)
        os.kill(self.pid, signal.SIGHUP)
