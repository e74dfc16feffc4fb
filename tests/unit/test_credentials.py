"""Which credentials are the same: what their fingerprints are made of."""

from __future__ import annotations

from typing import Any

import pytest

from aca_tokend.core.grant import Credentials
from aca_tokend.core.secret import Secret
from aca_tokend.rotation.credentials import Resolved

PARTS: dict[str, Any] = {
    "username": "svc-bookings",
    "password": Secret("password-1"),
    "authority": "authority-1",
    "client_id": "client-1",
    "client_secret": Secret("secret-1"),
    "scope": "public",
}


def resolved(host: str = "aca.example.com", **parts: object) -> Resolved:
    """A credential, with some of its parts changed."""
    return Resolved.of(Credentials(**PARTS | parts), host)


@pytest.mark.parametrize(
    ("changed", "others"),
    [
        ({"host": "other.example.com"}, {"account", "client", "credential", "scoped"}),
        ({"authority": "authority-2"}, {"account", "credential", "scoped"}),
        ({"username": "svc-rooms"}, {"account", "credential", "scoped"}),
        ({"password": Secret("password-2")}, {"credential", "scoped"}),
        ({"client_id": "client-2"}, {"account", "client", "credential", "scoped"}),
        ({"client_secret": Secret("secret-2")}, {"client", "credential", "scoped"}),
        ({"scope": "public admin"}, {"scoped"}),
    ],
)
def test_what_makes_another_credential(changed: dict[str, Any], others: set[str]) -> None:
    """A wrong host, authority or scope that was corrected is another credential, with attempts of its own."""
    before, after = resolved(), resolved(**changed)
    names = ("account", "client", "credential", "scoped")
    assert {name for name in names if getattr(before, name) != getattr(after, name)} == others


def test_the_same_credential() -> None:
    """Nothing in a fingerprint changes from one process to the next."""
    assert resolved() == resolved()
