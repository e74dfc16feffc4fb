"""Thousands of tokens that were issued in the same minute, and an endpoint that is slower than they need."""

from __future__ import annotations

import json
import math
from collections import Counter
from io import StringIO

import pytest

from aca_tokend import log
from aca_tokend.simulation.driver import SimDriver
from tests.simulation.herds import HOUR, Spell, Unhurried, rounds


def test_tokens_of_one_minute_stay_spread() -> None:
    """Ten thousand tokens of one minute never come as a herd again: each round is even, and wider than the last."""
    tokens, lifetime = 10_000, 2 * HOUR
    first, *later = rounds(tokens, lifetime, 3)

    assert len(first) == tokens
    assert max(first) < 60.0
    jitter = lifetime * 0.667 * 0.1
    busiest = []
    for number, moments in enumerate(later, start=1):
        span = max(moments) - min(moments)
        assert span == pytest.approx(number * jitter, abs=60.0 + 0.02 * number * jitter)
        busiest.append(max(Counter(map(int, moments)).values()))
        mean = tokens / span
        assert busiest[-1] <= mean + 7 * math.sqrt(mean), "no second is busier than chance makes it"
    assert busiest[-1] < busiest[0]


def test_first_grants_come_as_fast_as_the_endpoint_answers() -> None:
    """Two thousand credentials that nobody tried yet: no claim runs out in the queue, and the endpoint never idles."""
    tokens, latency = 2000, 0.2
    (first,) = rounds(tokens, HOUR, 1, latency=(latency, 0.02, 0.002))

    assert len(first) == tokens
    assert max(first) == pytest.approx(tokens * 1.21 * latency / 8, rel=0.1), "eight at once, all the time"


def test_most_urgent_first_when_behind() -> None:
    """While an endpoint is too slow its tokens go in the order of expiry, so that none expires; a warning tells."""
    stream = StringIO()
    log.configure("info", "json", stream)
    spell = Spell(SimDriver)
    spell.run()

    assert len(spell.watch.asked) > 7_000
    assert spell.overtaken == 0
    assert spell.refused == 0
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["level"], line["endpoint"]) == ("endpoint_too_slow", "warning", "main")
    assert line["due_per_second"] > line["given_per_second"] > 0
    assert line["due_per_second"] == pytest.approx(600 / (600 * 0.3 * 0.95) + 600 / (600 * 0.8 * 0.95), rel=0.02)
    assert line["given_per_second"] == pytest.approx(line["at_once"] / (1.21 * Spell.SLOW), rel=0.1)


def test_without_urgency_tokens_would_expire() -> None:
    """The same tokens in the order in which they fall due would overtake more urgent ones, and some would expire."""
    spell = Spell(Unhurried)
    spell.run()

    assert spell.overtaken > 0
    assert spell.refused > 0
