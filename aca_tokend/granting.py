"""The step grant: resolves the credential, asks the endpoint, and tries the new token where that is configured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aca_tokend.core.errors import GrantError, SecretError, VerifyError
from aca_tokend.core.grant import Credentials, Grant
from aca_tokend.core.outcome import Event, Failure, Granted, Reason, Step
from aca_tokend.core.policy import plan
from aca_tokend.core.secret import Secret, fingerprint
from aca_tokend.core.steps import Call
from aca_tokend.core.token import Account, Document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aca_tokend.core.config import Reference, TokenConfig
    from aca_tokend.core.ports import Clock, Secrets, TokenEndpoint
    from aca_tokend.state import TokenState


@dataclass(frozen=True, slots=True)
class Asked:
    """One grant request: what was sent, the moments that matter, taken in the thread that sent it, and the answer."""

    credentials: Credentials
    credential: str
    started: float
    started_wall: float
    seconds: float
    answer: Grant | GrantError


@dataclass(frozen=True, slots=True)
class Granter:
    """Gets new tokens. What it was granted becomes the token that the state holds."""

    clock: Clock
    secrets: Secrets
    observe: Callable[[Event], None]

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

    async def _value(self, state: TokenState, value: str | Reference) -> str:
        if isinstance(value, str):
            return value
        pool = self.secrets.pool(value) or endpoint_pool(state.endpoint)
        secret = await Call(pool, lambda: self.secrets.resolve(value), state.urgency)
        return secret.reveal()

    async def grant(self, state: TokenState) -> Failure | None:
        """Asks for a token and, where that is configured, tries it. On success it is the token we hold."""
        pool = endpoint_pool(state.endpoint)
        try:
            remote = await self._resolve_remote(state)
            asked = await Call(pool, lambda: self._ask(state, remote), state.urgency)
        except SecretError as error:
            return error.as_failure(Step.GRANT)
        self.observe(_granted(state, asked))
        answer = asked.answer
        if isinstance(answer, GrantError):
            failure = answer.as_failure(Step.GRANT)
            _count_rejection(state, failure, asked.credential)
            return failure
        state.rejections = 0
        verify = state.config.verify
        if verify is not None:
            try:
                await Call(
                    pool, lambda: state.endpoint.verify(verify.path, answer.access_token), state.urgency, finish=True
                )
            except VerifyError as error:
                return error.as_failure(Step.VERIFY)
        return self._hold(state, asked, answer)

    async def _resolve_remote(self, state: TokenState) -> dict[Reference, Secret]:
        """Resolves the references that take a request to Vault, in Vault's pools."""
        resolved: dict[Reference, Secret] = {}
        for reference in references(state.config):
            pool = self.secrets.pool(reference)
            if pool is not None:
                resolved[reference] = await Call(pool, _resolving(self.secrets, reference), state.urgency)
        return resolved

    def _credentials(self, config: TokenConfig, remote: Mapping[Reference, Secret]) -> Credentials:
        """Resolves what is left, here and now, so that a changed file or variable is taken up by the next grant."""

        def secret(reference: Reference) -> Secret:
            return remote.get(reference) or self.secrets.resolve(reference)

        def text(value: str | Reference) -> str:
            return value if isinstance(value, str) else secret(value).reveal()

        return Credentials(
            username=text(config.username),
            password=secret(config.password),
            authority=config.authority,
            client_id=text(config.client_id),
            client_secret=secret(config.client_secret),
            scope=config.scope,
        )

    def _ask(self, state: TokenState, remote: Mapping[Reference, Secret]) -> Asked:
        """Runs in the endpoint's pool. The token's life is counted from before the request is sent."""
        credentials = self._credentials(state.config, remote)
        credential = _fingerprint(credentials)
        started, started_wall = self.clock.monotonic(), self.clock.wall()
        answer: Grant | GrantError
        try:
            answer = state.endpoint.grant(credentials)
        except GrantError as error:
            answer = error
        return Asked(credentials, credential, started, started_wall, self.clock.monotonic() - started, answer)

    def _hold(self, state: TokenState, asked: Asked, grant: Grant) -> Failure | None:
        rotation, sent = state.config.rotation, asked.credentials
        lifetime = rotation.assumed_lifetime if grant.lifetime_seconds is None else grant.lifetime_seconds
        if asked.started + lifetime <= self.clock.monotonic():
            message = f"acaengine.{state.endpoint.name}: the token expired before its answer was read"
            return Failure(Step.GRANT, Reason.INVALID_EXPIRES_IN, message, request_id=grant.request_id)
        issued = datetime.fromtimestamp(asked.started_wall, UTC)
        state.account = Account(state.endpoint.host, sent.authority, sent.username, sent.client_id).fingerprint
        state.life = plan(asked.started, lifetime, rotation, state.draw)
        state.granted_at = asked.started
        state.rotate_at = state.life.rotate
        state.request_id = grant.request_id
        state.document = Document(
            access_token=grant.access_token,
            issued_at=issued,
            expires_at=issued + timedelta(seconds=lifetime),
            refresh_after=issued + timedelta(seconds=lifetime * rotation.fraction),
            expires_in=grant.expires_in,
            scope=grant.scope,
            username=sent.username,
            authority=sent.authority,
            account=state.account,
        )
        state.granted = state.document
        state.failures, state.failure, state.suspended = 0, None, None
        return None

    async def credential(self, state: TokenState) -> str:
        """The fingerprint of the credential as it is now. Raises SecretError."""
        remote = await self._resolve_remote(state)
        now: str = await Call(
            endpoint_pool(state.endpoint),
            lambda: _fingerprint(self._credentials(state.config, remote)),
            state.urgency,
        )
        return now


def endpoint_pool(endpoint: TokenEndpoint) -> str:
    """The pool in which calls to an endpoint run."""
    return f"acaengine.{endpoint.name}"


def references(config: TokenConfig) -> tuple[Reference, ...]:
    """The references that one grant resolves."""
    values = (config.username, config.password, config.client_id, config.client_secret)
    return tuple(value for value in values if not isinstance(value, str))


def _resolving(secrets: Secrets, reference: Reference) -> Callable[[], Secret]:
    return lambda: secrets.resolve(reference)


def _fingerprint(credentials: Credentials) -> str:
    parts = (Secret(credentials.username), credentials.password, Secret(credentials.client_id))
    return fingerprint(parts, credentials.client_secret)


def _count_rejection(state: TokenState, failure: Failure, credential: str) -> None:
    if not failure.rejected:
        return
    state.rejections = state.rejections + 1 if credential == state.rejected_credential else 1
    state.rejected_credential = credential


def _granted(state: TokenState, asked: Asked) -> Granted:
    answer = asked.answer
    code = str(answer.status) if answer.status is not None else "none"
    return Granted(state.name, state.endpoint.name, code, asked.seconds, answer.skew_seconds)
