"""How to log in to a Vault: one function for each method, from its configuration to a token of ours.

Secrets are resolved anew for each log-in. Nothing here is sent twice, and nobody is told: that is the session's part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.config import AppRoleAuth, TokenAuth
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.vault_http import RequestFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    import hvac

    from aca_tokend.core.config import Reference, VaultConfig

    Connect = Callable[[Secret | None], hvac.Client]
    Resolve = Callable[[Reference], Secret]


@dataclass(frozen=True, slots=True, eq=False)
class Login:
    """A log-in that succeeded. Threads ask whether it is still the latest: one equals only itself."""

    client: hvac.Client
    expires_at: float | None


def log_in(config: VaultConfig, connect: Connect, resolve: Resolve, wall: Callable[[], float]) -> Login:
    """Asks Vault for a token.

    Args:
        config: the table of the Vault.
        connect: gives a client that carries a token, or none.
        resolve: gives the secret behind a reference.
        wall: the wall clock, in seconds of the epoch.

    Raises:
        SecretError, RequestFailedError: there is no log-in.
    """
    match config.auth:
        case TokenAuth() as auth:
            return _by_token(auth, connect, resolve, wall)
        case AppRoleAuth() as auth:
            return _by_approle(auth, connect, resolve, wall)


def _by_token(auth: TokenAuth, connect: Connect, resolve: Resolve, wall: Callable[[], float]) -> Login:
    client = connect(resolve(auth.token))
    asked_at = wall()
    match client.auth.token.lookup_self():
        case {"data": {"ttl": int() as lifetime}}:
            return Login(client, _expiry(asked_at, lifetime))
    raise RequestFailedError(Reason.VAULT_LOGIN_FAILED, "the answer tells nothing of the token")


def _by_approle(auth: AppRoleAuth, connect: Connect, resolve: Resolve, wall: Callable[[], float]) -> Login:
    role_id = auth.role_id if isinstance(auth.role_id, str) else resolve(auth.role_id).reveal()
    secret_id = resolve(auth.secret_id)
    approle = connect(None).auth.approle
    asked_at = wall()
    match approle.login(role_id, secret_id.reveal(), use_token=False, mount_point=auth.mount):
        case {"auth": {"client_token": str() as token, "lease_duration": int() as lifetime}}:
            return Login(connect(Secret(token)), _expiry(asked_at, lifetime))
    raise RequestFailedError(Reason.VAULT_LOGIN_FAILED, "the answer holds no token")


def _expiry(asked_at: float, lifetime: int) -> float | None:
    """Counted from before the request, so never too late. Vault says 0 for a token that does not expire."""
    return asked_at + lifetime if lifetime else None
