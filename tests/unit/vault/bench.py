"""A Vault session on a clock moved by hand, with secrets by name and a note of what it tells."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import EnvReference, TokenAuth, VaultConfig
from aca_tokend.core.errors import LookError, SecretError
from aca_tokend.core.login import LoggedIn, LoginFailed
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.vault.session import VaultSession
from tests.fakes import FakeClock
from tests.unit.vault.stub import answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.core.config import AppRoleAuth, Reference
    from aca_tokend.core.login import LoginEvent
    from aca_tokend.core.vault_answers import KvRead

FIRST, SECOND = "canary-vault-token-1", "canary-vault-token-2"
SECRET_ID = "canary-secret-id"
SECRET = "canary-secret"
PATH = "/v1/secret/data/aca/bookings"
LOGIN = "/v1/auth/approle/login"
HELD = answer(200, {"data": {"data": {"password": SECRET, "pin": 7}, "metadata": {"version": 3}}})

# For tests in which the server never answers, and for those in which it must.
SHORT = 0.3
LONG = 30.0


class Keeper:
    """Resolves references to what the test put there, and counts."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.resolved: list[str] = []

    def __call__(self, reference: Reference) -> Secret:
        self.resolved.append(str(reference))
        if not isinstance(reference, EnvReference) or reference.env not in self.values:
            raise SecretError(Reason.SECRET_MISSING, f"{reference} is not set")
        return Secret(self.values[reference.env])


class Bench:
    """A session, with what it resolves and tells of."""

    def __init__(self, address: str, auth: TokenAuth | AppRoleAuth, **config: Any) -> None:  # noqa: ANN401
        self.keeper = Keeper(VAULT_TOKEN=FIRST, ROLE_ID="role-1", SECRET_ID=SECRET_ID)
        self.clock = FakeClock()
        self.told: list[LoginEvent] = []
        self.session = VaultSession(
            "main",
            VaultConfig(address=address, auth=auth, **{"timeout": LONG, **config}),
            self.keeper,
            wall=self.clock.wall,
            on_login=self.told.append,
            monotonic=self.clock.monotonic,
        )

    @property
    def logins(self) -> list[tuple[str, float | None]]:
        """Each log-in: how it went, and for how long from now our token lives, None for ever."""
        return [
            ("succeeded", None if event.expires_at is None else event.expires_at - self.clock.wall())
            if isinstance(event, LoggedIn)
            else ("failed", None)
            for event in self.told
            if isinstance(event, LoggedIn | LoginFailed)
        ]

    def read(self) -> KvRead:
        return self.session.read_kv("secret", "aca/bookings")

    def failure(self) -> LookError:
        """How a read fails; nothing secret may be in anything that is shown of it."""
        with pytest.raises(LookError) as caught:
            self.read()
        assert_hidden(caught.value)
        return caught.value

    def keep_until(self, end: float) -> None:
        """Keeps the token as the daemon does: whenever it is due, until so many seconds from now have passed."""
        last = self.clock.now + end
        while (due := self.session.keep()) <= last:
            assert due > self.clock.now, "it says when to come again, later than now"
            self.clock.now = due
        self.clock.now = last


def assert_hidden(error: BaseException) -> None:
    """Nothing secret is in anything that is shown of it."""
    shown = str(error) + repr(error) + "".join(traceback.format_exception(error))
    assert "canary" not in shown


@contextmanager
def bench(
    address: str,
    auth: TokenAuth | AppRoleAuth | None = None,
    **config: Any,  # noqa: ANN401
) -> Iterator[Bench]:
    """A session that ends with the test; it logs in by token unless told."""
    made = Bench(address, auth or TokenAuth(token=EnvReference(env="VAULT_TOKEN")), **config)
    try:
        yield made
    finally:
        made.session.close()
