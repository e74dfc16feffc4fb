"""The actions that get a token: whose turn it is, whether the guard allows it, the request, and trying the new token.

Each returns what is known afterwards. Nothing here decides when: core/policy.py and decide.py do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.errors import GrantError, InternalError, ReasonedError, SecretError, contained
from aca_tokend.core.outcome import (
    DOWN,
    REJECTED,
    Component,
    EndpointDown,
    EndpointRecovered,
    Event,
    Failed,
    Failure,
    Granted,
    Noticed,
    Reason,
    Resumed,
    Skipped,
    Step,
    Suspended,
)
from aca_tokend.core.policy import SAME_EXPIRY_SECONDS
from aca_tokend.core.steps import FIRST, Call
from aca_tokend.core.token import Document
from aca_tokend.rotation.credentials import Resolved, Resolver, endpoint_pool
from aca_tokend.rotation.decide import need_at, needed_at, records_at
from aca_tokend.rotation.facts import Asked, Held, Recorded, Suspension, Trouble, Waiting, Wrote
from aca_tokend.rotation.lockout import Denial, Lockout, Permit, Unrecorded, Verdict, Wait, elsewhere, patience
from aca_tokend.rotation.standing import of_account

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.grant import Grant
    from aca_tokend.core.ports import Clock
    from aca_tokend.core.secret import Secret
    from aca_tokend.rotation.facts import Facts, Identity, Moment
    from aca_tokend.rotation.managed import ManagedToken, Wiring

# A claimed request that waited too long for a thread is claimed anew, so many times.
CLAIMS = 3


@dataclass(frozen=True, slots=True)
class Answered:
    """One grant request: what allowed it, the moments that matter, taken in the thread that sent it, and the answer."""

    permit: Permit
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
    lockout: Lockout

    # ── the actions ───────────────────────────────────────────────────────────────────────────────────────────────────

    def ask_turn(self, token: ManagedToken) -> Facts:
        """Whether the endpoint may be asked by now. A token that nobody woke looks for a replica's, now and then."""
        facts, now = token.facts, self.clock.monotonic()
        wait = self.held_up(token.wiring, facts)
        if wait is None:
            return facts._replace(waiting=None)
        by_itself = facts.waiting is not None and facts.waiting.until <= now
        facts = self._wait(facts, wait)
        if by_itself and facts.waiting is not None:
            facts = facts._replace(waiting=facts.waiting._replace(look_before=now))
        return facts

    async def identify(self, token: ManagedToken, moment: Moment) -> Facts:
        """Resolves whose token it is."""
        facts, wiring = token.facts, token.wiring
        try:
            identity = await self.resolver.identify(facts.config, wiring.endpoint, token.urgency, moment.now)
        except SecretError as error:
            return self.failed(facts, error.as_failure(Step.GRANT), asked=False)
        return identified(facts, identity)

    async def grant(self, token: ManagedToken, moment: Moment) -> Facts:
        """Asks for a token and, where that is configured, tries it."""
        facts = token.facts
        try:
            resolved = await self.resolver.resolve(facts.config, token.wiring.endpoint, token.urgency)
        except SecretError as error:
            return self.failed(facts, error.as_failure(Step.GRANT), asked=False)
        assert facts.identity is not None  # noqa: S101 -- what was decided on
        if resolved.account != facts.identity.account:
            return identified(facts, resolved.identity(moment.now))  # another account may need no grant
        resolved = replace(resolved, account=facts.identity.account)  # the same text, which is then kept once
        answered = await self._ask(token, resolved)
        match answered:
            case Wait():
                return self._wait(facts, answered)
            case Denial():
                since, recorded = answered.refused_at, answered.recorded
                return self._suspended(facts, answered.failure, resolved, since, recorded, asked=False)
            case Unrecorded():
                return self.failed(facts, answered.failure, asked=False)._replace(claim=answered.claim)
            case Answered():
                return await self._take(token, facts._replace(requested_at=answered.started), answered, moment)

    async def _ask(self, token: ManagedToken, resolved: Resolved) -> Answered | Wait | Denial | Unrecorded:
        """One request, if it may be sent now; what was recorded of it is settled where it is not."""
        facts, wiring = token.facts, token.wiring
        pool, urgency = endpoint_pool(wiring.endpoint), token.urgency
        if (wait := self.held_up(wiring, facts)) is not None:
            return wait  # nothing is claimed for a request that could not be sent
        for _ in range(CLAIMS):
            permit = await self.lockout.permit(wiring, facts, resolved)
            if not isinstance(permit, Permit):
                return permit
            # What was claimed must be sent: a claim left behind would count as refused.
            finish = permit.claim is not None
            try:
                answered = await Call(pool, partial(self.send, token, permit), urgency, finish=finish)
            except InternalError:
                await self.lockout.settle(wiring, facts, permit)
                raise
            if isinstance(answered, Answered):
                return answered
            await self.lockout.settle(wiring, facts, permit)
            if answered is not None:
                return answered
        return elsewhere(facts, self.clock.monotonic())

    async def poll(self, token: ManagedToken, moment: Moment) -> Facts:
        """Resumes a suspended token if its credential changed, or its records allow another attempt."""
        facts, wiring, now = token.facts, token.wiring, moment.now
        records = records_at(facts) <= now
        suspension = facts.suspension
        assert suspension is not None  # noqa: S101 -- what was decided on
        polled = suspension._replace(polled_at=now, read_at=now if records else suspension.read_at)
        cautious = suspension.cautious_at(facts.config) <= now
        try:
            resolved = await self.resolver.resolve(facts.config, wiring.endpoint, token.urgency)
            if resolved.refused(suspension.failure.reason) != suspension.credential:
                why = "the credential changed"
            elif self._accepted_since(wiring, resolved, suspension):
                why = "the credential was accepted for another token"
            elif not records:
                return facts._replace(suspended=polled)
            else:
                wait, recorded = await self.lockout.allowed(wiring, facts, resolved)
                if wait > 0.0:  # another process may have made the cautious attempt
                    since = now + wait - facts.config.rotation.retry_rejected if math.isfinite(wait) else 0.0
                    since = max(since, suspension.refused_at)
                    return facts._replace(suspended=polled._replace(refused_at=since, recorded=recorded))
                why = "one cautious attempt is due" if cautious else "the attempt record allows it again"
        except ReasonedError as error:
            if isinstance(error, InternalError):
                raise
            error.__traceback__ = None  # it leads to the credential, and from there to the error
            return facts._replace(suspended=polled)  # what cannot be read has not changed yet
        self.observe(Resumed(facts.name, why))
        trouble = facts.trouble and replace(facts.trouble, hastened_to=moment.began)
        facts = facts._replace(suspended=None, trouble=trouble, waiting=None, noted="")
        return identified(facts, resolved.identity(now))

    async def try_pending(self, token: ManagedToken) -> Facts:
        """Tries a token that was granted before and could not be tried, and makes it the token in use."""
        pending = token.facts.pending
        assert pending is not None  # noqa: S101 -- what was decided on
        return await self._verified(token, token.facts, pending)

    async def check(self, token: ManagedToken) -> Facts:
        """The canary: tries the token in use. Only a refusal says that it is revoked; an API that fails does not."""
        facts, held, verify = token.facts, token.facts.current, token.facts.config.verify
        assert held is not None and verify is not None  # noqa: PT018, S101 -- what was decided on
        checked = held._replace(checked_at=self.clock.monotonic())
        try:
            await self._try(token, verify.path, held.document.access_token)
        except ReasonedError as error:
            now = self.clock.monotonic()
            if error.reason is not Reason.TOKEN_REFUSED or held.expires_at <= now:
                return facts._replace(held=checked._replace(checked_at=now))
            message = f"acaengine.{token.wiring.endpoint.name}: the token in use is refused before its time"
            failure = Failure(Step.VERIFY, Reason.TOKEN_REFUSED, message, request_id=error.request_id)
            facts = facts._replace(
                held=checked._replace(checked_at=now, revoked_at=now),
                revocations=facts.revocations + 1,
                pending=None,
            )
            self.observe(Failed(facts.name, failure, facts.revocations, need_at(facts) - now, expires_at(facts)))
            return facts
        return facts._replace(held=checked._replace(works=True), revocations=0)

    def held_up(self, wiring: Wiring, facts: Facts) -> Wait | None:
        """Why no request can be sent to the endpoint now, None where one can."""
        now = self.clock.monotonic()
        if wiring.gate.admit(facts.name, facts.expires_at, now, probe=False):
            return None
        return self._held_up(wiring, facts, now)

    def failed(self, facts: Facts, failure: Failure, *, asked: bool = True) -> Facts:
        """Counts a failure to get a token."""
        now, held = self.clock.monotonic(), facts.current
        count = facts.trouble.count + 1 if facts.trouble else 1
        remaining = max(held.expires_at - now, 0.0) if held and held.revoked_at is None else 0.0
        trouble = Trouble(failure, count, now, self.rng.random(), remaining)
        facts = facts._replace(trouble=trouble, waiting=None, turn_at=math.inf)
        delay = (
            facts.suspension.cautious_at(facts.config) - now
            if facts.suspension
            else trouble.again_at(facts.config) - now
        )
        self.observe(Failed(facts.name, failure, count, delay, expires_at(facts), asked=asked))
        return facts

    # ── the request ───────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, token: ManagedToken, permit: Permit) -> Answered | Wait | None:
        """Runs in the endpoint's pool. The token's lifetime is counted from before the request is sent.

        None: it is no longer permitted, as it waited here for too long.
        """
        facts, wiring, now = token.facts, token.wiring, self.clock.monotonic()
        entered = self.lockout.enter(wiring, facts, permit)
        if entered is not True:
            return entered or None
        if not wiring.gate.admit(facts.name, facts.expires_at, now):
            return self._held_up(wiring, facts, now)
        started, started_wall = now, self.clock.wall()
        answer: Grant | GrantError
        try:
            answer = wiring.endpoint.grant(permit.resolved.credentials)
        except GrantError as error:
            answer = error.with_traceback(None)  # which leads to what was sent
        return Answered(permit, started, started_wall, self.clock.monotonic() - started, answer)

    async def _take(self, token: ManagedToken, facts: Facts, asked: Answered, moment: Moment) -> Facts:
        """Tells everybody concerned what the answer means, and takes the token if there is one."""
        wiring, answer, permit = token.wiring, asked.answer, asked.permit
        self._wake(wiring.gate.claims.passed(facts.name, self.clock.monotonic()))
        verdict: Verdict = True
        if isinstance(answer, GrantError):
            verdict = answer.reason if answer.reason in REJECTED else None
        settled = await self.lockout.settle(wiring, facts, permit, verdict)
        facts, now = facts._replace(claim=settled.claim, noted=settled.noted), self.clock.monotonic()
        code = str(answer.status) if answer.status is not None else "none"
        endpoint = wiring.endpoint.name
        self.observe(Granted(facts.name, endpoint, code, asked.seconds, answer.skew_seconds, answer.request_id))
        if isinstance(answer, GrantError):
            failure = answer.as_failure(Step.GRANT)
            if failure.reason in DOWN:
                self._down(wiring, facts, failure, now)
            else:
                self._up(wiring, facts.name, now)
            if not settled.last:
                return self.failed(facts, failure)
            return self._suspended(facts, replace(failure, suspends=True), permit.resolved, now, settled.recorded)
        self._up(wiring, facts.name, now)
        held = facts.current
        if held is not None and answer.access_token == held.document.access_token:
            return self._reused(facts, held, self._held(facts, asked, answer, moment))
        granted = self._held(facts, asked, answer, moment)
        if granted.expires_at <= self.clock.monotonic():
            message = f"acaengine.{endpoint}: the token expired before its answer was read"
            return self.failed(
                facts, Failure(Step.GRANT, Reason.INVALID_EXPIRES_IN, message, request_id=answer.request_id)
            )
        life = granted.life(facts.config, facts.jitter)
        if life.rotate >= life.expires:
            facts = self._notice(facts, "lifetime_too_short")
        if granted.lifetime > facts.config.rotation.max_lifetime:
            facts = self._notice(facts, "lifetime_over_max")
        return await self._verified(token, facts, granted)

    def _held(self, facts: Facts, asked: Answered, grant: Grant, moment: Moment) -> Held:
        """What was granted, as a token in use."""
        rotation, sent = facts.config.rotation, asked.permit.resolved
        lifetime = rotation.assumed_lifetime if grant.lifetime_seconds is None else grant.lifetime_seconds
        issued = datetime.fromtimestamp(asked.started_wall, UTC)
        document = Document(
            access_token=grant.access_token,
            issued_at=issued,
            expires_at=issued + timedelta(seconds=lifetime),
            refresh_after=issued + timedelta(seconds=lifetime * rotation.fraction),
            expires_in=grant.expires_in,
            scope=grant.scope,
            username=sent.credentials.username,
            authority=sent.credentials.authority,
            account=sent.account,
            token=facts.name,
        )
        return Held(
            document,
            asked.started,
            lifetime,
            asked.started,
            facts.config.scope,
            unreported_since=moment.began,
            request_id=grant.request_id,
        )

    def _reused(self, facts: Facts, held: Held, again: Held) -> Facts:
        """The server handed out the token that we hold: nothing to publish, and a new one comes once it expires.

        Its word on when that is counts where it is sooner, or ours is over. What was refused counts as refused again.
        """
        facts, now = self._notice(facts, "token_reused"), self.clock.monotonic()
        if again.expires_at < held.expires_at - SAME_EXPIRY_SECONDS or held.expires_at <= now:
            held = again._replace(checked_at=held.checked_at, works=held.works, revoked_at=held.revoked_at)
        held = held._replace(reused_at=now, scope=facts.config.scope)
        facts = facts._replace(held=held, trouble=None, waiting=None, turn_at=math.inf)
        facts = facts._replace(revocations=facts.revocations + facts.revoked)
        self.observe(Skipped(facts.name, "token_reused", need_at(facts) - now, expires_at(facts)))
        return facts

    # ── trying a token ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _verified(self, token: ManagedToken, facts: Facts, granted: Held) -> Facts:
        """Tries a token where that is configured, and makes it the one in use."""
        verify = facts.config.verify
        if verify is not None:
            try:
                await self._try(token, verify.path, granted.document.access_token)
                granted = granted._replace(works=True)
            except ReasonedError as error:
                # What is refused is forgotten; what could not be tried is tried again, until readers need it.
                refused = error.reason is Reason.TOKEN_REFUSED
                now = self.clock.monotonic()
                if refused or now < needed_at(facts):
                    facts = facts._replace(pending=None if refused else granted)
                    return self.failed(facts, error.as_failure(Step.VERIFY))
                facts = self._notice(facts, "published_untried")
            granted = granted._replace(checked_at=self.clock.monotonic())
        asked = Asked(granted.issued_at, granted.document.account)
        return facts._replace(held=granted, pending=None, asked=asked, trouble=None, waiting=None, turn_at=math.inf)

    async def _try(self, token: ManagedToken, path: str, access_token: Secret) -> None:
        endpoint = token.wiring.endpoint
        try:
            await Call(endpoint_pool(endpoint), partial(endpoint.verify, path, access_token), FIRST, finish=True)
        except InternalError as error:  # a bug says nothing of the token: it could not be tried
            self.observe(contained(Component.ATTEMPT, token.name, error)[1])
            raise

    # ── what an answer means ──────────────────────────────────────────────────────────────────────────────────────────

    def _accepted_since(self, wiring: Wiring, resolved: Resolved, suspension: Suspension) -> bool:
        concerned = wiring.shared.known(resolved).concerned(suspension.failure.reason)
        return concerned.proven(suspension.refused_at)

    def _suspended(
        self,
        facts: Facts,
        failure: Failure,
        sent: Resolved,
        refused_at: float,
        recorded: Recorded,
        *,
        asked: bool = True,
    ) -> Facts:
        now, credential = self.clock.monotonic(), sent.refused(failure.reason)
        suspension = Suspension(failure, sent.account, credential, refused_at, now, now, recorded)
        facts = self.failed(facts._replace(suspended=suspension), failure, asked=asked)
        self.observe(Suspended(facts.name, failure, expires_at(facts)))
        return facts

    def _wait(self, facts: Facts, wait: Wait) -> Facts:
        until = self.clock.monotonic() + wait.seconds
        return facts._replace(waiting=Waiting(wait.why, until), turn_at=math.inf)

    def _held_up(self, wiring: Wiring, facts: Facts, now: float) -> Wait:
        """No longer than a retry would wait, nor than until it may probe."""
        soonest = max(wiring.gate.breaker.turn_at(facts.name) - now, 0.0)
        return Wait("endpoint_held", min(patience(facts, now), soonest))

    def _down(self, wiring: Wiring, facts: Facts, failure: Failure, now: float) -> None:
        """The endpoint is down. Reported for the endpoint itself where its tokens wait for that reason."""
        retry_after = failure.retry_after_seconds
        self._wake(wiring.gate.failed(facts.name, facts.expires_at, now, retry_after, self.rng.random()))
        outage = wiring.gate.outage(now)
        if outage is not None:
            name = wiring.endpoint.name
            self.observe(EndpointDown(name, failure, outage.waiting, outage.expired, outage.expires_seconds))

    def _up(self, wiring: Wiring, name: str, now: float) -> None:
        """The endpoint answered, even with a refusal."""
        outage = wiring.gate.outage(now)
        if outage is not None:
            self.observe(EndpointRecovered(wiring.endpoint.name, outage.waiting))
        self._wake(wiring.gate.answered(name, now))

    def _notice(self, facts: Facts, what: str) -> Facts:
        if what in facts.noticed:
            return facts
        self.observe(Noticed(facts.name, what))
        return facts._replace(noticed=facts.noticed | {what})

    def _wake(self, wakes: Iterable[Wake]) -> None:
        for wake in wakes:
            self.wake(wake)


def identified(facts: Facts, identity: Identity) -> Facts:
    """With whose token is configured now. What failed for another account says nothing of this one."""
    known = facts.identity
    if known is not None and known.account == identity.account:
        return facts._replace(identity=identity)
    return ours_by_mark(facts)._replace(identity=identity, trouble=None, waiting=None, revocations=0)


def ours_by_mark(facts: Facts) -> Facts:
    """What is ours by its account alone stays ours to replace with another account, or in another form."""
    for number, place in enumerate(facts.places):
        last, wrote = place.last, place.wrote
        if last is None or last.document is None or not of_account(facts, last.document):
            continue
        if wrote is None or wrote.stamp != last.stamp:
            mark = Wrote(last.stamp, last.document.account, last.document.issued_at.timestamp())
            facts = facts.with_place(number, wrote=mark)
    return facts


def expires_at(facts: Facts) -> datetime | None:
    """Until when readers have a valid token, as far as is known."""
    held = facts.current
    return held.document.expires_at if held else None
