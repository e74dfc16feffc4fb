"""Moving the look-alike's levers and reading what it counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest

from aca_tokend.demo.processes import HelperError, LookAlike
from tests.lookalikes import FORM, LEVERS, PASSWORD, SECRET, ask, grant, read

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def started() -> Iterator[LookAlike]:
    with LookAlike.start(LEVERS) as server:
        yield server


@pytest.fixture
def server(started: LookAlike) -> LookAlike:
    started.reset()
    return started


@pytest.fixture
def http(server: LookAlike) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


def test_reads_are_counted_by_what_became_of_them(server: LookAlike, http: httpx.Client) -> None:
    """Accepted and refused reads are counted, the refused ones with their reason."""
    read(http, f"Bearer {grant(http)['access_token']}")
    read(http, "Bearer made-up")
    read(http, "bearer made-up")

    counts = server.counts()

    assert (counts.reads_accepted, counts.reads_refused) == (1, 2)
    assert counts.reads_refused_because == {"unknown": 1, "missing": 1}


def test_levers_are_merged_and_accounts_can_go(server: LookAlike, http: httpx.Client) -> None:
    """A change leaves other levers and accounts alone; None removes an account."""
    server.levers(token_type="Bearer")
    server.levers(accounts={"second": {"password": PASSWORD}})
    assert grant(http)["token_type"] == "Bearer"
    assert ask(http, username="second").status_code == 200

    server.levers(accounts={"svc": None})
    assert ask(http).status_code == 400


def test_a_wrong_lever_is_refused_whole_and_never_shown(server: LookAlike, http: httpx.Client) -> None:
    """An unknown lever or a wrong value changes nothing, and its refusal holds no value."""
    with pytest.raises(HelperError) as unknown:
        server.levers(token_type="Bearer", tokentype="Bearer")
    with pytest.raises(HelperError) as wrong:
        server.levers(accounts={"svc": {"password": [SECRET]}})

    assert "tokentype" in unknown.value.message
    assert "accounts.svc.password" in wrong.value.message
    assert SECRET not in wrong.value.message
    assert grant(http)["token_type"] == "bearer"


def test_levers_are_shown_without_secrets(server: LookAlike, http: httpx.Client) -> None:
    """Reading the levers shows the names and masks the passwords and client secrets."""
    shown = http.get("/_levers").text

    assert "svc" in shown
    assert PASSWORD not in shown
    assert SECRET not in shown
    assert server.present_levers().lifetime == 7200


def test_requests_are_remembered_without_their_values(server: LookAlike, http: httpx.Client) -> None:
    """What was sent can be asserted by its keys, and no password or token is among it."""
    token = grant(http, "aca.example.com")["access_token"]
    read(http, f"Bearer {token}")

    asked, used = server.requests()

    assert (asked.method, asked.path, asked.host, asked.status) == ("POST", "/auth/oauth/token", "aca.example.com", 200)
    assert asked.form_keys == tuple(FORM)
    assert asked.query_keys == ()
    assert "content-type" in asked.headers
    assert "cookie" not in asked.headers
    assert "authorization" in used.headers
    assert asked.port == used.port, "the connection was kept alive"
    shown = http.get("/_requests").text
    assert not any(secret in shown for secret in (PASSWORD, SECRET, token))


def test_grants_and_refusals_are_counted_by_user(server: LookAlike, http: httpx.Client) -> None:
    """Grants, refused attempts, paths and seconds are counted, and a reset begins anew."""
    ask(http)
    ask(http)
    ask(http, password="wrong")
    ask(http, username="nobody")

    counts = server.counts()

    assert (counts.grants, counts.grants_by_username) == (2, {"svc": 2})
    assert counts.refused == {"svc": 1, "nobody": 1}
    assert counts.requests == {"/auth/oauth/token": 4}
    assert [sum(column) for column in zip(*counts.per_second, strict=True)][1:] == [4, 2]
    assert counts.tokens_held == 2
    server.reset()
    assert server.counts().requests == {}
    assert server.counts().tokens_held == 0


def test_expired_tokens_are_forgotten(server: LookAlike, http: httpx.Client) -> None:
    """A token that expired a minute ago takes no memory."""
    server.levers(lifetime=10, clock_stopped_at=1000.0)
    for _ in range(5):
        grant(http)
    assert server.counts().tokens_held == 5

    server.levers(clock_stopped_at=1071.0)
    grant(http)
    assert server.counts().tokens_held == 1


def test_the_latency_is_waited_for(server: LookAlike, http: httpx.Client) -> None:
    """No answer of the token endpoint comes before the latency is over: a lower bound, which no slow machine breaks."""
    server.levers(latency=0.05)
    begin = time.monotonic()

    grant(http)

    assert time.monotonic() - begin >= 0.05
