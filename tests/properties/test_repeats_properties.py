"""What holds of summing up for every order of failures and successes."""

from __future__ import annotations

from collections import Counter
from math import log2

from hypothesis import given
from hypothesis import strategies as st

from aca_tokend.core.repeats import MANY, Repeats

CAUSES = [("rotation_failed", "grant", "timeout"), ("rotation_failed", "grant", "unavailable"), ("publish_failed",)]
owners = st.integers(0, 2 * MANY).map(lambda number: f"t{number}")
failures = st.tuples(owners, st.sampled_from(["", "file", "vault"]), st.sampled_from(CAUSES))
Failures = list[tuple[str, str, tuple[str, ...]]]


@given(st.lists(st.tuples(failures, st.booleans()), max_size=300))
def test_first_of_each_cause_is_worth_a_line(steps: list[tuple[tuple[str, str, tuple[str, ...]], bool]]) -> None:
    """In each run of failures the first by each cause is worth a line, and the run is counted as it was."""
    repeats = Repeats()
    runs: dict[tuple[str, str], Counter[tuple[str, ...]]] = {}
    first: dict[tuple[str, str], float] = {}
    for now, ((owner, part, cause), success) in enumerate(steps):
        key = (owner, part)
        if success:
            ended = repeats.succeeded(owner, part, now)
            counts = runs.pop(key, None)
            assert (ended and (ended.failures, ended.failing_seconds)) == (
                counts and (counts.total(), now - first[key])
            )
            continue
        counts = runs.setdefault(key, Counter())
        if not counts:
            first[key] = now
        counts[cause] += 1
        repeat = repeats.failed(owner, part, cause, now)
        assert repeat.worth_a_line or counts[cause] > 1
        assert (repeat.attempt, repeat.failing_seconds) == (counts.total(), now - first[key])


@given(st.integers(1, 2000), st.integers(1, MANY))
def test_one_run_has_a_line_for_each_doubling(count: int, who: int) -> None:
    """While few fail alike, each has lines at its first, second, fourth, eighth failure and so on, and no others."""
    repeats = Repeats()
    lines: dict[int, list[int]] = {number: [] for number in range(who)}
    for attempt in range(1, count // who + 2):
        for number in range(who):
            if repeats.failed(f"t{number}", "", CAUSES[0], 0.0).worth_a_line:
                lines[number].append(attempt)
    doublings = [2**power for power in range(12) if 2**power <= count // who + 1]
    assert all(attempts == doublings for attempts in lines.values())


@given(st.lists(failures, max_size=1000), st.integers(1, 3 * MANY))
def test_lines_are_few_and_nothing_is_lost(told: Failures, who: int) -> None:
    """Without a success lines are at most a few for each who fails; what was left out before each is counted by it."""
    repeats = Repeats()
    lines, left_out, total = Counter[tuple[str, ...]](), Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    firsts = Counter[tuple[str, ...]]()
    seen = set()
    for drawn, _, cause in told:
        owner = f"t{int(drawn[1:]) % who}"
        total[cause] += 1
        firsts[cause] += (owner, cause) not in seen
        seen.add((owner, cause))
        repeat = repeats.failed(owner, "", cause, 0.0)
        assert 1 <= repeat.alike <= who
        if repeat.worth_a_line:
            lines[cause] += 1
            left_out[cause] += repeat.left_out
    for cause, count in total.items():
        few = (who + 1) * log2(count)
        assert firsts[cause] <= lines[cause] <= firsts[cause] + few
        assert lines[cause] + left_out[cause] <= count


@given(st.lists(failures, max_size=200), st.sets(owners))
def test_nothing_is_kept_of_those_that_do_not_fail(told: Failures, kept: set[str]) -> None:
    """Once all succeeded or left, it is as at the start: the next failure of each is its first, alone of its kind."""
    repeats = Repeats()
    for owner, part, cause in told:
        repeats.failed(owner, part, cause, 0.0)
    repeats.keep(kept)
    for owner, part, _ in told:
        ended = repeats.succeeded(owner, part, 1.0)
        assert ended is None or owner in kept
    for owner in {owner for owner, _, _ in told}:
        repeat = repeats.failed(owner, "", CAUSES[0], 2.0)
        assert (repeat.worth_a_line, repeat.attempt, repeat.alike, repeat.left_out) == (True, 1, 1, 0)
        repeats.forget(owner)


@given(st.lists(st.sampled_from(["held", "failed", "success"]), max_size=50))
def test_held_up_is_news_once(steps: list[str]) -> None:
    """To be held up is news where it neither failed nor was held up since its last success; it counts as no failure."""
    repeats, known, count = Repeats(), False, 0
    for step in steps:
        if step == "success":
            ended = repeats.succeeded("t", "", 0.0)
            assert (ended.failures if ended else None) == (count if known else None)
            known, count = False, 0
        elif step == "held":
            assert repeats.held_up("t", 0.0) is not known
            known = True
        else:
            count += 1
            assert repeats.failed("t", "", CAUSES[0], 0.0).attempt == count
            known = True
