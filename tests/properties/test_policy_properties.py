"""What holds of the policy for every lifetime, draw and configuration."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aca_tokend.core.config import BackoffConfig, RotationConfig
from aca_tokend.core.policy import URGENT_INTERVAL_SECONDS, plan, retry_delay

draws = st.floats(0.0, 1.0)
lifetimes = st.floats(0.1, 3.2e8)


@given(lifetimes, draws, st.floats(0.05, 0.95), st.floats(0.0, 0.9), st.floats(0.1, 60.0))
def test_rotation_point_lies_between_floor_and_expiry(
    lifetime: float, draw: float, fraction: float, jitter: float, floor: float
) -> None:
    """A rotation point is never sooner than the floor, and before expiry wherever the life is longer than the floor."""
    rotation = RotationConfig(fraction=fraction, jitter=jitter, min_interval=floor, assumed_lifetime=1e6)
    life = plan(0.0, lifetime, rotation, draw)

    assert life.rotate >= floor
    if lifetime > floor:
        assert life.rotate < life.expires


@given(st.integers(1, 10_000), st.floats(0.1, 3.2e8), draws, st.floats(0.1, 10.0), st.floats(0.0, 3600.0))
def test_another_attempt_fits_before_expiry(
    failures: int, remaining: float, draw: float, initial: float, retry_after: float
) -> None:
    """While more life is left than the shortest wait, a wait ends before expiry, whatever the server asks for."""
    backoff = BackoffConfig(initial=initial, cap=60.0)
    delay = retry_delay(failures, remaining, backoff, draw, retry_after)

    if remaining > URGENT_INTERVAL_SECONDS:
        assert delay < remaining


@given(st.integers(1, 100), st.floats(1.0, 1e6), st.floats(1.0, 1e6), draws)
def test_waits_never_grow_as_expiry_nears(failures: int, one: float, other: float, draw: float) -> None:
    """With the same failures and draw, less life left never means a longer wait."""
    backoff = BackoffConfig(initial=1.0, cap=60.0)
    near, far = sorted((one, other))

    assert retry_delay(failures, near, backoff, draw) <= retry_delay(failures, far, backoff, draw)


@given(st.integers(1, 100), st.floats(-1e6, 1e6), draws, st.floats(0.5, 10.0), st.floats(10.0, 600.0))
def test_waits_stay_within_the_cap(failures: int, remaining: float, draw: float, initial: float, cap: float) -> None:
    """Without a wish of the server's, no wait is longer than the cap, and none is a busy loop."""
    delay = retry_delay(failures, remaining, BackoffConfig(initial=initial, cap=cap), draw)

    assert 0.2 < delay <= cap
