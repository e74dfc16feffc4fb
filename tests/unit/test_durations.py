"""Durations: what people write and what the program counts with mean the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aca_tokend.core.durations import PATTERN, UNITS_MS, format_duration, parse_duration

PROBLEMS = {"is not a duration", "is a duration without a unit", "is a negative duration"}

milliseconds = st.integers(min_value=0, max_value=400 * UNITS_MS["d"])
parts = st.lists(st.none() | st.integers(min_value=0, max_value=999_999_999), min_size=5, max_size=5)
# texts that are nearly durations are found far more often than by chance
near_misses = st.text(alphabet="0123456789dhms.- +M\n٣", max_size=12)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10.0), ("2h30m", 9000.0), ("1d", 86400.0), ("0s", 0.0), ("1d1h1m1s1ms", 90061.001)],
)
def test_examples(text: str, seconds: float) -> None:
    """The durations of the documentation mean what they say."""
    assert parse_duration(text) == seconds


@given(milliseconds)
def test_round_trip(count: int) -> None:
    """What is formatted is read back as the same number of seconds."""
    assert parse_duration(format_duration(count / 1000)) == count / 1000


@given(parts)
def test_sum_of_parts(numbers: list[int | None]) -> None:
    """A duration is the sum of its parts, any of which may be left out."""
    units = dict(zip(UNITS_MS, numbers, strict=True))
    text = "".join(f"{number}{unit}" for unit, number in units.items() if number is not None) or "0s"
    assert parse_duration(text) == sum(number * UNITS_MS[unit] for unit, number in units.items() if number) / 1000


@given(near_misses | st.text(max_size=20))
def test_total(text: str) -> None:
    """Any text is either a duration, exactly where the schema's pattern says so, or refused without being repeated."""
    matches = re.fullmatch(PATTERN, text) is not None
    if matches:
        assert 0 <= parse_duration(text) < float("inf")
        return
    with pytest.raises(ValueError, match="is ") as caught:
        parse_duration(text)
    assert str(caught.value) in PROBLEMS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a duration"),
        ("10", "is a duration without a unit"),
        ("1.5", "is a duration without a unit"),
        ("-10s", "is a negative duration"),
        ("10 s", "is not a duration"),
        ("1m1h", "is not a duration"),
        ("1.5h", "is not a duration"),
        ("10s\n", "is not a duration"),
        ("٣s", "is not a duration"),
        ("1234567890s", "is not a duration"),
    ],
)
def test_refused(text: str, problem: str) -> None:
    """A text that is not a duration is refused with what is wrong with it."""
    with pytest.raises(ValueError, match=f"^{problem}$"):
        parse_duration(text)
