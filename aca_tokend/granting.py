"""The steps grant and verify: whose turn it is, whether the guard allows it, the request, and trying the new token.

A credential that is not proven is claimed before its request is sent (guarding.py); an endpoint that fails is asked by
one token at a time (admission.py). What was granted becomes the token that the state holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aca_tokend.core.errors import GrantError, InternalError, SecretError, VerifyError
from aca_tokend.core.outcome import (
    DOWN,
    EndpointDown,
    EndpointRecovered,
    Event,
    Failure,
    Granted,
    Noticed,
    Reason,
    Step,
)
from aca_tokend.core.policy import SAME_EXPIRY_SECONDS, SHARE_OF_REMAINING, plan, plan_reused
from aca_tokend.core.steps import Call
from aca_tokend.core.token import Account, Document
from aca_tokend.credentials import Resolved, Resolver, endpoint_pool
from aca_tokend.guarding import Claims, Guard, Wait, patience
from aca_tokend.records import Verdict
from aca_tokend.state import Minted

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.config import Reference
    from aca_tokend.core.grant import Grant
    from aca_tokend.core.ports import Clock
    from aca_tokend.core.secret import Secret
    from aca_tokend.state import TokenState


@dataclass(frozen=True, slots=True)
class Asked:
    """One grant request: what was sent, the moments that matter, taken in the thread that sent it, and the answer."""

    sent: Resolved
    started: float
    started_wall: float
    seconds: float
    answer: Grant | GrantError


@dataclass(frozen=True, slots=True)
class Granter:
    """Gets new tokens. `wake` brings the attempt of another token forward."""

    clock: Clock
    resolver: Resolver
    rng: random.Random
    observe: Callable[[Event], None]
    wake: Callable[[Wake], None]
    guard: Guard

    async def grant(self, state: TokenState) -> Failure | Wait | None:
        """Asks for a token and, where that is configured, tries it. On success it is the token we hold."""
        pool = endpoint_pool(state.endpoint)
        claims: Claims | Failure | Wait | None = None
        try:
            remote = await self.resolver.remote(state)
            asked = await Call(pool, lambda: self._ask_if_proven(state, remote), state.urgency)
            if isinstance(asked, Resolved):
                unproven = asked
                claims = await self.guard.claim(state, unproven)
                if not isinstance(claims, Claims):
                    return claims
                # What was claimed must be made: a claim left behind would count as refused.
                try:
                    asked = await Call(pool, lambda: self._ask_if_admitted(state, unproven), state.urgency, finish=True)
                except InternalError:
                    await self.guard.settle(state, unproven, claims, Verdict())
                    raise
                if isinstance(asked, Wait):
                    await self.guard.settle(state, unproven, claims, Verdict())
        except SecretError as error:
            return error.as_failure(Step.GRANT)
        if isinstance(asked, Wait):
            return asked
        return await self._take(state, asked, claims if isinstance(claims, Claims) else Claims(None, None))

    def held(self, state: TokenState) -> Wait | None:
        """Why no request can be sent now, None where one can."""
        now = self.clock.monotonic()
        if state.gate.admit(state.name, state.urgency, now, probe=False):
            return None
        return Wait("endpoint_held", patience(state, now))

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
        if state.life is None or state.dead:
            return True
        return state.life.expires - self.clock.monotonic() <= state.life.outage_tolerance * SHARE_OF_REMAINING

    async def death(self, state: TokenState) -> VerifyError | None:
        """Tries the token in use. Only a plain refusal tells that it is dead; an API that fails tells nothing."""
        verify, document = state.config.verify, state.document
        if verify is None or document is None:
            return None
        state.canary_at = self.clock.monotonic() + verify.every
        try:
            await self._try(state, verify.path, document.access_token)
        except VerifyError as error:
            return error if error.reason is Reason.TOKEN_REFUSED else None
        state.deaths = 0
        return None

    # ── the request ───────────────────────────────────────────────────────────────────────────────────────────────

    def _ask_if_proven(self, state: TokenState, remote: Mapping[Reference, Secret]) -> Asked | Resolved | Wait:
        """Runs in the endpoint's pool. A proven credential is sent at once; another must be claimed first."""
        resolved = self.resolver.resolve(state.config, remote)
        if resolved.credential != state.ledger.proven or resolved.client != state.client.ledger.proven:
            return self.held(state) or resolved  # nothing is claimed for a request that could not be sent
        return self._ask_if_admitted(state, resolved)

    def _ask_if_admitted(self, state: TokenState, resolved: Resolved) -> Asked | Wait:
        """Runs in the endpoint's pool. The token's life is counted from before the request is sent."""
        now = self.clock.monotonic()
        if not state.gate.admit(state.name, state.urgency, now):
            return Wait("endpoint_held", patience(state, now))
        state.requested = True
        started, started_wall = now, self.clock.wall()
        answer: Grant | GrantError
        try:
            answer = state.endpoint.grant(resolved.credentials)
        except GrantError as error:
            answer = error.with_traceback(None)  # which leads to what was sent
        return Asked(resolved, started, started_wall, self.clock.monotonic() - started, answer)

    async def _take(self, state: TokenState, asked: Asked, claims: Claims) -> Failure | Wait | None:
        """Tells everybody concerned what the answer means, and takes the token if there is one."""
        answer, now = asked.answer, self.clock.monotonic()
        code = str(answer.status) if answer.status is not None else "none"
        name, seconds = state.endpoint.name, asked.seconds
        self.observe(Granted(state.name, name, code, seconds, answer.skew_seconds, answer.request_id))
        if isinstance(answer, GrantError):
            failure = answer.as_failure(Step.GRANT)
            if failure.reason in DOWN:
                self._down(state, failure, now)
            else:
                self._up(state, now)
            verdict = Verdict(refused=failure.reason if failure.rejected else None)
            await self.guard.settle(state, asked.sent, claims, verdict)
            return self.guard.rejected(state, asked.sent, failure) if failure.rejected else failure
        self._up(state, now)
        await self.guard.settle(state, asked.sent, claims, Verdict(accepted=True))
        minted = self._minted(state, asked, answer)
        if isinstance(minted, Failure):
            return minted
        if state.document is not None and answer.access_token == state.document.access_token:
            return self._reused(state, minted)
        if minted.life.rotate >= minted.life.expires:
            self._notice(state, "lifetime_too_short")
        return await self.verify(state, minted)

    def _down(self, state: TokenState, failure: Failure, now: float) -> None:
        """The endpoint did not do its work. Told of the endpoint itself where its tokens wait for that reason."""
        wish = failure.retry_after_seconds
        self._wake(state.gate.failed(state.name, state.urgency, now, wish, self.rng.random()))
        outage = state.gate.outage(now)
        if outage is not None:
            name = state.endpoint.name
            self.observe(EndpointDown(name, failure, outage.waiting, outage.expired, outage.expires_seconds))

    def _up(self, state: TokenState, now: float) -> None:
        """The endpoint did its work, be it to refuse."""
        outage = state.gate.outage(now)
        if outage is not None:
            self.observe(EndpointRecovered(state.endpoint.name, outage.waiting))
        self._wake(state.gate.answered(state.name, now))

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

    def _wake(self, wakes: Iterable[Wake]) -> None:
        for wake in wakes:
            self.wake(wake)
