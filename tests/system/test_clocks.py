"""Clocks that are wrong or stepped, on the real daemon: deadlines stay right, and no reader notices."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from aca_tokend.demo.stage import Settings, wait_until
from tests.integration.conftest import assert_nothing_leaked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aca_tokend.demo.reader import Reader
    from aca_tokend.demo.stage import DaemonProcess, Stage
    from tests.system.conftest import WallClock

HOUR = 3600
LIFETIME = 8.0
EARLIEST = LIFETIME * 0.667 * 0.9  # the rotation point is no sooner after the grant, whatever the draw


def rotations(daemon: DaemonProcess, readers: Iterable[Reader], count: int) -> None:
    """Waits until every reader has met so many further tokens, and none was refused."""
    tokens = {reader.name: reader.tokens for reader in readers}
    wait_until(
        lambda: all(reader.tokens >= tokens[reader.name] + count for reader in readers) or not daemon.running,
        f"{count} rotations",
    )
    for reader in readers:
        assert reader.refused == 0, f"{reader.name}: {reader.last_refusal}"


def grant_times(stage: Stage) -> list[float]:
    """When each grant was asked for, by a clock that nobody steps."""
    return [seen.time for seen in stage.lookalike.requests(2000) if seen.path == "/auth/oauth/token"]


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["forward", "back"])
def test_wall_clock_is_stepped(stage: Stage, wall: WallClock, ahead: int) -> None:
    """Steps of an hour there and back are told of; tokens are rotated when they would have been, and readers served."""
    daemon = stage.daemon(stage.config(["bookings"]), environment=wall.environment)
    daemon.wait_for("token_rotated")
    readers = [stage.vault_reader("bookings"), stage.file_reader("bookings")]
    rotations(daemon, readers, 1)

    for number, position in enumerate((ahead, 0, ahead), start=1):
        wall.set(position)
        stepped = daemon.wait_for("clock_stepped", number)
        assert stepped["seconds"] == pytest.approx(ahead if position else -ahead, abs=5)
        rotations(daemon, readers, 2)

    gaps = [later - sooner for sooner, later in pairwise(grant_times(stage))]
    print(f"{len(gaps) + 1} grants, {', '.join(f'{gap:.1f}' for gap in gaps)} s apart")
    assert min(gaps) > EARLIEST / 2, "no grant because of a step"
    assert len(daemon.events("clock_stepped")) == 3
    assert daemon.events("rotation_failed") == []
    assert daemon.get("/-/healthy")[0] == 200
    assert_nothing_leaked(stage, daemon)
    assert daemon.terminate() == 0


def test_no_false_alarm_after_a_step(stage: Stage, wall: WallClock) -> None:
    """A token that works is not told of as expired because the wall clock was set an hour forward."""
    stage.lookalike.levers(lifetime=600.0)
    daemon = stage.daemon(stage.config(["bookings"]), environment=wall.environment)
    daemon.wait_for("token_rotated")

    wall.set(HOUR)
    daemon.wait_for("clock_stepped")

    # the watch counts once a second; what it counted wrongly shows from its next round on
    scrapes = [daemon.metric("token_unavailable_seconds_total", token="bookings")]
    reader = stage.vault_reader("bookings")
    wait_until(lambda: reader.accepted >= 40, "two seconds of a reader")
    scrapes.append(daemon.metric("token_unavailable_seconds_total", token="bookings"))
    assert reader.refused == 0, reader.last_refusal
    assert scrapes == [0, 0]
    assert daemon.metric("token_ready", token="bookings") == 1
    assert daemon.metric("token_ttl_seconds", token="bookings") > 0
    assert stage.lookalike.counts().grants == 1


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_restart_after_a_step(stage: Stage, wall: WallClock, ahead: int) -> None:
    """What a daemon with a wrong clock published is neither trusted too long by the next one nor in its way."""
    config = stage.config(["bookings"])
    wall.set(ahead)
    daemon = stage.daemon(config, environment=wall.environment)
    daemon.wait_for("token_rotated")
    readers = [stage.vault_reader("bookings"), stage.file_reader("bookings")]
    rotations(daemon, readers, 1)
    daemon.kill()

    wall.set(0)
    daemon = stage.daemon(config, environment=wall.environment)
    daemon.wait_for("token_rotated")
    rotations(daemon, readers, 3)
    daemon.kill()
    wall.set(ahead)
    daemon = stage.daemon(config, environment=wall.environment)
    daemon.wait_for("token_rotated")
    rotations(daemon, readers, 3)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_replica_with_another_clock(stage: Stage, wall: WallClock, ahead: int) -> None:
    """Of two replicas one has a clock that is an hour off: readers are served, also once either of them is dead."""
    configs = [stage.config(["bookings"], Settings(suffix=suffix)) for suffix in ("-right", "-wrong")]
    wall.set(ahead)
    right = stage.daemon(configs[0], log="right.log")
    wrong = stage.daemon(configs[1], log="wrong.log", environment=wall.environment)
    for daemon in (right, wrong):
        daemon.wait_for("daemon_started")
    reader = stage.vault_reader("bookings")
    began = time.monotonic()
    rotations(right, [reader], 8)  # the two take turns
    grants, elapsed = stage.lookalike.counts().grants, time.monotonic() - began
    print(f"{grants} grants in {elapsed:.0f} s, where {elapsed / EARLIEST:.0f} were the least")
    assert grants <= 2 * (2 + elapsed / EARLIEST), "each asks at its own rotation points, and no more"

    # amid a rotation its last token may lie in the place of a later one, which it takes for an earlier one
    rotated = len(wrong.events("token_rotated"))
    wait_until(lambda: len(wrong.events("token_rotated")) > rotated, "a rotation of its own")
    wrong.kill()
    rotations(right, [reader], 3)
    wrong = stage.daemon(configs[1], log="wrong.log", environment=wall.environment)
    wrong.wait_for("token_rotated")
    right.kill()
    rotations(wrong, [reader], 3)
    assert stage.lookalike.counts().refused == {}


@pytest.mark.parametrize("kind", ["opaque", "jwt"])
@pytest.mark.parametrize("offset", [420, -420])
def test_clock_of_the_server_is_wrong(stage: Stage, offset: int, kind: str) -> None:
    """A server whose clock is minutes off gets its tokens rotated in time, and the difference is exported."""
    stage.lookalike.levers(clock_offset=offset, token_kind=kind)
    daemon = stage.daemon(stage.config(["bookings"]))
    daemon.wait_for("token_rotated")
    readers = [stage.vault_reader("bookings"), stage.file_reader("bookings")]

    rotations(daemon, readers, 3)

    assert daemon.metric("clock_skew_seconds", endpoint="main") == pytest.approx(offset, abs=30)
    gaps = [later - sooner for sooner, later in pairwise(grant_times(stage))]
    assert min(gaps) > EARLIEST / 2
    assert_nothing_leaked(stage, daemon)
