"""Whose token it is and with what it is asked for: resolves the references of a token, anew at each grant.

What Vault holds is resolved in Vault's pool, all else in the endpoint's, a moment before it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.errors import SecretError
from aca_tokend.core.grant import Credentials
from aca_tokend.core.outcome import Failure, Step
from aca_tokend.core.secret import Secret, fingerprint
from aca_tokend.core.steps import Call
from aca_tokend.core.token import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aca_tokend.core.config import Reference, TokenConfig
    from aca_tokend.core.ports import Secrets, TokenEndpoint
    from aca_tokend.state import TokenState


@dataclass(frozen=True, slots=True)
class Resolved:
    """A credential as it is now, and the fingerprints that tell it and its client from others."""

    credentials: Credentials
    credential: str
    client: str

    @classmethod
    def of(cls, credentials: Credentials) -> Resolved:
        """With its fingerprints, which are keyed by the client secret: nobody can try guesses against them."""
        client_id, key = Secret(credentials.client_id), credentials.client_secret
        user = (Secret(credentials.username), credentials.password, client_id, Secret(credentials.scope))
        return cls(credentials, fingerprint(user, key), fingerprint((client_id,), key))


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves the references of tokens. Every method raises SecretError, but `identify`."""

    secrets: Secrets

    async def identify(self, state: TokenState) -> Failure | None:
        """Works out whose token it is; user name and client may be references."""
        config = state.config
        try:
            username = await self._value(state, config.username)
            client_id = await self._value(state, config.client_id)
        except SecretError as error:
            return error.as_failure(Step.GRANT)
        state.account = Account(state.endpoint.host, config.authority, username, client_id).fingerprint
        if state.document is not None and state.document.account != state.account:
            state.document, state.life = None, None  # the token of another account is none of this one's
        return None

    async def now(self, state: TokenState) -> Resolved:
        """The credential as it is now."""
        remote = await self.remote(state)
        resolved: Resolved = await Call(
            endpoint_pool(state.endpoint), lambda: self.resolve(state.config, remote), state.urgency
        )
        return resolved

    async def _value(self, state: TokenState, value: str | Reference) -> str:
        if isinstance(value, str):
            return value
        pool = self.secrets.pool(value) or endpoint_pool(state.endpoint)
        secret = await Call(pool, lambda: self.secrets.resolve(value), state.urgency)
        return secret.reveal()

    async def remote(self, state: TokenState) -> dict[Reference, Secret]:
        """Resolves the references that take a request to Vault, in Vault's pools."""
        resolved: dict[Reference, Secret] = {}
        for reference in references(state.config):
            pool = self.secrets.pool(reference)
            if pool is not None:
                resolved[reference] = await Call(pool, _resolving(self.secrets, reference), state.urgency)
        return resolved

    def resolve(self, config: TokenConfig, remote: Mapping[Reference, Secret]) -> Resolved:
        """Resolves what is left, here and now, so that a changed file or variable is taken up by the next grant."""

        def secret(reference: Reference) -> Secret:
            return remote.get(reference) or self.secrets.resolve(reference)

        def text(value: str | Reference) -> str:
            return value if isinstance(value, str) else secret(value).reveal()

        return Resolved.of(
            Credentials(
                username=text(config.username),
                password=secret(config.password),
                authority=config.authority,
                client_id=text(config.client_id),
                client_secret=secret(config.client_secret),
                scope=config.scope,
            )
        )


def endpoint_pool(endpoint: TokenEndpoint) -> str:
    """The pool in which calls to an endpoint run."""
    return f"acaengine.{endpoint.name}"


def references(config: TokenConfig) -> tuple[Reference, ...]:
    """The references that one grant resolves."""
    values = (config.username, config.password, config.client_id, config.client_secret)
    return tuple(value for value in values if not isinstance(value, str))


def _resolving(secrets: Secrets, reference: Reference) -> Callable[[], Secret]:
    return lambda: secrets.resolve(reference)
