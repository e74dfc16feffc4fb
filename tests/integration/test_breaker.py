"""The endpoint breaker on real parts: an endpoint that is down is asked little, and its return serves everybody."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from aca_tokend.demo.processes import LookAlike
from aca_tokend.demo.stage import CLIENT_ID, Settings, Stage, wait_until
from tests.integration.conftest import assert_nothing_leaked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from aca_tokend.demo.stage import DaemonProcess

TOKEN_PATH = "/auth/oauth/token"
CROWD = 200
MAX_CONCURRENCY = 8
OUTAGE_SECONDS = 30.0
# Due 20 seconds or a little less after the first was granted, whatever their life: none expires in the outage, and
# readers are safe however slow the machine is that runs this.
CROWD_ROTATION = 'fraction = 0.05\njitter = 0.1\nmin_interval = "1s"\nassumed_lifetime = "1h"'
CROWD_LIFETIME = 400.0
SHORT = 'min_interval = "1s"\nassumed_lifetime = "60s"\nbackoff = { initial = "200ms", cap = "1s" }'


def asked(lookalike: LookAlike) -> list[float]:
    """When the token endpoint was asked, in wall seconds."""
    return [seen.time for seen in lookalike.requests(2000) if seen.path == TOKEN_PATH]


def opened_at(daemon: DaemonProcess) -> float:
    """When the breaker opened: at the failure of a third token."""
    failed: dict[str, float] = {}
    for event in daemon.events("rotation_failed"):
        failed.setdefault(event["token"], datetime.fromisoformat(event["timestamp"]).timestamp())
    return sorted(failed.values())[2]


def rotation_points(daemon: DaemonProcess) -> list[float]:
    """When each token is due, in wall seconds."""
    return [
        float(line.rpartition(" ")[2])
        for line in daemon.get("/metrics")[1].splitlines()
        if line.startswith("aca_tokend_token_rotation_timestamp_seconds{")
    ]


def fresh_since(daemon: DaemonProcess, moment: float) -> set[str]:
    """The tokens that were rotated since a moment."""
    return {
        event["token"]
        for event in daemon.events("token_rotated")
        if datetime.fromisoformat(event["timestamp"]).timestamp() >= moment
    }


@pytest.mark.timeout(300)
def test_outage_of_two_hundred_tokens(stage: Stage) -> None:
    """503 for 30 seconds while 200 tokens come due: few requests meanwhile, all fresh soon after, no burst."""
    names = [f"svc-{number}" for number in range(CROWD)]
    stage.lookalike.levers(lifetime=CROWD_LIFETIME)
    settings = Settings(rotation=CROWD_ROTATION, endpoint=f"max_concurrency = {MAX_CONCURRENCY}", files=False)
    daemon = stage.daemon(stage.config(names, settings))
    daemon.wait_for("token_rotated", CROWD)
    wait_until(lambda: min(rotation_points(daemon)) < time.time() + 1.0, "the first token that is due")

    down = time.time()
    stage.lookalike.fail("unavailable_empty")
    wait_until(lambda: time.time() > down + OUTAGE_SECONDS, "the end of the outage")
    wait_until(lambda: max(rotation_points(daemon)) < time.time(), "the last token that is due")
    before = stage.lookalike.counts()
    stage.lookalike.heal()
    stage.lookalike.levers(latency=0.05)  # so that requests that are made at once are under way at once
    healed = time.time()
    wait_until(lambda: len(fresh_since(daemon, healed)) == CROWD, "every token fresh", 120)
    took = time.time() - healed
    counts = stage.lookalike.counts()

    opened = opened_at(daemon)
    while_open = {second: n for second, n, _ in before.per_second if opened + 1 <= second < healed - 1}
    print(
        f"the breaker opened {opened - down:.1f} s into an outage of {healed - down:.1f} s; then at most "
        f"{max(while_open.values(), default=0)} requests a second, {sum(while_open.values())} in all; "
        f"{CROWD} tokens fresh {took:.1f} s after it ended; at most {counts.max_in_flight} requests at once"
    )
    assert healed - opened > 5, "there was something to see"
    assert max(while_open.values(), default=0) <= 3
    assert len(while_open) > 0, "it was probed"
    assert counts.max_in_flight <= MAX_CONCURRENCY
    assert counts.refused == {}
    # each token was granted once at first, once afterwards, and perhaps once before it all began
    since = [n for second, _, n in counts.per_second if second >= int(healed)]
    assert sum(since) <= CROWD * 1.1
    assert daemon.get("/-/healthy")[0] == 200
    assert_nothing_leaked(stage, daemon)


@pytest.mark.parametrize(
    "fault", [{"kind": "rate_limited", "retry_after": "6"}, {"kind": "rate_limited", "retry_after_date": 7.0}]
)
def test_retry_after_holds_for_the_endpoint(stage: Stage, fault: dict[str, object]) -> None:
    """What one token is told by Retry-After holds for all tokens of the endpoint: one request each time it is over."""
    names = [f"svc-{number}" for number in range(20)]
    stage.lookalike.levers(lifetime=CROWD_LIFETIME)
    rotation = CROWD_ROTATION.replace("0.05", "0.01")
    daemon = stage.daemon(stage.config(names, Settings(rotation=rotation, files=False)))
    daemon.wait_for("token_rotated", len(names))
    stage.lookalike.levers(faults=[fault])
    daemon.wait_for("rotation_failed", reason="rate_limited")
    first = told_to_wait_at(daemon)

    def after_pauses() -> list[float]:
        # those that were sent before the first was told to wait may be seen a little later than that
        return [moment for moment in asked(stage.lookalike) if moment >= first + 2.0]

    wait_until(lambda: len(after_pauses()) >= 3, "three pauses")
    times = after_pauses()
    stage.lookalike.heal()
    healed = time.time()
    wait_until(lambda: len(fresh_since(daemon, healed)) == len(names), "every token fresh")

    pauses = [later - sooner for sooner, later in pairwise([first, *times])]
    print(f"asked to wait, the endpoint was left alone for {', '.join(f'{pause:.1f}' for pause in pauses)} s")
    assert min(pauses) >= 5.5


@pytest.mark.timeout(300)
def test_outage_of_replicas(stage: Stage) -> None:
    """After an outage what one replica was granted serves all: the others adopt every token soon, without a grant."""
    names = [f"svc-{number}" for number in range(60)]
    stage.lookalike.levers(lifetime=CROWD_LIFETIME)
    # A token that waits for a probe comes by itself after a quarter of its life, which is later than this test waits:
    # it is the end of the outage that must bring it. So does one that met another replica's claim in its record;
    # where more attempts are allowed there is room for all claims.
    rotation = f'{CROWD_ROTATION}\nmax_rejections = 9\nbackoff = {{ initial = "1s", cap = "10m" }}'
    configs = [stage.config(names, Settings(rotation=rotation, suffix=suffix)) for suffix in ("-1", "-2", "-3")]
    daemons = [stage.daemon(config, log=f"{number}.log") for number, config in enumerate(configs)]
    for daemon in daemons:
        wait_until(lambda daemon=daemon: min(rotation_points(daemon)) > 0, "every token")  # type: ignore[misc]
    down = time.time()
    stage.lookalike.fail("unavailable_empty")
    for daemon in daemons:
        wait_until(lambda daemon=daemon: max(rotation_points(daemon)) < time.time(), "the last token that is due")  # type: ignore[misc]
    before = stage.lookalike.counts()
    for daemon in daemons[1:]:
        daemon.process.send_signal(signal.SIGSTOP)  # so that the first has served every token when they look
    stage.lookalike.levers(lifetime=10 * CROWD_LIFETIME, faults=[])
    wait_until(lambda: min(issued(daemons[0])) > down, "every token fresh in the first replica")
    healed = time.time()
    for daemon in daemons[1:]:
        daemon.process.send_signal(signal.SIGCONT)

    for number, daemon in enumerate(daemons):
        wait_until(lambda daemon=daemon: min(issued(daemon)) > down, f"every token fresh in replica {number}")  # type: ignore[misc]

    took = time.time() - healed
    grants = stage.lookalike.counts().grants - before.grants
    print(f"{len(names)} tokens fresh in the others {took:.1f} s after they could look, by {grants} grants")
    assert grants <= len(names) + 2 * MAX_CONCURRENCY, "none but those under way when they were stopped"


def issued(daemon: DaemonProcess) -> list[float]:
    """When each token that it holds was issued, in wall seconds."""
    return [
        float(line.rpartition(" ")[2])
        for line in daemon.get("/metrics")[1].splitlines()
        if line.startswith("aca_tokend_token_issued_timestamp_seconds{")
    ]


def told_to_wait_at(daemon: DaemonProcess) -> float:
    """When the first token was told to wait."""
    failed = daemon.events("rotation_failed")[0]
    return datetime.fromisoformat(failed["timestamp"]).timestamp()


@contextmanager
def second_endpoint(stage: Stage, config: Path, names: Sequence[str], log: Path) -> Iterator[LookAlike]:
    """Another server, to which the tokens of these names are moved in a configuration."""
    clients = {CLIENT_ID: {"secret": stage.passwords.client_secret.reveal(), "scopes": ["public"]}}
    accounts = {name: {"password": stage.passwords.password.reveal()} for name in names}
    with LookAlike.start({"lifetime": 8.0, "clients": clients, "accounts": accounts}, log=log) as other:
        head, *entries = config.read_text().split("[[tokens]]\n")
        head += f'[acaengine.other]\nurl = "{other.url}"\ntimeout = "2s"\nmax_concurrency = 2\n'
        for number, entry in enumerate(entries):
            endpoint = "other" if entry.split('"')[1] in names else "main"
            entries[number] = f'[[tokens]]\nacaengine = "{endpoint}"\n{entry}'
        config.write_text(head + "".join(entries))
        yield other


def test_hanging_endpoint_delays_no_other(stage: Stage) -> None:
    """While one endpoint hangs for all its tokens, those of another rotate on time: no reader of theirs is refused."""
    hanging = [f"slow-{number}" for number in range(20)]
    config = stage.config(["bookings", *hanging], Settings(rotation=SHORT, files=False))
    with second_endpoint(stage, config, hanging, stage.directory / "other.log") as other:
        daemon = stage.daemon(config)
        daemon.wait_for("token_rotated", 1 + len(hanging))
        reader = stage.vault_reader("bookings")
        other.fail("hang")
        daemon.wait_for("rotation_failed", 3, reason="timeout")

        tokens = reader.tokens
        wait_until(lambda: reader.tokens >= tokens + 3, "rotations of the endpoint that is well")
        assert reader.refused == 0, reader.last_refusal
        assert {event["token"] for event in daemon.events("rotation_failed")} <= set(hanging)
        assert daemon.metric("endpoint_up", endpoint="main") == 1
        assert daemon.metric("endpoint_up", endpoint="other") == 0
        assert daemon.get("/-/healthy")[0] == 200

        healed = time.time()
        other.heal()
        wait_until(lambda: fresh_since(daemon, healed) >= set(hanging), "every token of the endpoint that hung")
        assert reader.refused == 0, reader.last_refusal
        assert other.counts().max_in_flight <= 2 + other.counts().faults["hang"]
        assert_nothing_leaked(stage, daemon)
