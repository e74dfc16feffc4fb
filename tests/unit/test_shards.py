"""Which shard keeps which token, and what a daemon makes of its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.config import Config, EndpointConfig, EnvReference, ShardConfig, TokenAuth, VaultConfig
from aca_tokend.core.errors import TokendError
from aca_tokend.core.shards import parse_index, shard_of, share
from aca_tokend.daemon import Daemon
from tests.fakes import token_config

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [f"token-{number}" for number in range(20_000)]


def config(count: int, index: int | EnvReference = 0, tokens: int = 100) -> Config:
    """A configuration of so many tokens in so many shards."""
    return Config(
        acaengine={"main": EndpointConfig(url="https://aca.example.com")},
        vault={"main": VaultConfig(address="https://vault.example.com", auth=TokenAuth(token=EnvReference(env="T")))},
        shard=ShardConfig(count=count, index=index),
        tokens=tuple(token_config().model_copy(update={"name": name}) for name in NAMES[:tokens]),
    )


def test_the_pick_never_changes() -> None:
    """The same name gives the same shard in every process and every version: another would move tokens about."""
    assert [shard_of(name, 4) for name in ("bookings", "signage", "a", "b", "rooms-7")] == [0, 2, 0, 3, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
def test_shards_are_balanced(count: int) -> None:
    """Each shard keeps its share of many tokens, but for chance: five standard deviations."""
    held = [0] * count
    for name in NAMES:
        held[shard_of(name, count)] += 1

    expected = len(NAMES) / count
    deviation = (expected * (1 - 1 / count)) ** 0.5
    assert all(abs(number - expected) <= 5 * deviation for number in held), held


@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_growing_moves_little(count: int) -> None:
    """With one shard more a token stays, or moves to the new shard: one in so many as there are then."""
    moved = [name for name in NAMES if shard_of(name, count) != shard_of(name, count + 1)]

    assert all(shard_of(name, count + 1) == count for name in moved)
    expected = len(NAMES) / (count + 1)
    assert abs(len(moved) - expected) <= 5 * (expected * count / (count + 1)) ** 0.5


def test_shares_are_all_there_is() -> None:
    """Every token is in exactly one share, and without shards all are in one."""
    whole = config(count=3)
    shares = [{token.name for token in share(whole, index).tokens} for index in range(3)]

    assert sum(len(names) for names in shares) == len(whole.tokens)
    assert set.union(*shares) == {token.name for token in whole.tokens}
    assert share(whole, 3).tokens == (), "a shard that left has nothing to keep"
    alone = whole.model_copy(update={"shard": None})
    assert share(alone, 0) is alone


@pytest.mark.parametrize(("text", "index"), [("0", 0), ("3", 3), ("aca-tokend-2", 2), ("a.b-01", 1)])
def test_index(text: str, index: int) -> None:
    """A number counts, and so does the one at the end of a pod's name."""
    assert parse_index(text, 4) == index


@pytest.mark.parametrize("text", ["", "aca-tokend", "aca-tokend-", "3a", "-1", "1.5", "pod3", "123456", "a b-1", "٣"])
def test_index_that_is_none(text: str) -> None:
    """Anything else is told apart without being repeated."""
    with pytest.raises(ValueError, match=r"^is neither a number nor a name with a hyphen and a number at its end"):
        parse_index(text, 4)


def test_index_beyond() -> None:
    """A number that no shard has is told with those there are."""
    with pytest.raises(ValueError, match=r"^is 4, and 4 shards have the numbers from 0 to 3$"):
        parse_index("aca-tokend-4", 4)


def test_daemon_keeps_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon keeps the tokens of its shard, whose number it reads when it starts."""
    monkeypatch.setenv("ACA_TOKEND_SHARD", "aca-tokend-1\n")
    daemon = Daemon(config(2, EnvReference(env="ACA_TOKEND_SHARD")))

    assert set(daemon.tokens.by_name) == {name for name in NAMES[:100] if shard_of(name, 2) == 1}
    assert 0 < len(daemon.tokens.by_name) < 100


def test_daemon_knows_what_other_shards_keep(tmp_path: Path) -> None:
    """From the start a daemon can tell of a token of its configuration that another shard keeps it."""
    daemon = Daemon(config(2))
    assert set(daemon.subject().everywhere) == set(NAMES[:100])
    watch = daemon.watch_files(tmp_path / "config.toml")
    watch.stop()

    assert set(daemon.subject().everywhere) == set(NAMES[:100])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "env ACA_TOKEND_SHARD: the variable is not set"),
        ("2", "env ACA_TOKEND_SHARD is 2, and 2 shards have the numbers from 0 to 1"),
    ],
)
def test_daemon_without_its_number(monkeypatch: pytest.MonkeyPatch, value: str | None, problem: str) -> None:
    """A daemon that cannot tell which shard it is does not start, and names the key."""
    if value is None:
        monkeypatch.delenv("ACA_TOKEND_SHARD", raising=False)
    else:
        monkeypatch.setenv("ACA_TOKEND_SHARD", value)
    with pytest.raises(TokendError) as caught:
        Daemon(config(2, EnvReference(env="ACA_TOKEND_SHARD")))

    assert caught.value.message.startswith(f"shard.index: {problem}")
