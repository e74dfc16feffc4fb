"""What instruments say on a virtual clock: calm while all is well, and what they say already where they are right."""

from __future__ import annotations

import pytest

from tests.truth.alerts import fired
from tests.truth.matrix import row, seen
from tests.truth.troubles import TROUBLES

BY_NAME = {trouble.name: trouble for trouble in TROUBLES}


def test_calm_while_all_is_well() -> None:
    """No instrument says a word, and no reader was refused."""
    assert row(BY_NAME["nothing"]) == "| nothing, 30 min | - | - | - | - | - |"


@pytest.mark.parametrize(
    ("name", "alert"),
    [
        ("the daemon is gone for two hours", "ACATokendAbsent"),
        ("a password is changed", "ACACredentialsRejected"),
        ("the API refuses every token", "ACATokenRotationFailing"),
        ("Vault is down for two hours", "ACATokenPublishStale"),
    ],
)
def test_fires_in_the_trouble_and_ends_after_it(name: str, alert: str) -> None:
    """What a trouble raises begins while it lasts, and is over at the end of the run."""
    fleet = seen(BY_NAME[name])
    mine = [it for it in fired(fleet) if it.alert == alert]
    assert mine, fired(fleet)
    assert min(it.began for it in mine) < fleet.begins + BY_NAME[name].lasts
    assert max(it.ended for it in mine) < fleet.world.now - 2 * fleet.shape.scrape
