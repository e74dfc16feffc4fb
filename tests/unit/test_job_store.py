"""What is due when: soonest first, and nothing that was taken off."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from aca_tokend.agenda import Agenda, Ticket
from aca_tokend.core.steps import Duty


async def _attempt() -> float:
    return math.inf


def ticket(at: float) -> Ticket:
    return Ticket(at, Duty("one", "a", _attempt, lambda: 0.0))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 50)),
            st.tuples(st.just("take off"), st.integers(0, 100)),
            st.tuples(st.just("take due"), st.integers(0, 50)),
        ),
        max_size=120,
    )
)
def test_what_is_due_comes_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    """Whatever is put on and taken off, what is due comes soonest first, once, and nothing that was taken off."""
    agenda = Agenda()
    waiting: list[Ticket] = []
    queued: list[Ticket] = []
    for step, number in steps:
        if step == "put":
            waiting.append(ticket(float(number)))
            agenda.put(waiting[-1])
        elif step == "take off":
            held = [*waiting, *queued]
            if held:
                one = held[number % len(held)]
                agenda.take_off(one)
                (queued if one.queued else waiting).remove(one)
        else:
            due = agenda.take_due(float(number))
            assert [one.at for one in due] == sorted(one.at for one in waiting if one.at <= number)
            assert all(one.queued and not one.gone for one in due)
            waiting = [one for one in waiting if one not in due]
            queued += due
        assert agenda.next_at == min((one.at for one in waiting), default=math.inf)


def test_what_was_taken_off_is_let_go_of() -> None:
    """A token that is put anew a thousand times before its time leaves no thousand tickets behind."""
    agenda = Agenda()
    agenda.put(ticket(1.0))
    for number in range(1000):
        one = ticket(1000.0 - number / 1000)
        agenda.put(one)
        agenda.take_off(one)

    assert len(agenda._heap) <= 2
