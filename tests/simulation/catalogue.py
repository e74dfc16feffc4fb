"""All planted faults by name."""

from __future__ import annotations

from tests.simulation import planted, planted_admission, planted_hooks
from tests.simulation.planting import PLANTED

__all__ = ["MODULES", "PLANTED"]

# each of them fills the list
MODULES = (planted, planted_admission, planted_hooks)
