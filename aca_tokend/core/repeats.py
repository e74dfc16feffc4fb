"""Which of many failures alike are worth a line of the log, and what it says of those that are not.

Pure: times are monotonic seconds given by the caller, who serialises the calls. Whoever fails has a run of failures,
which ends with its first success. The invariants: the first failure by each cause in a run is worth a line; of n more
by that cause, in the run or, where many fail alike, in all of their runs, about log2 n are; and nothing is kept of
those that do not fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    Cause = tuple[str, ...]

# While more than so many fail alike, it is the doublings of all their failures together that are worth a line.
MANY = 20


@dataclass(frozen=True, slots=True)
class Repeat:
    """What is known of a failure.

    Attributes:
        worth_a_line: whether it is to be seen; any other is told in detail alone.
        attempt: how many failed running, this one included.
        failing_seconds: since the first of these.
        alike: how many fail by this cause now, this one included.
        left_out: how many failures by this cause were not worth a line since the last that was.
    """

    worth_a_line: bool
    attempt: int
    failing_seconds: float
    alike: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that is over: how many failed running, and for how long."""

    failures: int
    failing_seconds: float


@dataclass(slots=True)
class _Run:
    """The failures of one since its last success, counted by their causes."""

    since: float
    cause: Cause = ()  # of the last one
    counts: dict[Cause, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Alike:
    """All those who fail by one cause now, and the failures by it since the first of them did."""

    who: int = 0
    failures: int = 0
    left_out: int = 0


class Repeats:
    """The runs of failures there are. An owner, such as a token, has one for each of its parts, such as its sinks."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, _Run]] = {}
        self._alike: dict[Cause, _Alike] = {}

    def failed(self, owner: str, part: str, cause: Cause, now: float) -> Repeat:
        """Counts a failure."""
        run = self._run(owner, part, now)
        count = run.counts[cause] = run.counts.get(cause, 0) + 1
        if run.cause != cause:
            self._leave(run)
            run.cause = cause
            self._alike.setdefault(cause, _Alike()).who += 1
        alike = self._alike[cause]
        alike.failures += 1
        doubled = alike.failures if alike.who > MANY else count
        worth_a_line = count == 1 or doubled & (doubled - 1) == 0
        left_out = alike.left_out
        alike.left_out = 0 if worth_a_line else left_out + 1
        return Repeat(worth_a_line, sum(run.counts.values()), now - run.since, alike.who, left_out)

    def held_up(self, owner: str, now: float) -> bool:
        """Notes that it cannot even try. Whether that is news: it neither failed nor was held up since its success."""
        news = "" not in self._runs.get(owner, {})
        self._run(owner, "", now)
        return news

    def succeeded(self, owner: str, part: str, now: float) -> Ended | None:
        """Ends a run; None where there is none."""
        runs = self._runs.get(owner)
        if runs is None or (run := runs.pop(part, None)) is None:
            return None
        if not runs:
            del self._runs[owner]
        self._leave(run)
        return Ended(sum(run.counts.values()), now - run.since)

    def forget(self, owner: str) -> None:
        """It left or became another: whatever fails next is news."""
        for run in self._runs.pop(owner, {}).values():
            self._leave(run)

    def keep(self, owners: Collection[str]) -> None:
        """Forgets all others."""
        for owner in self._runs.keys() - owners:
            self.forget(owner)

    def _run(self, owner: str, part: str, now: float) -> _Run:
        return self._runs.setdefault(owner, {}).setdefault(part, _Run(now))

    def _leave(self, run: _Run) -> None:
        """It fails no more by the cause of its last failure."""
        alike = self._alike.get(run.cause)
        if alike is not None:
            alike.who -= 1
            if not alike.who:
                del self._alike[run.cause]
