"""When to rotate and when to try again."""

from __future__ import annotations

import pytest

from aca_tokend.core.config import BackoffConfig, RotationConfig
from aca_tokend.core.policy import URGENT_INTERVAL_SECONDS, plan, retry_delay

ROTATION = RotationConfig(fraction=0.667, jitter=0.1, min_interval=10.0)
BACKOFF = BackoffConfig(initial=1.0, cap=60.0)


@pytest.mark.parametrize(
    ("lifetime", "draw", "rotate"),
    [
        (7200.0, 0.0, 4802.4),
        (7200.0, 1.0, 4322.16),
        (7200.0, 0.5, 4562.28),
        (1209600.0, 0.0, 806803.2),  # 14 days
        (12.0, 0.0, 10.0),  # the floor
        (3.0, 0.5, 10.0),  # a life shorter than the floor is rotated after its end rather than in a tight loop
    ],
)
def test_rotation_point(lifetime: float, draw: float, rotate: float) -> None:
    """The rotation point is the fraction of the lifetime, up to the jitter earlier, never sooner than the floor."""
    life = plan(1000.0, lifetime, ROTATION, draw)

    assert life.rotate == pytest.approx(1000.0 + rotate)
    assert life.expires == 1000.0 + lifetime
    assert life.outage_tolerance == pytest.approx(lifetime - rotate)


@pytest.mark.parametrize(
    ("failures", "remaining", "draw", "delay"),
    [
        (1, 2400.0, 1.0, 1.0),
        (2, 2400.0, 1.0, 2.0),
        (4, 2400.0, 0.5, 4.0),
        (7, 2400.0, 1.0, 60.0),
        (5000, 2400.0, 1.0, 60.0),
        (1, 2400.0, 0.0, URGENT_INTERVAL_SECONDS),
        (7, 40.0, 1.0, 10.0),  # a quarter of what is left
        (7, 1.0, 1.0, URGENT_INTERVAL_SECONDS),
        (7, -5.0, 1.0, 60.0),  # after expiry attempts go on at the cap
        (7, 0.0, 0.0, 30.0),
        (1, 0.0, 1.0, 1.0),
    ],
)
def test_retry_delay(failures: int, remaining: float, draw: float, delay: float) -> None:
    """A retry backs off exponentially with full jitter, and comes sooner the less life is left."""
    assert retry_delay(failures, remaining, BACKOFF, draw) == pytest.approx(delay)


@pytest.mark.parametrize(
    ("remaining", "retry_after", "delay"),
    [
        (2400.0, 120.0, 120.0),
        (100.0, 120.0, 75.0),  # the last attempts before expiry are made all the same
        (0.0, 120.0, 120.0),
        (2400.0, 0.0, 1.0),
    ],
)
def test_retry_after(remaining: float, retry_after: float, delay: float) -> None:
    """What the server asks for lengthens the wait, but never past the life that is left."""
    assert retry_delay(1, remaining, BACKOFF, 1.0, retry_after) == pytest.approx(delay)
