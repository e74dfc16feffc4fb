"""Shards: daemons with one configuration and a share of the tokens each; growing moves tokens without a grant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.shards import shard_of
from aca_tokend.demo.stage import Settings, Stage, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from aca_tokend.demo.stage import DaemonProcess

NAMES = [f"room-{number}" for number in range(24)]
LIFETIME = 600.0


def sharded(config: Path, count: int) -> None:
    """Writes so many shards into a configuration, the number of each to be found in the environment."""
    head, _, rest = config.read_text().partition("[log]")
    head = head.partition("[shard]")[0]
    fresh = config.with_suffix(".new")
    fresh.write_text(f'{head}[shard]\ncount = {count}\nindex = {{ env = "ACA_TOKEND_SHARD" }}\n[log]{rest}')
    fresh.rename(config)


def kept_by(daemon: DaemonProcess) -> set[str]:
    """The tokens that a daemon counts as its own."""
    lines = daemon.get("/metrics")[1].splitlines()
    return {
        line.partition('token="')[2].partition('"')[0] for line in lines if line.startswith("aca_tokend_token_ready{")
    }


def test_growing_by_a_shard(tmp_path: Path) -> None:
    """A third shard takes its tokens over by adopting what is published; nobody asks for a token, no reader notices."""
    with Stage(tmp_path, lifetime=LIFETIME) as stage:
        config = stage.config(NAMES, Settings(files=False))
        sharded(config, 2)

        def shard(number: int) -> DaemonProcess:
            environment = {"ACA_TOKEND_SHARD": f"aca-tokend-{number}"}
            return stage.daemon(config, log=f"shard{number}.log", environment=environment)

        def shares(count: int) -> list[set[str]]:
            return [{name for name in NAMES if shard_of(name, count) == number} for number in range(count)]

        first, second = shard(0), shard(1)
        for daemon, share in zip((first, second), shares(2), strict=True):
            assert share
            daemon.wait_for("token_rotated", len(share))
        assert [kept_by(first), kept_by(second)] == shares(2)
        assert first.wait_for("daemon_started")["shards"] == 2
        assert stage.lookalike.counts().grants == len(NAMES)
        readers = [stage.vault_reader(name) for name in NAMES[:6]]

        sharded(config, 3)
        third = shard(2)
        third.wait_for("token_adopted", len(shares(3)[2]))
        for daemon in (first, second):
            daemon.wait_for("config_reloaded")
        wait_until(lambda: [kept_by(daemon) for daemon in (first, second, third)] == shares(3), "three shares")

        assert stage.lookalike.counts().grants == len(NAMES), "no grant was made for the move"
        for reader in readers:
            reader.stop()
            assert reader.accepted
            assert not reader.refused
