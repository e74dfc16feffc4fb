"""The clocks of the machine."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's clocks. The monotonic one goes on while the machine sleeps, as the life of a token does."""

    def monotonic(self) -> float:
        """Seconds since boot, sleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Seconds since 1970 in UTC."""
        return time.time()
