"""Paging and order hold for every set of tokens and every query."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from aca_tokend.core.outcome import Failure, Reason, Step
from aca_tokend.core.status import Query, State
from aca_tokend.rotation.facts import Recorded, Suspension, Trouble
from tests.fakes import Crowd
from tests.unit.status_bench import Seen

MOST = 24
FAILURE = Failure(Step.GRANT, Reason.TIMEOUT, "acaengine.main: no answer")
REFUSAL = Failure(Step.GRANT, Reason.INVALID_GRANT, "acaengine.main: invalid_grant")

# of each token: is it tried, does it fail, is it suspended, and in how many seconds does it expire
tokens = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.integers(-5, 5)), min_size=0, max_size=MOST)


@cache
def crowd() -> Crowd:
    """Tokens that were rotated once; each example sets anew what tells their states."""
    made = Crowd(MOST)
    made.run_for(600)
    return made


def prepared(signs: list[tuple[bool, bool, bool, int]]) -> Seen:
    made = crowd()
    now = made.clock.now
    seen = Seen()
    seen.bench.clock = made.clock
    for token, (tried, fails, suspended, left) in zip(made.tokens.values(), signs, strict=False):
        held = token.facts.held
        assert held is not None
        account = held.document.account
        token.facts = token.facts._replace(
            tried_once=tried,
            trouble=Trouble(FAILURE, 1, now, 0.0, 0.0) if fails else None,
            suspended=Suspension(REFUSAL, account, "", now, now, now, Recorded()) if suspended else None,
            held=held._replace(issued_at=now - 100.0, lifetime=100.0 + left),
        )
        seen.more[token.name] = token
    return seen


@given(
    signs=tokens,
    states=st.frozensets(st.sampled_from(State)),
    search=st.sampled_from(["", "t", "1", "T2", "x"]),
    per_page=st.integers(1, 7),
)
def test_pages_lose_and_double_nothing(
    signs: list[tuple[bool, bool, bool, int]], states: frozenset[State], search: str, per_page: int
) -> None:
    """The pages of a query are, one after the other, exactly the tokens it asks for, in one order of all."""
    seen = prepared(signs)
    only = seen.more
    everything = seen.page(Query(per_page=1000), tokens=only)
    wanted = [
        token.name
        for token in everything.tokens
        if (not states or token.state in states) and search.lower() in token.name.lower()
    ]
    first = seen.page(Query(states, search, 1, per_page), tokens=only)
    pages = [seen.page(Query(states, search, number, per_page), tokens=only) for number in range(1, first.pages + 1)]

    assert sorted(token.name for token in everything.tokens) == sorted(only)
    assert [token.name for page in pages for token in page.tokens] == wanted
    assert all(len(page.tokens) == per_page for page in pages[:-1])
    assert {page.matching for page in pages} == {len(wanted)}
    assert seen.page(Query(states, search, first.pages + 1, per_page), tokens=only).tokens == []


@given(signs=tokens)
def test_worst_first_and_every_token_counted_once(signs: list[tuple[bool, bool, bool, int]]) -> None:
    """States never get worse down the page, expiries never sooner within a state, and the counts add up."""
    seen = prepared(signs)
    page = seen.page(Query(per_page=1000), tokens=seen.more)
    order = list(State)
    ranks = [order.index(token.state) for token in page.tokens]
    keys = [
        (rank, token.safe_until.timestamp() if token.safe_until else 0.0, token.name)
        for rank, token in zip(ranks, page.tokens, strict=True)
    ]
    assert keys == sorted(keys)
    assert {state: ranks.count(order.index(state)) for state in State} == page.counts
    assert page.need_a_person == sum(token.needs_a_person for token in page.tokens)
