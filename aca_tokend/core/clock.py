"""The two clocks that everything is told the time by. Only daemon.py and simulate.py have real ones."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Deadlines are monotonic; what people and readers see is wall time. Both in seconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never stepped."""

    def wall(self) -> float:
        """Seconds since 1970 in UTC."""
