"""The defects that were seen at real servers, planted again: each must be caught by what was added for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Reason
from aca_tokend.rotation import decide as rules_of
from aca_tokend.rotation.attempts import AttemptRecords, Book
from aca_tokend.rotation.decide import Action, Do, Rest, decide
from aca_tokend.rotation.grant import Granter
from aca_tokend.rotation.rotator import Rotator
from aca_tokend.simulation.driver import SimDriver
from aca_tokend.simulation.places import SimSink
from tests.simulation.planting import instead, plant, rotator, rules, sink
