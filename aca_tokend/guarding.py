"""The lockout guard at work: claims an attempt for a token and its client before its request is sent.

core/guard.py has the rules, records.py what is written; here is what a denied, refused or accepted attempt means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aca_tokend.core import guard
from aca_tokend.core.errors import InternalError, ReasonedError
from aca_tokend.core.guard import Claim, Denied, exhausted
from aca_tokend.core.outcome import Failure, Reason, Step
from aca_tokend.core.policy import SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS
from aca_tokend.records import Records, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.ports import Clock
    from aca_tokend.credentials import Resolved
    from aca_tokend.state import TokenState

# The server knew the client and its secret when it refused for one of these: it looks at the client first.
PROVES_CLIENT = frozenset({Reason.INVALID_GRANT, Reason.INVALID_SCOPE, Reason.UNAUTHORIZED_CLIENT})


@dataclass(frozen=True, slots=True)
class Wait:
    """No request was made: why, and after how many seconds to come again at the latest."""

    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Claims:
    """What was claimed for one attempt: of the token's credential and of its client; None where that is proven."""

    token: Claim | None
    client: Claim | None


@dataclass(frozen=True, slots=True)
class Guard:
    """Claims attempts for tokens and their clients, and notes how they went."""

    clock: Clock
    records: Records
    wake: Callable[[Wake], None]

    async def claim(self, state: TokenState, resolved: Resolved) -> Claims | Failure | Wait:
        """Claims an attempt for what is not proven: first for the client, one token at a time, then for the token."""
        client_claim: Claim | None = None
        decision: Claim | Denied | ReasonedError
        try:
            if state.document is not None and resolved.credential != state.ledger.proven:
                await self._recall_client(state, resolved)
            if resolved.client != state.client.ledger.proven:
                if not state.client.try_probe(state.name, state.urgency):
                    return Wait("client_unproven", patience(state, self.clock.monotonic()))
                decision = await self.records.claim(
                    state.client.ledger, resolved.client, state.rules.for_client, state.urgency
                )
                if isinstance(decision, Denied):
                    return self._denied(state, resolved, decision, Reason.INVALID_CLIENT)
                client_claim = decision
            if resolved.credential == state.ledger.proven:
                return Claims(None, client_claim)
            decision = await self.records.claim(state.ledger, resolved.credential, state.rules, state.urgency)
        except ReasonedError as error:
            decision = error.with_traceback(None)  # which leads to the credential
        if isinstance(decision, Claim):
            return Claims(decision, client_claim)
        await self._settle_client(state, resolved, client_claim, Verdict())
        if isinstance(decision, InternalError):
            raise decision
        if isinstance(decision, Denied):
            return self._denied(state, resolved, decision, Reason.ATTEMPTS_SPENT)
        message = f"no attempt without its record: {decision.message}"
        return Failure(Step.GRANT, decision.reason, message, decision.retry_after_seconds)

    async def _recall_client(self, state: TokenState, resolved: Resolved) -> None:
        """Whoever takes a token over looks whether another process was refused with its client meanwhile."""
        ledger = state.client.ledger
        if resolved.client == ledger.proven:
            held = await self.records.read(ledger, state.urgency)
            known = held.record.of(resolved.client)
            if known is None or not known.proven:
                ledger.proven = ""

    def _denied(self, state: TokenState, resolved: Resolved, denied: Denied, otherwise: Reason) -> Failure | Wait:
        """What a denied attempt means: suspended, or only wait until a claim whose process died has run out."""
        self._end_probe(state, resolved)
        if (
            denied.reason is None
            and denied.wait_seconds is not None
            and denied.wait_seconds <= state.rules.lease_seconds
        ):
            soonest = patience(state, self.clock.monotonic())
            return Wait("claimed_elsewhere", min(denied.wait_seconds, soonest))
        self._suspend(state, resolved, denied.wait_seconds)
        message = f"acaengine.{state.endpoint.name}: this credential has no attempt left; refused before"
        return Failure(Step.GRANT, denied.reason or otherwise, message, suspends=True)

    async def settle(self, state: TokenState, sent: Resolved, claims: Claims, verdict: Verdict) -> None:
        """Notes how the attempt went: a refused client says nothing about the user, and the other way round."""
        of_client = verdict.refused is Reason.INVALID_CLIENT
        judged = Verdict() if of_client else verdict
        if of_client and claims.token is None:
            pass  # the credential stays proven: it was not looked at
        elif verdict.accepted or verdict.refused or claims.token:
            await self.records.settle(state.ledger, sent.credential, claims.token, judged, state.urgency)
        accepted = verdict.accepted or verdict.refused in PROVES_CLIENT
        await self._settle_client(state, sent, claims.client, Verdict(accepted, verdict.refused if of_client else None))

    async def _settle_client(self, state: TokenState, sent: Resolved, claim: Claim | None, verdict: Verdict) -> None:
        ledger = state.client.ledger
        if claim or verdict.refused or (verdict.accepted and ledger.proven != sent.client):
            await self.records.settle(ledger, sent.client, claim, verdict, state.urgency)
        self._end_probe(state, sent)

    def _end_probe(self, state: TokenState, sent: Resolved) -> None:
        """The client's attempt is over, if it was this token's: others go on."""
        ledger = state.client.ledger
        known = ledger.record.of(sent.client)
        decided = ledger.proven == sent.client or (known is not None and exhausted(known, state.rules.for_client))
        self._wake(state.client.probed(state.name, self.clock.monotonic(), decided=decided))

    def rejected(self, state: TokenState, sent: Resolved, failure: Failure) -> Failure:
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

    async def wait(self, state: TokenState, resolved: Resolved) -> float | None:
        """In how many seconds the records, read anew, allow an attempt; None: never. Raises LookError."""
        of_token = (await self.records.read(state.ledger, state.urgency)).record
        of_client = (await self.records.read(state.client.ledger, state.urgency)).record
        now = datetime.fromtimestamp(self.clock.wall(), UTC)
        client = guard.claim(of_client.of(resolved.client), resolved.client, now, state.rules.for_client)
        token = guard.claim(of_token.of(resolved.credential), resolved.credential, now, state.rules)
        waits = [decision.wait_seconds if isinstance(decision, Denied) else 0.0 for decision in (client, token)]
        return max(wait for wait in waits if wait is not None) if None not in waits else None

    def _wake(self, wakes: Iterable[Wake]) -> None:
        for wake in wakes:
            self.wake(wake)


def patience(state: TokenState, now: float) -> float:
    """How long to wait at most for being woken: no longer than a retry would."""
    cap = state.config.rotation.backoff.cap
    remaining = state.urgency - now
    return min(cap, max(remaining * SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS)) if remaining > 0 else cap
