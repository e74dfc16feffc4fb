"""Makes odd inputs of valid ones: of JSON and TOML by their leaves, keys and shapes, of every text by its bytes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

# Stands in every secret of ours and in every text of the other side: no error and no line of a log may show it.
CANARY = "CANARY"
# What a Vault may answer at most: no reader is given more.
LARGEST = 1_114_112

ODD = (
    "null", "true", "false", "0", "-1", "-0.0", "1.5", "1e999", "NaN", "-Infinity", "nan", "9223372036854775808",
    "9" * 400, "9" * 4300, "9" * 5000, "1." + "1" * 5000, '""', f'"{CANARY}"', '"\\ud800"', f'"{CANARY}\\u0000"', '"é"',
    '"a\\r\\nb"', f'"{CANARY * 20_000}"', '"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"', '"0001-01-01"',
    "9999-12-31T23:59:59-23:59", '"1"', "[]", "[[]]", "[{}]", f'["{CANARY}"]', "{}", '{"":null}', "[" * 10_000,
    "[" * 10_000 + "]" * 10_000, "[" * 900 + "]" * 900, '{"a":' * 10_000 + "1" + "}" * 10_000,
)  # fmt: skip
_KEY = re.compile(r'"(\w{1,40})"(?=\s*[:=])')


class _Raw(str):
    """Text that stands in the place of a value as it is."""

    __slots__ = ()


def odd_data(example: bytes, rng: Random, *, toml: bool = False) -> bytes:
    """An example of JSON with some parts replaced, renamed, repeated or left out; written as TOML where asked."""
    value = json.loads(example)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _altered(value, rng)
    if toml:
        tables = value if type(value) is dict else {"tokens": value}
        text = "".join(f"{json.dumps(key)} = {_written(part, toml=True)}\n" for key, part in tables.items())
    else:
        text = _written(value, toml=False)
    keys, braces = _KEY.findall(text), [at + 1 for at, character in enumerate(text[:4096]) if character == "{"]
    if keys and braces and rng.random() < 0.1:
        at = rng.choice(braces)
        again = f'"{rng.choice(keys)}" {"=" if toml else ":"} {rng.choice(ODD)}, '
        text = text[:at] + again + text[at:]
    return text.encode()[:LARGEST]


def _altered(value: Any, rng: Random) -> Any:  # noqa: ANN401 -- any JSON
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        copy = value.copy()
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        chance = rng.random()
        if chance < 0.1:
            del copy[key]
        elif chance < 0.2 and isinstance(copy, dict):
            copy[rng.choice(("", "\0", "\ud800", "x" * 70_000, "data"))] = copy.pop(key)
        else:
            copy[key] = _altered(value[key], rng)
        return copy
    chance = rng.random()
    if chance < 0.1:
        return [value] * (1000 if rng.random() < 0.05 and len(str(value)) < 100 else 2)
    if chance < 0.3 and isinstance(value, str):
        return odd_bytes(value.encode(), (b"\0", b"\r\n", b"../", b".", b"/"), rng).decode("utf-8", "replace")
    return _Raw(rng.choice(ODD))


def _written(value: Any, *, toml: bool) -> str:  # noqa: ANN401 -- any JSON
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, dict):
        sign = " = " if toml else ": "
        return "{" + ", ".join(f"{json.dumps(key)}{sign}{_written(it, toml=toml)}" for key, it in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(it, toml=toml) for it in value) + "]"
    return json.dumps(value)


def odd_bytes(data: bytes, words: Sequence[bytes], rng: Random) -> bytes:
    """Some bytes with slices cut out, repeated, swapped for others, or with words put between."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((0, 1, 1, 4, 16, 1000)))
        middle = (
            b"",
            data[at:to] * (1000 if rng.random() < 0.05 else 2),
            rng.randbytes(rng.choice((1, 1, 2, 50))),
            rng.choice(words) * (500 if rng.random() < 0.05 else 1),
        )[rng.randrange(4)]
        data = (data[:at] + middle + data[to:])[:LARGEST]
    return data
