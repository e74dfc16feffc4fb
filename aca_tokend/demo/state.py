"""The state of the look-alike: its levers, its clock, its tokens and its counts, exchanged whole on a reset."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

from aca_tokend.demo.records import Tokens, Traffic

if TYPE_CHECKING:
    from aca_tokend.demo.levers import Area, Fault, Levers


class State:
    """What all threads of the look-alike share."""

    def __init__(self, levers: Levers) -> None:
        self._lock = threading.Lock()
        self._at_start = self._levers = levers
        self._faults = _uncounted(levers)
        self.tokens = Tokens()
        self.traffic = Traffic()

    @property
    def levers(self) -> Levers:
        """The levers as they stand."""
        return self._levers

    def change(self, changes: bytes) -> None:
        """Merges changes, given as JSON, into the levers, all at once. Raises pydantic.ValidationError."""
        with self._lock:
            levers = self._levers.merged(changes)
            # a change that leaves the faults alone must not begin their counts anew
            if levers.faults is not self._levers.faults:
                self._faults = _uncounted(levers)
            self._levers = levers

    def reset(self) -> None:
        """Everything as it was at the start: the levers, no token, all counts at zero."""
        with self._lock:
            self._levers = self._at_start
            self._faults = _uncounted(self._at_start)
            self.tokens = Tokens()
            self.traffic = Traffic()

    def now(self) -> float:
        """The server's clock."""
        levers = self._levers
        now = time.time() if levers.clock_stopped_at is None else levers.clock_stopped_at
        return now + levers.clock_offset

    def knows_host(self, host: str) -> bool:
        """Whether a tenant is reached by this Host."""
        tenants = self._levers.tenants
        return tenants is None or _without_port(host) in {_without_port(tenant) for tenant in tenants}

    def tenant(self, host: str) -> str:
        """The tenant that a Host stands for."""
        return _without_port(host)

    def fault_for(self, area: Area, username: str) -> Fault | None:
        """The first fault that fits a request, which is thereby one fewer of its `count`."""
        if not self._faults:
            return None
        with self._lock:
            for position, (fault, left) in enumerate(self._faults):
                if fault.on not in {area, "any"} or fault.username not in {None, username}:
                    continue
                if fault.share < 1 and random.random() >= fault.share:  # noqa: S311 - nothing secret is drawn
                    continue
                if left is not None:
                    self._faults[position : position + 1] = [(fault, left - 1)] if left > 1 else []
                return fault
        return None


def _uncounted(levers: Levers) -> list[tuple[Fault, int | None]]:
    """The faults, each with how many requests it still happens to."""
    return [(fault, fault.count) for fault in levers.faults]


def _without_port(host: str) -> str:
    """The name in a Host header: lower case, without the port, an IPv6 address still in its brackets."""
    name = host.lower()
    head, colon, port = name.rpartition(":")
    return head if colon and port.isdigit() else name
