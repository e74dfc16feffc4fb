"""Makes a screenshot small: at most 256 colours, packed as well as zlib can. Text on flat ground looks the same."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_Colour = tuple[int, ...]


def small(picture: bytes) -> bytes:
    """The same picture, of 8 bits a channel and without transparency as Chromium makes them, with a palette."""
    chunks = _chunks(picture)
    header = b"".join(data for kind, data in chunks if kind == b"IHDR")
    width, height, _, _, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if header[8:10] != b"\x08\x02" or interlace:
        raise ValueError(header)
    raw = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    rows = [list(zip(*[iter(row)] * 3, strict=True)) for row in _unfiltered(raw, width * 3)]
    counted = Counter(colour for row in rows for colour in row)
    palette = _palette(counted)
    place = {colour: _nearest(colour, palette) for colour in counted}
    packed = b"".join(b"\0" + bytes(place[colour] for colour in row) for row in rows)
    return (
        _SIGNATURE
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + _chunk(b"PLTE", bytes(channel for colour in palette for channel in colour))
        + _chunk(b"IDAT", zlib.compress(packed, 9))
        + _chunk(b"IEND", b"")
    )


def _palette(counted: Counter[_Colour]) -> list[_Colour]:
    """Most of it what is there most, the rest what would come out most wrong: a sign has its colour on few pixels."""
    palette = [colour for colour, _ in counted.most_common(176)]
    wrong = {colour: min(_apart(colour, other) for other in palette) for colour in counted}
    for _ in range(256 - len(palette)):
        worst = max(wrong, key=wrong.__getitem__)
        palette.append(worst)
        wrong = {colour: min(apart, _apart(colour, worst)) for colour, apart in wrong.items()}
    return palette


def _apart(colour: _Colour, other: _Colour) -> int:
    return sum((a - b) ** 2 for a, b in zip(colour, other, strict=True))


def _nearest(colour: _Colour, palette: list[_Colour]) -> int:
    return min(range(len(palette)), key=lambda index: _apart(colour, palette[index]))


def _chunks(picture: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], len(_SIGNATURE)
    while at < len(picture):
        (length,) = struct.unpack_from(">I", picture, at)
        found.append((picture[at + 4 : at + 8], picture[at + 8 : at + 8 + length]))
        at += length + 12
    return found


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _unfiltered(raw: bytes, length: int) -> list[bytearray]:
    """The rows as they were before the filters of PNG (its section 9)."""
    rows, above = [], bytearray(length)
    for start in range(0, len(raw), length + 1):
        row = bytearray(raw[start + 1 : start + 1 + length])
        guess = _GUESSES.get(raw[start])
        if guess is not None:
            for x in range(length):
                left, corner = (row[x - 3], above[x - 3]) if x >= 3 else (0, 0)
                row[x] = (row[x] + guess(left, above[x], corner)) & 0xFF
        rows.append(row)
        above = row
    return rows


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    return min((left, up, corner), key=lambda one: abs(estimate - one))


_GUESSES: dict[int, Callable[[int, int, int], int]] = {
    1: lambda left, _up, _corner: left,
    2: lambda _left, up, _corner: up,
    3: lambda left, up, _corner: (left + up) // 2,
    4: _paeth,
}
