"""All planted faults by name."""

from __future__ import annotations

from tests.simulation import planted, planted_admission, planted_defects, planted_hooks, planted_rules
from tests.simulation.planting import PLANTED

__all__ = ["MODULES", "PLANTED"]

# each of them fills the list
MODULES = (planted, planted_admission, planted_defects, planted_hooks, planted_rules)
