"""Which shard keeps which token: rendezvous hashing of its name, so that every daemon comes to the same answer alone.

Pure. The shard with the highest hash for a name keeps it. With one shard more, each token either stays where it is or
moves to the new one, which is the highest for 1/(n+1) of them; with one less, only those of the last one move.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aca_tokend.core.config import Config


def shard_of(name: str, count: int) -> int:
    """The shard that keeps the token of this name: the index whose BLAKE2b of `INDEX/NAME` in 8 bytes is highest."""
    return max(range(count), key=lambda index: blake2b(f"{index}/{name}".encode(), digest_size=8).digest())


def parse_index(text: str, count: int) -> int:
    """The index that a text gives: a number, or a name with one at its end, such as that of a StatefulSet's pod.

    Raises:
        ValueError: with what is wrong with it, in words that follow the place where it stands.
    """
    found = re.fullmatch(r"(?:[A-Za-z0-9][A-Za-z0-9.-]*-)?([0-9]{1,5})", text)
    if found is None:
        message = "is neither a number nor a name with a hyphen and a number at its end, such as aca-tokend-3"
        raise ValueError(message)
    index = int(found[1])
    if index >= count:
        message = f"is {index}, and {count} shards have the numbers from 0 to {count - 1}"
        raise ValueError(message)
    return index


def share(config: Config, index: int) -> Config:
    """The configuration with the tokens of one shard alone; all of them where there are no shards."""
    if config.shard is None:
        return config
    count = config.shard.count
    tokens = tuple(token for token in config.tokens if shard_of(token.name, count) == index)
    return config.model_copy(update={"tokens": tokens})
