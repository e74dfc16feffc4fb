"""What the probes answer: checks by name, each well or with its problem. Pure.

However many tokens there are, an answer stays short: it counts all of them and names a few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# So many names stand in an answer; how many more there are is told.
NAMED = 20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at. It is well where there is no `problem`; `names` are those whom the problem is of."""

    name: str
    problem: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The problem, with some of the names."""
        if not self.names:
            return self.problem
        more = f" and {len(self.names) - NAMED} more" if len(self.names) > NAMED else ""
        return f"{self.problem}: {', '.join(self.names[:NAMED])}{more}"


def problems(checks: Iterable[Check]) -> list[str]:
    """What is not well, one line for each check."""
    return [f"{check.name}: {check}" for check in checks if check.problem]


def report(word: str, checks: Sequence[Check], *, verbose: bool) -> str:
    """The answer of a probe: the word where all is well, else the problems; with `verbose` each check and its names."""
    failed = [check for check in checks if check.problem]
    if verbose:
        lines = [f"[-]{check.name} failed: {check}" if check.problem else f"[+]{check.name} ok" for check in checks]
        lines.append(f"not {word}" if failed else word)
    else:
        lines = [f"{check.name}: {check.problem}" for check in failed] or [word]
    return "".join(f"{line}\n" for line in lines)
