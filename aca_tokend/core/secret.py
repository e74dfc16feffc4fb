"""A value that must not be seen: passwords, client secrets, access tokens and Vault tokens travel as `Secret`.

Nothing that prints, formats, pickles or logs an object reaches the value; only `reveal()` does, and it is called on the
line that sends or writes it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HIDDEN = "<secret>"


class Secret:
    """Holds one secret string. Equal to another `Secret` of the same value; shown as `<secret>` wherever it appears."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The value itself, for the line that sends or writes it."""
        return self.__value

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.__value == other.__value

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __reduce__(self) -> NoReturn:
        message = "a Secret cannot be pickled or copied"
        raise TypeError(message)


def fingerprints(groups: Iterable[Sequence[Secret]], key: Secret) -> list[str]:
    """Tells whether a credential changed, without keeping it: 128 bits of HMAC-SHA256 as 32 hexadecimal digits.

    One for the first group of parts, one for the first two together, and so on. Without the key nobody can try guesses
    against a fingerprint.
    """
    digest, found = hmac.new(key.reveal().encode(), digestmod=hashlib.sha256), []
    for parts in groups:
        for part in parts:
            value = part.reveal().encode()
            # each with its length, so that ("ab", "c") is not ("a", "bc")
            digest.update(len(value).to_bytes(8, "big") + value)
        found.append(digest.hexdigest()[:32])
    return found


def fingerprint(parts: Sequence[Secret], key: Secret) -> str:
    """The same for one group."""
    return fingerprints((parts,), key)[0]
