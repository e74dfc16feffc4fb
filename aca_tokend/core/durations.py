"""Durations as people write them: `"10s"`, `"2h30m"`, `"500ms"`, `"1d"`. In the program they are seconds."""

from __future__ import annotations

import re

UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}

# Whole numbers with their units, from days down to milliseconds, each at most once: as the schema has it.
PATTERN = "^(?=.)" + "".join(f"([0-9]{{1,9}}{unit})?" for unit in UNITS_MS) + "$"

_PARTS = re.compile("".join(f"(?:([0-9]{{1,9}}){unit})?" for unit in UNITS_MS))


def parse_duration(text: str) -> float:
    """The seconds that `text` stands for.

    Raises:
        ValueError: it is not a duration; the message says why and does not repeat the text.
    """
    match = _PARTS.fullmatch(text)
    if not text or match is None:
        raise ValueError(_why(text))
    numbers = (int(number or 0) for number in match.groups())
    return sum(number * unit for number, unit in zip(numbers, UNITS_MS.values(), strict=True)) / 1000


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as these seconds, to the millisecond; `0s` for nothing."""
    left = round(seconds * 1000)
    text = ""
    for name, unit in UNITS_MS.items():
        number, left = divmod(left, unit)
        text += f"{number}{name}" if number else ""
    return text or "0s"


def _why(text: str) -> str:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return "is a duration without a unit"
    if text.startswith("-"):
        return "is a negative duration"
    return "is not a duration"
