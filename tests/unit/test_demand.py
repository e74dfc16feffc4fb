"""Whether an endpoint keeps up: the arithmetic, and what the daemon says of it."""

from __future__ import annotations

import json
import threading
from io import StringIO

import pytest

from aca_tokend import log
from aca_tokend.clock import SystemClock
from aca_tokend.core.config import Config, EndpointConfig, EnvReference, TokenAuth, VaultConfig
from aca_tokend.core.demand import WINDOW_SECONDS, Demand, Load
from aca_tokend.core.outcome import Granted
from aca_tokend.daemon import Daemon
from aca_tokend.demo.child import wait_until
from aca_tokend.event_log import EventLog
from aca_tokend.rotation.facts import Held, Identity
from tests.fakes import token_config
from tests.unit.told import DOCUMENT

VAULT = VaultConfig(address="https://vault.example.com", auth=TokenAuth(token=EnvReference(env="T")))


def busy(grants: int, seconds: float, due: float, at_once: int = 8) -> Load:
    """The load of an endpoint that answered so many grants in one window."""
    demand = Demand(100.0)
    for _ in range(grants):
        demand.granted("main", seconds)
    return demand.take(100.0 + WINDOW_SECONDS, {"main": due}, {"main": at_once})["main"]


def test_arithmetic() -> None:
    """What an endpoint gives is what may be under way at once, by how long each takes."""
    load = busy(grants=480, seconds=1.0, due=12.0)

    assert (load.given_per_second, load.ratio, load.busy) == (8.0, 1.5, 1.0)
    assert load.too_slow


@pytest.mark.parametrize(
    ("grants", "due"),
    [
        pytest.param(480, 2.0, id="a cold start: busy, and over soon"),
        pytest.param(60, 12.0, id="a replica makes the grants"),
    ],
)
def test_no_false_alarm(grants: int, due: float) -> None:
    """An endpoint that is busy for a while, or whose grants a replica makes, is not too slow."""
    assert not busy(grants=grants, seconds=1.0, due=due).too_slow


def test_windows_follow_each_other() -> None:
    """Each window counts its own grants; endpoints that were not asked, or left, have no load."""
    demand = Demand(0.0)
    demand.granted("main", 1.0)
    demand.granted("gone", 1.0)
    assert not demand.complete(WINDOW_SECONDS - 1)
    assert demand.complete(WINDOW_SECONDS)

    assert set(demand.take(WINDOW_SECONDS, {"main": 1.0}, {"main": 8})) == {"main"}
    assert not demand.complete(WINDOW_SECONDS + 1)
    assert demand.take(2 * WINDOW_SECONDS, {"main": 1.0}, {"main": 8}) == {}


def test_the_warning_has_the_arithmetic() -> None:
    """The line says what is due, what is given, and what to do."""
    stream = StringIO()
    log.configure("info", "json", stream)
    events = EventLog()
    events.observe_demand("main", busy(grants=480, seconds=1.0, due=12.0))
    events.observe_demand("main", busy(grants=480, seconds=1.0, due=2.0))

    slow, well = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (slow["event"], slow["level"], well["event"], well["level"]) == (
        "endpoint_too_slow",
        "warning",
        "endpoint_keeps_up",
        "info",
    )
    assert (slow["endpoint"], slow["due_per_second"], slow["given_per_second"], slow["at_once"]) == ("main", 12, 8, 8)
    assert "max_concurrency" in slow["advice"]
    assert "advice" not in well


class ByHand(SystemClock):
    """The machine's clocks, but for the one that deadlines go by."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Moves when it is moved."""
        return self.now


def test_daemon_tells_once() -> None:
    """A daemon whose endpoint falls behind says so once, shows it in its metrics, and tells when that is over."""
    stream, clock = StringIO(), ByHand()
    log.configure("info", "json", stream)
    daemon = Daemon(
        Config(acaengine={"main": EndpointConfig(url="https://aca.example.com")}, vault={"main": VAULT}), clock
    )
    for number in range(100):
        config = token_config(min_interval="10s").model_copy(update={"name": f"token-{number}"})
        token = daemon.tokens.add(config, clock.now)
        identity = Identity(DOCUMENT.account, "svc", "authority-1", clock.now)
        held = Held(DOCUMENT, issued_at=clock.now, lifetime=10.0, asked_at=clock.now, scope=config.scope)
        token.facts = token.facts._replace(identity=identity, held=held)

    watching = threading.Thread(target=daemon.watch)
    watching.start()
    try:
        for seconds in (1.0, 1.0, 0.1):
            before = daemon.watched.loads.get("main")
            for _ in range(480):
                daemon._observe(Granted("token-0", "main", "200", seconds, None))
            clock.now += WINDOW_SECONDS
            wait_until(lambda before=before: daemon.watched.loads.get("main") is not before, "the load of a window")  # type: ignore[misc]  # bound now
            page = daemon.metrics.exposition("")[0].decode()
            shown = page.partition('aca_tokend_endpoint_demand_ratio{endpoint="main"} ')[2].partition("\n")[0]
            assert float(shown) == pytest.approx(10.0 * seconds / 8)
    finally:
        daemon.bell.ring_to_stop()
        watching.join()

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        "endpoint_too_slow",
        "endpoint_keeps_up",
    ]
