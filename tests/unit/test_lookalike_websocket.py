"""The realtime API of the look-alike: who may connect, and what becomes of a connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from aca_tokend.demo.processes import LookAlike
from aca_tokend.demo.stage import wait_until
from tests.lookalikes import LEVERS, grant

if TYPE_CHECKING:
    from collections.abc import Iterator

PATHS = ["/control/websocket", "/api/engine/v2/systems/control"]


@pytest.fixture(scope="module")
def started() -> Iterator[LookAlike]:
    with LookAlike.start(LEVERS) as server:
        yield server


@pytest.fixture
def server(started: LookAlike) -> LookAlike:
    started.reset()
    return started


def token(server: LookAlike) -> str:
    """A token that the server just granted."""
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        return str(grant(http)["access_token"])


def address(server: LookAlike, bearer_token: str, path: str = PATHS[0]) -> str:
    return f"ws://127.0.0.1:{server.port}{path}?bearer_token={bearer_token}"


@pytest.mark.parametrize("path", PATHS)
def test_repeats(server: LookAlike, path: str) -> None:
    """With a token that works a client connects, gets each text back, and may ping."""
    with connect(address(server, token(server), path)) as websocket:
        websocket.send("a text")
        assert websocket.recv(timeout=60) == "a text"
        assert websocket.ping().wait(60)
    assert server.counts().reads_accepted == 1


def test_outlives_its_token(server: LookAlike) -> None:
    """A connection goes on when its token has expired, and the token makes no other."""
    server.levers(lifetime=2.0)
    bearer_token = token(server)
    expired = time.time() + 2.0
    with connect(address(server, bearer_token)) as websocket:
        wait_until(lambda: time.time() > expired, "the end of the token")
        websocket.send("a text")
        assert websocket.recv(timeout=60) == "a text"
    with pytest.raises(InvalidStatus, match="401"), connect(address(server, bearer_token)):
        pass
    assert server.counts().reads_refused_because == {"expired": 1}


@pytest.mark.parametrize("bearer_token", ["", "unknown"])
def test_refuses(server: LookAlike, bearer_token: str) -> None:
    """Without a token that it knows nobody connects."""
    with pytest.raises(InvalidStatus, match="401"), connect(address(server, bearer_token)):
        pass


def test_shows_no_token(server: LookAlike) -> None:
    """What the look-alike remembers of a connection has the name of the parameter and not its value."""
    bearer_token = token(server)
    with connect(address(server, bearer_token)):
        pass
    (seen,) = [seen for seen in server.requests() if seen.path == PATHS[0]]
    assert (seen.status, seen.query_keys) == (101, ("bearer_token",))
    assert bearer_token not in str(server.requests())
