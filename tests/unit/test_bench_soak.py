"""What the soak concludes from its samples, by series of known slope with noise; and which faults come."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest

from tests.bench import soak
from tests.bench.strikes import (
    EVERY_SECONDS,
    KINDS,
    LONGEST_SECONDS,
    RELOADS,
    SETTLING_RELOADS,
    SETTLING_SECONDS,
    WITHIN_SECONDS,
    strikes,
)
from tests.bench.trend import Trend, fit, interpolated

STEP_SECONDS = 10.0
HOUR = 3600.0


def series(seed: int, minutes: float, slope: float, alike_seconds: float) -> list[tuple[float, float]]:
    """Samples about a line of this slope an hour, with noise of deviation 1 that is alike for so many seconds."""
    rng = random.Random(seed)  # noqa: S311 -- to be repeatable is the point
    kept = math.exp(-STEP_SECONDS / alike_seconds) if alike_seconds else 0.0
    noise, points = rng.gauss(0.0, 1.0), []
    for number in range(int(minutes * 60 / STEP_SECONDS)):
        at = number * STEP_SECONDS
        points.append((at, 100.0 + slope * at / HOUR + noise))
        noise = kept * noise + math.sqrt(1.0 - kept * kept) * rng.gauss(0.0, 1.0)
    return points


def misses(minutes: float, slope: float, alike_seconds: float) -> float:
    """Of 400 such series the share whose true slope is not in the interval."""
    count = 0
    for seed in range(400):
        low, high = fit(series(seed, minutes, slope, alike_seconds)).interval
        count += not low <= slope <= high
    return count / 400


def test_straight_line_is_found_exactly() -> None:
    """A series without noise has its own slope, its own mean, and no error."""
    trend = fit([(float(at), 50.0 + 7.0 * at / HOUR) for at in range(0, 1200, 10)])

    assert trend.slope == pytest.approx(7.0)
    assert trend.error == pytest.approx(0.0, abs=1e-6)
    assert trend.mean == pytest.approx(50.0 + 7.0 * 595 / HOUR)
    assert trend.blocks == 20


@pytest.mark.parametrize("slope", [0.0, 12.0])
@pytest.mark.parametrize("alike_seconds", [0.0, 30.0, 60.0, 120.0])
def test_error_is_honest(slope: float, alike_seconds: float) -> None:
    """However alike samples that follow each other are, hardly more than one interval in twenty misses the slope."""
    assert misses(22.5, slope, alike_seconds) <= 0.09


def test_error_of_alike_samples_is_larger() -> None:
    """Noise of the same size tells less of the slope where samples are alike for longer."""
    errors = [fit(series(1, 30.0, 0.0, alike)).error for alike in (0.0, 30.0, 120.0)]

    assert errors == sorted(errors)
    assert errors[-1] > 2 * errors[0]


@pytest.mark.parametrize(
    ("slope", "error", "verdict", "holds_zero"),
    [
        pytest.param(0.1, 0.2, "flat", True, id="nothing"),
        pytest.param(1.0, 0.1, "flat", False, id="grows by less than is tolerated"),
        pytest.param(5.0, 0.5, "growing", False, id="grows"),
        pytest.param(5.0, 1.9, "not decided", False, id="grows, and perhaps by less than is tolerated"),
        pytest.param(1.0, 3.0, "not decided", True, id="nothing or much"),
        pytest.param(-5.0, 0.5, "falling", False, id="falls"),
    ],
)
def test_verdict(slope: float, error: float, verdict: str, holds_zero: bool) -> None:
    """A series is flat or growing only where the whole interval says so."""
    trend = Trend(slope, error, 100.0, 22)

    assert trend.verdict(2.0) == verdict
    assert trend.holds_zero is holds_zero


@pytest.mark.parametrize("seed", range(10))
def test_leak_is_found(seed: int) -> None:
    """What a soak of half an hour is for: 10 MB an hour under noise of 1 MB is told from none at all."""
    assert fit(series(seed, 22.5, 10.0, 20.0)).verdict(2.0) == "growing"
    assert fit(series(seed, 22.5, 0.0, 20.0)).verdict(2.0) != "growing"


def test_series_that_was_not_read_fails() -> None:
    """A soak that may not see the descriptors of the daemon says so, instead of passing without them."""
    seen = {name: Trend(0.0, 0.1, 100.0, 22) for name in ("resident", "anonymous", "threads")}
    ended = cast("soak.Soak", SimpleNamespace(reads=(1000, 0), readings=[]))

    assert soak.problems(ended, seen) == ["descriptors were not read; run it as root"]
    assert soak.problems(ended, {**seen, "descriptors": seen["threads"]}) == []


def test_last_block_counts_only_if_it_is_half_full() -> None:
    """A block of a few samples at the end has not the weight of a whole one."""
    whole = [(float(at), 1.0) for at in range(0, 600, 10)]

    assert fit([*whole, (600.0, 99.0)]).slope == 0.0
    assert fit([*whole, *((600.0 + at, 1.0) for at in range(0, 30, 10))]).blocks == 11


def test_too_short_a_run_is_refused() -> None:
    """Few minutes make no line, and that is said."""
    with pytest.raises(ValueError, match=r"18 samples fill 3 blocks of 60 s; 5 are needed"):
        fit(series(1, 3.0, 0.0, 0.0))


def test_quantile_of_a_histogram() -> None:
    """A quantile of what came between two readings lies within its bucket by a straight line."""
    before = {0.1: 5.0, 1.0: 5.0, math.inf: 5.0}
    after = {0.1: 55.0, 1.0: 95.0, math.inf: 105.0}

    assert interpolated(0.5, before, after) == pytest.approx(0.1)
    assert interpolated(0.25, before, after) == pytest.approx(0.05)
    assert interpolated(0.7, before, after) == pytest.approx(0.55)
    assert interpolated(0.99, before, after) == 1.0
    assert interpolated(0.5, after, after) is None
    assert interpolated(0.5, {}, {}) is None


def test_faults_are_those_of_the_seed() -> None:
    """The same seed gives the same faults: reloads until memory has settled, then each kind about as often, calmly."""
    found = strikes(1, 30 * 60.0)

    assert found == strikes(1, 30 * 60.0)
    assert found != strikes(2, 30 * 60.0)
    settling = [it for it in found if it.at < SETTLING_SECONDS]
    assert Counter(it.kind for it in settling) == dict.fromkeys(RELOADS, SETTLING_RELOADS)
    later = found[len(settling) :]
    assert len(later) == 26
    counted = Counter(it.kind for it in later)
    assert counted.keys() == set(KINDS)
    assert max(counted.values()) - min(counted.values()) <= 2
    assert {it.kind for it in found if it.at < soak.WARM_UP_SHARE * 30 * 60.0} == set(KINDS), "the warm-up has each"
    gaps = [other.at - one.at - one.seconds for one, other in pairwise(later)]
    assert min(gaps) >= EVERY_SECONDS - WITHIN_SECONDS - LONGEST_SECONDS


def test_too_few_minutes_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A soak that would be over before a line can be fitted does not begin, and says how long it has to be."""
    monkeypatch.setattr("sys.argv", ["soak", "--minutes", "9"])

    with pytest.raises(SystemExit):
        soak.main()

    assert "--minutes 9 are too few for a line after the warm-up: give 10 or more" in capsys.readouterr().err
