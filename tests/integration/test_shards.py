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
TURNS = {"token_rotated", "token_adopted"}


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


def environment(number: int) -> dict[str, str]:
    """What a pod of this number has."""
    return {"ACA_TOKEND_SHARD": f"aca-tokend-{number}"}


def test_growing_by_a_shard(tmp_path: Path) -> None:
    """A third shard takes its tokens over by adopting what is published; nobody asks for a token, no reader notices."""
    with Stage(tmp_path, lifetime=LIFETIME) as stage:
        config = stage.config(NAMES, Settings(files=False))
        sharded(config, 2)

        def shard(number: int) -> DaemonProcess:
            return stage.daemon(config, log=f"shard{number}.log", environment=environment(number))

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


def test_two_shards_hold_the_same_tokens(tmp_path: Path) -> None:
    """While a new shard runs and the old one has not let go, both keep its tokens fresh, and nobody is harmed."""
    names = [name for name in NAMES if (shard_of(name, 2), shard_of(name, 3)) == (0, 2)]
    assert names
    with Stage(tmp_path, lifetime=8.0) as stage:
        # without jitter both come to a token in the same moment, time and again
        config = stage.config(names, Settings(rotation='min_interval = "1s"\njitter = 0.0', files=False))
        grown = config.with_name("grown.toml")
        grown.write_text(config.read_text())
        sharded(config, 2)
        sharded(grown, 3)
        old = stage.daemon(config, log="old.log", environment=environment(0))
        old.wait_for("token_rotated", len(names))
        readers = [stage.vault_reader(name) for name in names]
        new = stage.daemon(grown, log="new.log", environment=environment(2))
        wait_until(lambda: kept_by(new) == kept_by(old) == set(names), "two that keep the same tokens")

        def both_at_work() -> bool:
            turns = [[it["token"] for it in daemon.events() if it["event"] in TURNS] for daemon in (old, new)]
            met = new.events("token_adopted") + old.events("token_adopted")
            return bool(met) and all(turn.count(name) >= 3 for turn in turns for name in names)

        wait_until(both_at_work, "three turns of each with each token, and a token of the other that is taken over")
        sharded(config, 3)
        wait_until(lambda: kept_by(old) == set(), "the end of the old share")
        new.wait_for("token_rotated", len(new.events("token_rotated")) + len(names))

        for reader in readers:
            reader.stop()
            assert reader.accepted
            assert not reader.refused
        for name in names:
            issued = versions(stage, name)
            assert len(issued) >= 3
            assert issued == sorted(issued), "a later token was never replaced by an earlier one"
        assert not old.events("publish_failed") + new.events("publish_failed")


def versions(stage: Stage, name: str) -> list[str]:
    """When the token in each version of a secret that Vault still has was issued, the oldest version first."""
    kv = stage.bao.client().secrets.kv.v2
    known = kv.read_secret_metadata(f"aca/{name}", mount_point="secret")["data"]["versions"]
    return [
        kv.read_secret_version(f"aca/{name}", version=number, mount_point="secret", raise_on_deleted_version=True)[
            "data"
        ]["data"]["issued_at"]
        for number in sorted(map(int, known))
    ]
