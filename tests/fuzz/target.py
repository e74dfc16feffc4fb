"""What is tried, when that counts as a find, and how the smallest input that still shows it is found."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.errors import InternalError
from tests.fuzz.mutation import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

SHRINK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call: the error that it raised, and by how many seconds it took longer than it may."""

    error: Exception | None
    late: float


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads what somebody else wrote.

    Attributes:
        run: has it read an input.
        declared: what it may raise.
        draw: makes an input.
    """

    name: str
    run: Callable[[bytes], Outcome]
    declared: tuple[type[Exception], ...]
    draw: Callable[[Random], bytes]


@dataclass(frozen=True, slots=True)
class Find:
    """An input that something did not stand; as text a line for tests/fuzz/corpus.py."""

    name: str
    case: bytes
    problem: str

    def __str__(self) -> str:
        return f"    ({self.name!r}, {self.case!r}),  # {self.problem}"


@dataclass(slots=True)
class Tally:
    """What one phase did, and whether it counts as a find that a call takes too long."""

    timed: bool = True
    answers: int = 0
    latest: float = float("-inf")  # the worst of all calls, in seconds after what each may take


def outcome(call: Callable[[], object], clock: Callable[[], float], limit: Callable[[], float]) -> Outcome:
    """Makes a call and measures it."""
    error, began = None, clock()
    try:
        call()
    except Exception as exc:  # noqa: BLE001 -- that is what is looked for
        error = exc
    return Outcome(error, clock() - began - limit())


def problem_of(target: Target, case: bytes, tally: Tally) -> str:
    """Why this input is a find; empty where it is none."""
    what = target.run(case)
    tally.answers += 1
    tally.latest = max(tally.latest, what.late)
    if what.error is not None and not isinstance(what.error, target.declared):
        return InternalError.of(what.error).message
    error: BaseException | None = what.error
    while error is not None:
        if CANARY in f"{error}{error!r}":
            return f"{type(error).__name__} shows what it was given"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    # a machine with much else to do must not make one
    if tally.timed and what.late > 0 and all(target.run(case).late > 0 for _ in range(3)):
        return "it takes too long"
    return ""


def smallest(target: Target, case: bytes, problem: str) -> Find:
    """The input with all left out that the problem does not need."""
    until, size = time.monotonic() + SHRINK_SECONDS, len(case) // 2
    while size and time.monotonic() < until:
        at = 0
        while at < len(case) and time.monotonic() < until:
            shorter = case[:at] + case[at + size :]
            if problem_of(target, shorter, Tally()) == problem:
                case = shorter
            else:
                at += size
        size //= 2
    return Find(target.name, case, problem)


def search(targets: list[Target], rng: Random, tally: Tally, more: Callable[[], bool]) -> Find | None:
    """Tries inputs as long as there is to be more of it; the first find, if any."""
    while more():
        target = rng.choice(targets)
        case = target.draw(rng)
        if problem := problem_of(target, case, tally):
            return smallest(target, case, problem)
    return None
