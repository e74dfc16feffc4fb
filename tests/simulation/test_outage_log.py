"""How many lines an outage of hundreds of tokens writes, on the virtual clock of the real engine, and what they say."""

from __future__ import annotations

import io
import json
import logging
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend import log
from aca_tokend.core.config import parse
from aca_tokend.core.outcome import Failed, HookRan, Published, Reason, Skipped
from aca_tokend.core.repeats import MANY
from aca_tokend.event_log import EventLog
from aca_tokend.expiry import Expiries
from aca_tokend.simulation.replica import Cluster, Setup
from aca_tokend.simulation.run import Tally
from aca_tokend.simulation.world import World

if TYPE_CHECKING:
    from aca_tokend.core.outcome import Event
    from aca_tokend.simulation.replica import Replica

TOKENS = 300
HOUR = 3600.0
LIFETIME = 2 * HOUR
# Rotation points lie between 4,322 and 4,802 seconds: all fall due in this hour, and all expire in it.
BEGINS = 4300.0


class Logged(Tally):
    """Everything that the engine tells is logged as by the daemon."""

    def __init__(self) -> None:
        super().__init__()
        self.log: EventLog | None = None
        self.events: Counter[str] = Counter()

    def told(self, replica: Replica, event: Event) -> None:
        """A rotation tells what happened."""
        if self.log is None:
            self.log = EventLog(replica.clock.wall, replica.clock.monotonic)
        self.log.observe(event)
        failed = event.failure is not None if isinstance(event, Published | HookRan) else isinstance(event, Failed)
        held = isinstance(event, Skipped) and event.why == "endpoint_held"
        self.events["failed"] += failed
        self.events["held"] += held


def outage(seconds: float, endpoint: str = "", vault: Reason | None = None) -> tuple[list[dict[str, Any]], Logged]:
    """What is logged from level INFO on while an endpoint or a Vault fails, and in the two minutes after it."""
    logging.getLogger().handlers.clear()
    stream = io.StringIO()
    log.configure("error", "json", stream)
    config = parse([("config.toml", document())])
    watch, world = Logged(), World(7)
    cluster = Cluster(Setup(config, seed=7, lifetime=LIFETIME), watch, world)
    cluster.start()
    (replica,) = cluster.replicas
    expiries = Expiries()
    world.run(BEGINS)

    log.set_level("info")
    cluster.servers["main"].fault, cluster.vaults["main"].fault = endpoint, vault
    watch.events.clear()
    for second in range(int(seconds)):
        world.run(BEGINS + second)
        for expired in expiries.news(replica.tokens.by_name.values(), replica.clock.monotonic(), replica.clock.wall()):
            watch.told(replica, expired)
    cluster.servers["main"].fault, cluster.vaults["main"].fault = "", None
    world.run(BEGINS + seconds + 120.0)
    return [json.loads(line) for line in stream.getvalue().splitlines()], watch


def document() -> dict[str, object]:
    """Hundreds of tokens of one endpoint, each in a Vault."""
    auth = {"method": "token", "token": {"env": "VAULT_TOKEN"}}
    tokens = [
        {
            "name": f"t{number}",
            "authority": "authority-1",
            "username": f"svc-{number}",
            "password": {"env": f"PASSWORD_{number}"},
            "client_id": "client-1",
            "client_secret": {"env": "CLIENT_SECRET"},
            "scope": "public",
            "publish": [{"to": "vault", "mount": "secret", "path": f"aca/t{number}"}],
        }
        for number in range(TOKENS)
    ]
    return {
        "acaengine": {"main": {"url": "https://aca.example.com"}},
        "vault": {"main": {"address": "https://vault.example.com:8200", "auth": auth}},
        "tokens": tokens,
    }


def first_of_each(lines: list[dict[str, Any]], *events: str) -> set[str]:
    return {line["token"] for line in lines if line["event"] in events}


def seen(lines: list[dict[str, Any]]) -> Counter[str]:
    """How many lines of each event there are, of those that a person may look at."""
    return Counter(line["event"] for line in lines if line["level"] != "info")


def test_endpoint_that_is_down() -> None:
    """A dead endpoint: at most two lines a token before it expires and one then, and a line for each doubling."""
    lines, watch = outage(HOUR, endpoint="refuse")

    counts = seen(lines)
    few = math.ceil(math.log2(watch.events["failed"]))
    assert watch.events["held"] > 10 * TOKENS, "they waited and came to look all the time"
    assert first_of_each(lines, "rotation_failed", "rotation_skipped") == {f"t{number}" for number in range(TOKENS)}
    assert counts["rotation_skipped"] <= TOKENS
    assert counts["rotation_failed"] <= TOKENS + (MANY + 1) * few
    assert counts["token_expired"] == TOKENS
    assert 1 < counts["endpoint_down"] <= few
    assert counts.total() <= 3 * TOKENS + (MANY + 2) * few

    down = [line for line in lines if line["event"] == "endpoint_down"]
    assert (down[0]["waiting"], down[0]["reason"]) == (3, "connect_failed")
    assert down[-1]["waiting"] == TOKENS
    (up,) = (line for line in lines if line["event"] == "endpoint_recovered")
    assert up["failing_seconds"] == pytest.approx(HOUR, abs=120.0)
    back = {line["token"]: line for line in lines if line["event"] == "token_rotated"}
    assert len(back) == TOKENS
    assert all(line["failing_seconds"] > 0 for line in back.values())


def test_endpoint_that_answers_nonsense() -> None:
    """Where each token tries by itself, for 20 minutes, each one's first failure is a line, and then the doublings."""
    lines, watch = outage(HOUR / 3, endpoint="404")

    counts = seen(lines)
    few = math.ceil(math.log2(watch.events["failed"]))
    assert watch.events["failed"] > 10 * TOKENS
    assert first_of_each(lines, "rotation_failed") == {f"t{number}" for number in range(TOKENS)}
    assert counts["rotation_failed"] <= TOKENS + (MANY + 1) * few
    assert counts.total() == counts["rotation_failed"], "none of them has expired yet"
    last = [line for line in lines if line["event"] == "rotation_failed"][-1]
    assert last["alike"] == TOKENS
    assert last["left_out"] > TOKENS


def test_vault_that_is_down() -> None:
    """A Vault that nobody can write to for 20 minutes: for each token a line of its sink and one of its rotation."""
    lines, watch = outage(HOUR / 3, vault=Reason.VAULT_SEALED)

    counts = seen(lines)
    few = math.ceil(math.log2(watch.events["failed"]))
    assert watch.events["failed"] > 10 * TOKENS
    assert first_of_each(lines, "publish_failed") == {f"t{number}" for number in range(TOKENS)}
    assert counts.total() <= 2 * TOKENS + 2 * (MANY + 1) * few
    recovered = [line for line in lines if line["event"] == "publish_recovered"]
    assert len(recovered) == TOKENS
    assert all(line["failures"] > 1 for line in recovered)
