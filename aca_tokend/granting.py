"""The steps grant and verify: whose turn it is, whether the guard allows it, the request, and trying the new token.

A credential that is not proven is claimed before its request is sent (guarding.py); an endpoint that fails is asked by
one token at a time (admission.py). What was granted becomes the token that the state holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aca_tokend.core.errors import GrantError, ReasonedError, SecretError, VerifyError
from aca_tokend.core.grant import Credentials, Grant
from aca_tokend.core.guard import Claim, Denied, exhausted
from aca_tokend.core.outcome import DOWN, Event, Failure, Granted, Noticed, Reason, Step
from aca_tokend.core.policy import SAME_EXPIRY_SECONDS, SHARE_OF_REMAINING, plan, plan_reused
from aca_tokend.core.secret import Secret, fingerprint
from aca_tokend.core.steps import Call
from aca_tokend.core.token import Account, Document
from aca_tokend.guarding import Guard, Verdict
from aca_tokend.state import Minted

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.config import Reference, TokenConfig
    from aca_tokend.core.ports import Clock, Secrets, TokenEndpoint
    from aca_tokend.state import TokenState


@dataclass(frozen=True, slots=True)
class Wait:
    """No request was made: why, and after how many seconds to come again at the latest."""

    why: str
    seconds: float


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
        user = (Secret(credentials.username), credentials.password, client_id)
        return cls(credentials, fingerprint(user, key), fingerprint((client_id,), key))


@dataclass(frozen=True, slots=True)
class Asked:
    """One grant request: what was sent, the moments that matter, taken in the thread that sent it, and the answer."""

    sent: Resolved
    started: float
    started_wall: float
    seconds: float
    answer: Grant | GrantError


@dataclass(frozen=True, slots=True)
class Claims:
    """What was claimed for one attempt: of the token's credential and of its client; None where that is proven."""

    token: Claim | None
    client: Claim | None


@dataclass(frozen=True, slots=True)
class Granter:
    """Gets new tokens. `wake` brings the attempt of another token forward."""

    clock: Clock
    secrets: Secrets
    rng: random.Random
    observe: Callable[[Event], None]
    wake: Callable[[Wake], None]
    guard: Guard

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

    async def grant(self, state: TokenState) -> Failure | Wait | None:
        """Asks for a token and, where that is configured, tries it. On success it is the token we hold."""
        pool = endpoint_pool(state.endpoint)
        claims: Claims | Failure | Wait | None = None
        try:
            remote = await self._resolve_remote(state)
            asked = await Call(pool, lambda: self._ask_if_proven(state, remote), state.urgency)
            if isinstance(asked, Resolved):
                unproven = asked
                claims = await self._claim(state, unproven)
                if not isinstance(claims, Claims):
                    return claims
                asked = await Call(pool, lambda: self._ask_if_admitted(state, unproven), state.urgency)
                if isinstance(asked, Wait):
                    await self._settle(state, unproven, claims, Verdict())
        except SecretError as error:
            return error.as_failure(Step.GRANT)
        if isinstance(asked, Wait):
            return asked
        return await self._take(state, asked, claims if isinstance(claims, Claims) else Claims(None, None))

    async def verify(self, state: TokenState, minted: Minted) -> Failure | None:
        """Tries a token where that is configured, and makes it the one we hold."""
        verify = state.config.verify
        if verify is not None:
            try:
                await self._try(state, verify.path, minted.document.access_token)
            except VerifyError as error:
                # What does not work is forgotten; what could not be tried is tried again, until readers need it.
                state.candidate = None if error.reason is Reason.TOKEN_REFUSED else minted
                if state.candidate is None or not self._needed_now(state):
                    return error.as_failure(Step.VERIFY)
                self._notice(state, "published_untried")
            state.canary_at = self.clock.monotonic() + verify.every if verify.every else None
        self._hold(state, minted)
        return None

    def _needed_now(self, state: TokenState) -> bool:
        """Whether readers are about to meet an expired token: then one that could not be tried is better than none."""
        if state.life is None:
            return True
        return state.life.expires - self.clock.monotonic() <= state.life.outage_tolerance * SHARE_OF_REMAINING

    async def is_dead(self, state: TokenState) -> bool:
        """Tries the token in use. Only a plain refusal tells that it is dead; an API that fails tells nothing."""
        verify, document = state.config.verify, state.document
        if verify is None or document is None:
            return False
        state.canary_at = self.clock.monotonic() + verify.every
        try:
            await self._try(state, verify.path, document.access_token)
        except VerifyError as error:
            return error.reason is Reason.TOKEN_REFUSED
        state.deaths = 0
        return False

    async def may_resume(self, state: TokenState, poll_record: bool) -> str | None:
        """Why attempts of a suspended token may go on; None where they may not. Raises SecretError, LookError."""
        remote = await self._resolve_remote(state)
        call = Call(endpoint_pool(state.endpoint), lambda: self._resolve(state.config, remote), state.urgency)
        resolved = await call
        if resolved.credential != state.suspended_credential:
            return "the credential changed"
        if state.cautious_at is not None and self.clock.monotonic() >= state.cautious_at:
            return "one cautious attempt is due"
        if poll_record:
            await self.guard.read(state.ledger, state.urgency)
            await self.guard.read(state.client.ledger, state.urgency)
            known = (state.ledger.record.of(resolved.credential), state.client.ledger.record.of(resolved.client))
            if not any(attempts and exhausted(attempts, state.rules) for attempts in known):
                return "the attempt record allows it again"
        return None

    # ── the request ───────────────────────────────────────────────────────────────────────────────────────────────

    def _ask_if_proven(self, state: TokenState, remote: Mapping[Reference, Secret]) -> Asked | Resolved | Wait:
        """Runs in the endpoint's pool. A proven credential is sent at once; another must be claimed first."""
        resolved = self._resolve(state.config, remote)
        if resolved.credential != state.ledger.proven or resolved.client != state.client.ledger.proven:
            return resolved
        return self._ask_if_admitted(state, resolved)

    def _ask_if_admitted(self, state: TokenState, resolved: Resolved) -> Asked | Wait:
        """Runs in the endpoint's pool. The token's life is counted from before the request is sent."""
        now = self.clock.monotonic()
        if not state.gate.admit(state.name, state.urgency, now):
            return Wait("endpoint_held", self._patience(state))
        started, started_wall = now, self.clock.wall()
        answer: Grant | GrantError
        try:
            answer = state.endpoint.grant(resolved.credentials)
        except GrantError as error:
            answer = error
        return Asked(resolved, started, started_wall, self.clock.monotonic() - started, answer)

    def _patience(self, state: TokenState) -> float:
        """How long to wait at most for being woken: no longer than a retry would."""
        cap = state.config.rotation.backoff.cap
        remaining = state.urgency - self.clock.monotonic()
        return min(cap, max(remaining / 4, 1.0)) if remaining > 0 else cap

    async def _take(self, state: TokenState, asked: Asked, claims: Claims) -> Failure | Wait | None:
        """Tells everybody concerned what the answer means, and takes the token if there is one."""
        answer, now = asked.answer, self.clock.monotonic()
        code = str(answer.status) if answer.status is not None else "none"
        self.observe(Granted(state.name, state.endpoint.name, code, asked.seconds, answer.skew_seconds))
        if isinstance(answer, GrantError):
            failure = answer.as_failure(Step.GRANT)
            if failure.reason in DOWN:
                wait = failure.retry_after_seconds
                self._wake(state.gate.failed(state.name, state.urgency, now, wait, self.rng.random()))
            else:
                self._wake(state.gate.answered(state.name, now))
            verdict = Verdict(refused=failure.reason if failure.rejected else None)
            await self._settle(state, asked.sent, claims, verdict)
            return self._rejected(state, asked.sent, failure) if failure.rejected else failure
        self._wake(state.gate.answered(state.name, now))
        await self._settle(state, asked.sent, claims, Verdict(accepted=True))
        minted = self._minted(state, asked, answer)
        if isinstance(minted, Failure):
            return minted
        if state.document is not None and answer.access_token == state.document.access_token:
            return self._reused(state, minted)
        if minted.life.rotate >= minted.life.expires:
            self._notice(state, "lifetime_too_short")
        return await self.verify(state, minted)

    def _rejected(self, state: TokenState, sent: Resolved, failure: Failure) -> Failure:
        """A refused attempt; it suspends the token if it was the last one left."""
        if failure.reason is Reason.INVALID_CLIENT:
            known = state.client.ledger.record.of(sent.client)
        else:
            known = state.ledger.record.of(sent.credential)
        if known is None or not exhausted(known, state.rules):
            return failure
        wait = state.rules.retry_rejected_seconds
        self._suspend(state, sent, wait or None)
        return replace(failure, suspends=True)

    def _suspend(self, state: TokenState, sent: Resolved, wait: float | None) -> None:
        state.suspended_credential = sent.credential
        state.cautious_at = self.clock.monotonic() + wait if wait is not None else None

    def _minted(self, state: TokenState, asked: Asked, grant: Grant) -> Minted | Failure:
        rotation, sent = state.config.rotation, asked.sent.credentials
        lifetime = rotation.assumed_lifetime if grant.lifetime_seconds is None else grant.lifetime_seconds
        if asked.started + lifetime <= self.clock.monotonic():
            message = f"acaengine.{state.endpoint.name}: the token expired before its answer was read"
            return Failure(Step.GRANT, Reason.INVALID_EXPIRES_IN, message, request_id=grant.request_id)
        issued = datetime.fromtimestamp(asked.started_wall, UTC)
        document = Document(
            access_token=grant.access_token,
            issued_at=issued,
            expires_at=issued + timedelta(seconds=lifetime),
            refresh_after=issued + timedelta(seconds=lifetime * rotation.fraction),
            expires_in=grant.expires_in,
            scope=grant.scope,
            username=sent.username,
            authority=sent.authority,
            account=Account(state.endpoint.host, sent.authority, sent.username, sent.client_id).fingerprint,
        )
        return Minted(document, plan(asked.started, lifetime, rotation, state.draw), asked.started, grant.request_id)

    def _reused(self, state: TokenState, minted: Minted) -> Wait:
        """The server handed out the token that we hold: nothing to publish, and a new one comes once it expires."""
        self._notice(state, "token_reused")
        state.failures, state.failure, state.suspended = 0, None, None
        if state.life is not None and minted.life.expires < state.life.expires - SAME_EXPIRY_SECONDS:
            self._hold(state, minted)  # it dies sooner than we published
        rotation, now = state.config.rotation, self.clock.monotonic()
        return Wait("token_reused", plan_reused(now, minted.life.expires - now, rotation) - now)

    def _hold(self, state: TokenState, minted: Minted) -> None:
        state.document, state.life, state.granted_at = minted.document, minted.life, minted.granted_at
        state.account = minted.document.account
        state.granted, state.request_id, state.candidate = minted.document, minted.request_id, None
        state.dead = False
        state.rotate_at = minted.life.rotate
        state.failures, state.failure, state.suspended = 0, None, None

    async def _try(self, state: TokenState, path: str, token: Secret) -> None:
        pool = endpoint_pool(state.endpoint)
        await Call(pool, lambda: state.endpoint.verify(path, token), state.urgency, finish=True)

    def _notice(self, state: TokenState, what: str) -> None:
        if what not in state.noticed:
            state.noticed |= {what}
            self.observe(Noticed(state.name, what))

    # ── the guard ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _claim(self, state: TokenState, resolved: Resolved) -> Claims | Failure | Wait:
        """Claims an attempt for what is not proven: first for the client, one token at a time, then for the token."""
        client_claim: Claim | None = None
        decision: Claim | Denied | ReasonedError
        try:
            if resolved.client != state.client.ledger.proven:
                if not state.client.try_probe(state.name, state.urgency):
                    return Wait("client_unproven", self._patience(state))
                decision = await self.guard.claim(
                    state.client.ledger, resolved.client, state.rules.for_client, state.urgency
                )
                if isinstance(decision, Denied):
                    return self._denied(state, resolved, decision, Reason.INVALID_CLIENT)
                client_claim = decision
            if resolved.credential == state.ledger.proven:
                return Claims(None, client_claim)
            decision = await self.guard.claim(state.ledger, resolved.credential, state.rules, state.urgency)
        except ReasonedError as error:
            decision = error
        if isinstance(decision, Claim):
            return Claims(decision, client_claim)
        await self._settle_client(state, resolved, client_claim, Verdict())
        if isinstance(decision, Denied):
            return self._denied(state, resolved, decision, Reason.ATTEMPTS_SPENT)
        message = f"no attempt without its record: {decision.message}"
        return Failure(Step.GRANT, decision.reason, message, decision.retry_after_seconds)

    def _denied(self, state: TokenState, resolved: Resolved, denied: Denied, otherwise: Reason) -> Failure | Wait:
        """What a denied attempt means: suspended, or only wait until a claim whose process died has run out."""
        self._wake(state.client.probed(state.name, self.clock.monotonic()))
        if (
            denied.reason is None
            and denied.wait_seconds is not None
            and denied.wait_seconds <= state.rules.lease_seconds
        ):
            return Wait("claimed_elsewhere", denied.wait_seconds)
        self._suspend(state, resolved, denied.wait_seconds)
        message = f"acaengine.{state.endpoint.name}: this credential has no attempt left; refused before"
        return Failure(Step.GRANT, denied.reason or otherwise, message, suspends=True)

    async def _settle(self, state: TokenState, sent: Resolved, claims: Claims, verdict: Verdict) -> None:
        """Notes how the attempt went: a refused client says nothing about the user, and the other way round."""
        of_client = verdict.refused is Reason.INVALID_CLIENT
        judged = Verdict() if of_client else verdict
        if of_client and claims.token is None:
            pass  # the credential stays proven: it was not looked at
        elif verdict.accepted or verdict.refused or claims.token:
            await self.guard.settle(state.ledger, sent.credential, claims.token, judged, state.urgency)
        accepted = verdict.accepted or (verdict.refused is not None and not of_client)
        await self._settle_client(state, sent, claims.client, Verdict(accepted, verdict.refused if of_client else None))

    async def _settle_client(self, state: TokenState, sent: Resolved, claim: Claim | None, verdict: Verdict) -> None:
        ledger = state.client.ledger
        if claim or verdict.refused or (verdict.accepted and ledger.proven != sent.client):
            await self.guard.settle(ledger, sent.client, claim, verdict, state.urgency)
        self._wake(state.client.probed(state.name, self.clock.monotonic()))

    def _wake(self, wakes: Iterable[Wake]) -> None:
        for wake in wakes:
            self.wake(wake)

    # ── references ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _value(self, state: TokenState, value: str | Reference) -> str:
        if isinstance(value, str):
            return value
        pool = self.secrets.pool(value) or endpoint_pool(state.endpoint)
        secret = await Call(pool, lambda: self.secrets.resolve(value), state.urgency)
        return secret.reveal()

    async def _resolve_remote(self, state: TokenState) -> dict[Reference, Secret]:
        """Resolves the references that take a request to Vault, in Vault's pools."""
        resolved: dict[Reference, Secret] = {}
        for reference in references(state.config):
            pool = self.secrets.pool(reference)
            if pool is not None:
                resolved[reference] = await Call(pool, _resolving(self.secrets, reference), state.urgency)
        return resolved

    def _resolve(self, config: TokenConfig, remote: Mapping[Reference, Secret]) -> Resolved:
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
