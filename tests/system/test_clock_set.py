"""A wall clock that is wrong when the daemon starts, and is set a little later: what is published gets right times."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from aca_tokend.demo.stage import wait_until
from tests.integration.conftest import assert_nothing_leaked

if TYPE_CHECKING:
    from aca_tokend.demo.reader import Reader
    from aca_tokend.demo.stage import Stage
    from tests.system.conftest import WallClock

HOURS = 3 * 3600
# Nothing is rotated while the test lasts.
LIFETIME = 1800.0
# Far less than the clock is wrong by, far more than the test takes.
NEAR_SECONDS = 600.0


def told(reader: Reader, field: str) -> float:
    """A time in the document that a reader found last, in seconds since 1970; 0 where it found none."""
    text = reader.document.get(field)
    return datetime.fromisoformat(str(text)).timestamp() if text else 0.0


def told_right(reader: Reader) -> bool:
    """Whether a document says that it was issued a moment ago and works for its whole life from there."""
    age = time.time() - told(reader, "issued_at")
    lifetime = told(reader, "expires_at") - told(reader, "issued_at")
    return abs(age) < NEAR_SECONDS and abs(lifetime - LIFETIME) < 1.0


@pytest.mark.parametrize("ahead", [HOURS, -HOURS], ids=["ahead", "behind"])
@pytest.mark.parametrize("published_before", [False, True], ids=["first start", "good token published"])
def test_clock_set_after_the_start(stage: Stage, wall: WallClock, ahead: int, published_before: bool) -> None:
    """Once a clock that was hours off is set, the published token has right times, and no further one is granted."""
    stage.lookalike.levers(lifetime=LIFETIME)
    config = stage.config(["bookings"])
    if published_before:
        daemon = stage.daemon(config)
        daemon.wait_for("token_rotated")
        daemon.kill()
    wall.set(ahead)
    daemon = stage.daemon(config, environment=wall.environment)
    daemon.wait_for("token_rotated")
    readers = [stage.vault_reader("bookings"), stage.file_reader("bookings")]
    wait_until(lambda: all(reader.accepted for reader in readers), "readers that are served")
    grants = stage.lookalike.counts().grants

    wall.set(0)
    daemon.wait_for("clock_stepped")

    wait_until(lambda: all(map(told_right, readers)), "right times in every place")
    assert stage.lookalike.counts().grants == grants
    for reader in readers:
        assert reader.refused == 0, f"{reader.name}: {reader.last_refusal}"
    assert 0 < daemon.metric("token_ttl_seconds", token="bookings") <= LIFETIME
    assert_nothing_leaked(stage, daemon)
