"""The outage that the demo shows: the token endpoint answers 503 for less time than each token can stand.

It begins just before a rotation point, so that it is met, and ends by a timer of its own: a terminal that is halted
must not make it longer.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.demo.child import HelperError

if TYPE_CHECKING:
    from aca_tokend.demo.journal import Journal
    from aca_tokend.demo.processes import LookAlike

OUTAGE_SECONDS = 2.0
LATEST_START_SECONDS = 20.0
# What a rotation needs after the outage, generously, before the demo ends.
RECOVERY_SECONDS = 3.0
EVERY_SECONDS = 60.0
# So long before a rotation point it begins.
AHEAD_SECONDS = 0.5


@dataclass(slots=True)
class Outage:
    """One outage after a third of the time, at the latest after 20 seconds; in a long demo one every minute.

    Attributes:
        ends: when the demo ends, in seconds after the daemon was started; infinity where it does not by itself.
        due: when the next one may begin.
        running: whether the endpoint is out now.
        failures: how many attempts the last one made fail.
        refused: how many reads were refused from its beginning on.
    """

    lookalike: LookAlike
    journal: Journal
    ends: float
    due: float = field(init=False)
    running: bool = False
    happened: int = 0
    failures: int = 0
    refused: int = 0
    _failures_before: int = 0
    _refused_before: int = 0
    _elapsed: float = 0.0
    _timer: threading.Timer | None = None

    def __post_init__(self) -> None:
        """Sets when the first one may begin."""
        self.due = min(self.ends / 3, LATEST_START_SECONDS)

    def tick(self, elapsed: float, now: float, refused: int) -> None:
        """Begins or ends what is due. `elapsed` is since the daemon was started, `now` is wall time."""
        self._elapsed = elapsed
        if self._timer is None:
            if self.due <= elapsed <= self._latest_start() and self._rotation_is_near(now):
                self._begin(now, refused)
            return
        self.failures = self.journal.failures - self._failures_before
        self.refused = refused - self._refused_before
        if self.running and not self._timer.is_alive():
            self.running = False
            self.journal.tell(now, "the token endpoint answers again")
        if elapsed >= self.due + EVERY_SECONDS:
            self.due += EVERY_SECONDS
            self._timer = None

    def close(self) -> None:
        """Forgets the end of an outage that is under way: the look-alike ends now."""
        if self._timer is not None:
            self._timer.cancel()

    def text(self) -> str:
        """One line about it, "" where the demo is too short for one."""
        answers = f"503 for {OUTAGE_SECONDS:.0f} s"
        met = f"{_count(self.failures, 'attempt')} failed, {_count(self.refused, 'read')} refused"
        if self.running:
            return f"The token endpoint answers {answers} now: {met} so far."
        if self.happened:
            return f"The token endpoint answered {answers}: {met}."
        if max(self.due, self._elapsed) < self._latest_start():
            return f"Soon after {self.due:.0f} s the token endpoint will answer {answers}: watch the reads."
        return ""

    def _latest_start(self) -> float:
        return self.ends - OUTAGE_SECONDS - RECOVERY_SECONDS

    def _rotation_is_near(self, now: float) -> bool:
        return any(0 <= token.rotate_at - now <= AHEAD_SECONDS for token in self.journal.tokens.values())

    def _begin(self, now: float, refused: int) -> None:
        self.lookalike.fail("unavailable_html", on="token")
        self._failures_before, self._refused_before = self.journal.failures, refused
        self.failures = self.refused = 0
        self.running = True
        self.happened += 1
        self._timer = threading.Timer(OUTAGE_SECONDS, self._heal)
        self._timer.daemon = True
        self._timer.start()
        self.journal.tell(now, f"the token endpoint answers 503 from now on, for {OUTAGE_SECONDS:.0f} s")

    def _heal(self) -> None:
        with contextlib.suppress(HelperError):  # it ended, which is told of elsewhere
            self.lookalike.heal()


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
