"""Whose token it is and with what it is asked for: resolves the references of a token, anew at each grant.

Each reference is resolved in a pool of its own kind: a mount or a Vault that hangs there holds up no grant of a token
that refers to something else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.config import references
from aca_tokend.core.grant import Credentials
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret, fingerprints
from aca_tokend.core.steps import Call
from aca_tokend.core.token import Account
from aca_tokend.rotation.facts import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aca_tokend.core.config import Reference, TokenConfig
    from aca_tokend.core.ports import Secrets, TokenEndpoint


@dataclass(frozen=True, slots=True)
class Resolved:
    """A credential as it is now, and the fingerprints that tell it, its scope and its client from others.

    Attributes:
        account: whose it is.
        credential: of the user's: what a server may lock.
        scoped: the same with the scope that is asked for, which a server may refuse by itself.
        client: of the application's.
    """

    credentials: Credentials
    host: str
    account: str
    credential: str
    scoped: str
    client: str

    @classmethod
    def of(cls, credentials: Credentials, host: str) -> Resolved:
        """With its fingerprints, which are keyed by the client secret: nobody can try guesses against them."""
        of_client = (Secret(host), Secret(credentials.client_id))
        of_user = (Secret(credentials.authority), Secret(credentials.username), credentials.password)
        groups = (of_client, of_user, (Secret(credentials.scope),))
        client, user, scoped = fingerprints(groups, credentials.client_secret)
        account = Account(host, credentials.authority, credentials.username, credentials.client_id).fingerprint
        return cls(credentials, host, account, user, scoped, client)

    def refused(self, reason: Reason) -> str:
        """What of it a refusal concerns, as records and suspensions name it."""
        return self.scoped if reason is Reason.INVALID_SCOPE else self.credential

    def identity(self, now: float) -> Identity:
        """Whose token is asked for with it."""
        return Identity(self.account, self.credentials.username, self.credentials.authority, now)


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves the references of tokens. Every method raises SecretError."""

    secrets: Secrets

    async def identify(self, config: TokenConfig, endpoint: TokenEndpoint, urgency: float, now: float) -> Identity:
        """Whose token it is; user name and client may be references."""
        wanted = [value for value in (config.username, config.client_id) if not isinstance(value, str)]
        text = _reader(await self._values(wanted, urgency))
        return _identity(endpoint.host, config.authority, text(config.username), text(config.client_id), now)

    async def resolve(self, config: TokenConfig, endpoint: TokenEndpoint, urgency: float) -> Resolved:
        """The credential as it is now."""
        values = await self._values(references(config), urgency)
        text = _reader(values)
        credentials = Credentials(
            username=text(config.username),
            password=values[config.password],
            authority=config.authority,
            client_id=text(config.client_id),
            client_secret=values[config.client_secret],
            scope=config.scope,
        )
        return Resolved.of(credentials, endpoint.host)

    async def _values(self, wanted: Iterable[Reference], urgency: float) -> dict[Reference, Secret]:
        """The secrets of these references: those of one pool by one call, those that need none at once."""
        values: dict[Reference, Secret] = {}
        pools: dict[str, list[Reference]] = {}
        for reference in wanted:
            pool = self.secrets.pool(reference)
            if pool is None:
                values |= self.secrets.resolve_all([reference])
            else:
                pools.setdefault(pool, []).append(reference)
        for pool, those in pools.items():
            values |= await Call(pool, partial(self.secrets.resolve_all, those), urgency)
        return values


def literal_identity(config: TokenConfig, endpoint: TokenEndpoint) -> Identity | None:
    """Whose token it is, where nothing needs to be resolved for that; None where something does."""
    username, client_id = config.username, config.client_id
    if not isinstance(username, str) or not isinstance(client_id, str):
        return None
    return _identity(endpoint.host, config.authority, username, client_id, math.inf)


def endpoint_pool(endpoint: TokenEndpoint) -> str:
    """The pool in which calls to an endpoint run."""
    return f"acaengine.{endpoint.name}"


def _identity(host: str, authority: str, username: str, client_id: str, now: float) -> Identity:
    return Identity(Account(host, authority, username, client_id).fingerprint, username, authority, now)


def _reader(values: Mapping[Reference, Secret]) -> Callable[[str | Reference], str]:
    return lambda value: value if isinstance(value, str) else values[value].reveal()
