"""What can go wrong in a simulated run: each kind of fault, and how it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation import faults_accounts, faults_places, faults_processes, faults_server
from tests.simulation.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.simulation.checker import Checker


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: at `at`, for `seconds`; `target` is the number of a token or replica."""

    kind: str
    at: float
    seconds: float
    target: int = 0
    how: str = ""
    value: float = 0.0


KINDS: Mapping[str, Callable[[Scene], None]] = {
    **faults_server.KINDS,
    **faults_places.KINDS,
    **faults_processes.KINDS,
    **faults_accounts.KINDS,
}


def strike(fault: Fault, checker: Checker) -> None:
    """It begins."""
    checker.cluster.world.note("fault", f"{fault}")
    KINDS[fault.kind](Scene(fault, checker))
