"""The lockout guard at work: an attempt with a credential that is not proven is recorded before its request is sent.

core/guard.py has the rules, attempts.py the records, admission.py what this process knows by its own requests; here is
what a denied, refused or accepted attempt means for the token that made it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from aca_tokend.core import guard
from aca_tokend.core.errors import ReasonedError
from aca_tokend.core.guard import SEND_WITHIN_SECONDS, Claim, Denied
from aca_tokend.core.outcome import Failure, Reason, Step
from aca_tokend.core.policy import SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS
from aca_tokend.rotation.attempts import AttemptRecords, Book, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.guard import Attempts
    from aca_tokend.core.ports import Clock, Sink
    from aca_tokend.rotation.admission import Credential
    from aca_tokend.rotation.credentials import Resolved
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.managed import Wiring

# The server knew the client and its secret when it refused for one of these: it looks at the client first.
PROVES_CLIENT = frozenset({Reason.INVALID_GRANT, Reason.INVALID_SCOPE, Reason.UNAUTHORIZED_CLIENT})


@dataclass(frozen=True, slots=True)
class Wait:
    """No request was sent: why, and after how many seconds to come again at the latest."""

    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Denial:
    """No request may be sent with this credential: why, and how long ago the refusal is from which the wait counts.

    `recorded`: the token's own records say so.
    """

    failure: Failure
    refused_seconds_ago: float
    recorded: bool


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """No request may be sent, since it cannot be recorded; `claim` may have been all the same."""

    failure: Failure
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class Permit:
    """A request may be sent, until `until`. `claim` is what was recorded of it; None where its credential is proven."""

    resolved: Resolved
    until: float = math.inf
    claim: Claim | None = None
    book: Book | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the server said of a credential: accepted, refused with a reason, or nothing."""

    accepted: bool = False
    refused: Reason | None = None


@dataclass(frozen=True, slots=True)
class Lockout:
    """Allows requests with the credentials of tokens, and notes what became of them. `wake` lets other tokens go on."""

    clock: Clock
    records: AttemptRecords
    wake: Callable[[Wake], None]

    async def permit(self, wiring: Wiring, facts: Facts, resolved: Resolved) -> Permit | Wait | Denial | Unrecorded:
        """Whether a request may be sent with this credential; where it is not proven, that is recorded first."""
        user, client = wiring.shared.user(resolved), wiring.shared.client(resolved)
        if user.proven(facts.adopted_at) and client.proven():
            return Permit(resolved)
        now = self.clock.monotonic()
        for known in (client, user):
            if known.wait(wiring.rules, now) > 0.0:
                reason = known.reason or Reason.ATTEMPTS_SPENT
                return self._denied(wiring, reason, now - known.refused_at, recorded=False)
        why = self._other_first(wiring, facts, resolved, now)
        if why is not None:
            return Wait(why, patience(facts, now))
        if user.proven(facts.adopted_at):
            return Permit(resolved)  # its client was refused since, which says nothing of the user
        return await self._claim(wiring, facts, resolved)

    def take_turns(self, wiring: Wiring, facts: Facts, permit: Permit) -> bool:
        """A moment before the request is sent: whether no other one is under way with an unproven credential."""
        resolved = permit.resolved
        client, user = wiring.shared.client(resolved), wiring.shared.user(resolved)
        if not client.proven() and not client.take(facts.name, facts.expires_at):
            return False
        if user.proven(facts.adopted_at) or user.take(facts.name, facts.expires_at):
            return True
        self._wake(client.given_back(facts.name, self.clock.monotonic()))
        return False

    async def settle(self, wiring: Wiring, facts: Facts, permit: Permit, verdict: Verdict) -> None:
        """Notes how a permitted request went: a refused client says nothing of the user, and the other way round."""
        now, name, resolved = self.clock.monotonic(), facts.name, permit.resolved
        user, client = wiring.shared.user(resolved), wiring.shared.client(resolved)
        of_client = verdict.refused is Reason.INVALID_CLIENT
        try:
            await self._note(wiring, facts, permit, verdict)
        finally:
            if verdict.accepted:
                woken = [*client.accepted(name, now), *user.accepted(name, now)]
            elif of_client and verdict.refused:
                woken = [*client.refused(name, verdict.refused, now, wiring.rules), *user.given_back(name, now)]
            else:
                proves = verdict.refused in PROVES_CLIENT
                woken = client.accepted(name, now) if proves else client.given_back(name, now)
                if verdict.refused is None or verdict.refused is Reason.INVALID_SCOPE:
                    woken += user.given_back(name, now)
                else:
                    woken += user.refused(name, verdict.refused, now, wiring.rules)
            self._wake([*woken, *wiring.client.passed(name, now)])

    async def exhausted(self, wiring: Wiring, facts: Facts, sent: Resolved, failure: Failure) -> bool:
        """Whether a refused attempt was the last one with this credential."""
        shared, now = wiring.shared, self.clock.monotonic()
        if failure.reason is Reason.INVALID_CLIENT:
            return shared.client(sent).wait(wiring.rules, now) > 0.0
        if shared.user(sent).wait(wiring.rules, now) > 0.0:
            return True
        book = await self.records.read(own_places(wiring, facts), facts.expires_at)
        credential = sent.scoped if failure.reason is Reason.INVALID_SCOPE else sent.credential
        known = book.known(credential)
        return known is not None and guard.exhausted(known, wiring.rules)

    async def allowed(self, wiring: Wiring, facts: Facts, resolved: Resolved) -> tuple[float, bool]:
        """In how many seconds a suspended token may make an attempt by its records, read anew, and by what is known.

        Infinity for never. Also whether the records tell of a refusal. One that told and is gone is no permission: an
        operator's leaves an empty one.

        Raises:
            ReasonedError: no record can be read.
        """
        user, client, suspension = wiring.shared.user(resolved), wiring.shared.client(resolved), facts.suspended
        assert suspension is not None  # noqa: S101 -- asked for a suspended token alone
        book = await self.records.read(own_places(wiring, facts), facts.expires_at)
        if not book.readable:
            raise book.error
        monotonic, now = self.clock.monotonic(), self.records.now()
        entry, waits = book.known(resolved.credential), [0.0]
        if entry is None and suspension.recorded:
            if book.cleared(resolved.credential):
                user.cleared()
                client.cleared()
            else:
                waits.append(max(suspension.cautious_at(facts.config) - monotonic, 0.0))
        for credential in (resolved.credential, resolved.scoped):
            known = self._aged(user, book.known(credential))
            if known is not None and known.reason is Reason.INVALID_CLIENT and client.proven():
                continue
            decision = guard.claim(known, credential, now, wiring.rules)
            if isinstance(decision, Denied):
                waits.append(math.inf if decision.wait_seconds is None else decision.wait_seconds)
        waits += [known.wait(wiring.rules, monotonic) for known in (user, client)]
        return max(waits), suspension.recorded or entry is not None

    # ── before a request ──────────────────────────────────────────────────────────────────────────────────────────────

    def _other_first(self, wiring: Wiring, facts: Facts, resolved: Resolved, now: float) -> str | None:
        """Why this token waits for another one's request with the same credential."""
        name, expires = facts.name, facts.expires_at
        client = wiring.shared.client(resolved)
        if not client.proven():
            untried = client.refusals == 0 and wiring.client.is_before(name, now)
            if untried or not client.free_for(name, expires):
                return "client_unproven"
        return None if wiring.shared.user(resolved).free_for(name, expires) else "user_unproven"

    async def _claim(self, wiring: Wiring, facts: Facts, resolved: Resolved) -> Permit | Wait | Denial | Unrecorded:
        """Records an attempt at this token's own places."""
        rules, now = wiring.rules, self.clock.monotonic()
        user, client = wiring.shared.user(resolved), wiring.shared.client(resolved)
        book = await self.records.read(own_places(wiring, facts), facts.expires_at)
        scoped = self._aged(user, book.known(resolved.scoped))
        known = book.known(resolved.credential)
        if scoped is not None:
            decision = guard.claim(scoped, resolved.scoped, self.records.now(), rules)
            if isinstance(decision, Denied):
                return self._of(wiring, facts, decision)
        if known is not None and known.reason is Reason.INVALID_CLIENT and not client.proven():
            client.exhausted(Reason.INVALID_CLIENT, known.spent, self._since(known))
        forgiven = known is not None and known.reason is Reason.INVALID_CLIENT and client.proven()

        def aged(attempts: Attempts | None) -> Attempts | None:
            return None if forgiven else self._aged(user, attempts)

        mine: Claim | None = facts.claim
        try:
            decision, book = await self.records.claim(
                book, Wanted(resolved.credential, rules, mine, aged), facts.expires_at
            )
        except ReasonedError as error:
            error.__traceback__ = None  # it leads to the credential, and from there to the error
            message = f"no attempt without its record: {error.message}"
            failure = Failure(Step.GRANT, error.reason, message, error.retry_after_seconds)
            return Unrecorded(failure, mine)
        if isinstance(decision, Denied):
            return self._of(wiring, facts, decision)
        return Permit(resolved, now + SEND_WITHIN_SECONDS, decision, book)

    def _of(self, wiring: Wiring, facts: Facts, denied: Denied) -> Wait | Denial:
        """What a denied attempt means: suspended, or only wait until a claim whose process died has run out."""
        rules, wait = wiring.rules, denied.wait_seconds
        if denied.reason is None and wait is not None and wait <= rules.lease_seconds:
            return Wait("claimed_elsewhere", min(wait, patience(facts, self.clock.monotonic())))
        ago = rules.retry_rejected_seconds - wait if wait is not None else 0.0
        return self._denied(wiring, denied.reason or Reason.ATTEMPTS_SPENT, ago, recorded=True)

    def _denied(self, wiring: Wiring, reason: Reason, ago: float, *, recorded: bool) -> Denial:
        message = f"acaengine.{wiring.endpoint.name}: this credential has no attempt left; refused before"
        return Denial(Failure(Step.GRANT, reason, message, suspends=True), ago, recorded)

    # ── after an answer ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _note(self, wiring: Wiring, facts: Facts, permit: Permit, verdict: Verdict) -> None:
        """Changes the records, where the answer tells something that they do not."""
        claim, book, urgency = permit.claim, permit.book, facts.expires_at
        refused, sent, now = verdict.refused, permit.resolved, self.records.now()
        if claim is None and (refused is None or refused is Reason.INVALID_CLIENT):
            return
        if book is None:
            book = await self.records.read(own_places(wiring, facts), urgency)
        if refused is Reason.INVALID_SCOPE:
            scope = guard.refused(book.known(sent.scoped), sent.scoped, refused, now, claimed=False)
            await self.records.note(book, lambda _: scope, sent.scoped, urgency)
            book = await self.records.read(own_places(wiring, facts), urgency)
        known = book.known(sent.credential)
        if verdict.accepted:
            await self.records.note(
                book, lambda it: it and guard.succeeded(it, sent.credential, now), sent.credential, urgency
            )
        elif refused is not None and refused is not Reason.INVALID_SCOPE:
            spent = guard.refused(known, sent.credential, refused, now, claimed=claim is not None)
            await self.records.note(book, lambda it: None if it == spent else spent, sent.credential, urgency)
        elif claim is not None:
            pages = [it for it in book.pages if it.record and it.record.of(sent.credential) == claim.attempts]
            await self.records.note(
                Book(tuple(pages)), lambda it: guard.given_back(it, claim, now), sent.credential, urgency
            )

    def _aged(self, user: Credential, attempts: Attempts | None) -> Attempts | None:
        """As old as it can be: what was written by a clock that runs ahead is no younger than when we first saw it."""
        wall = self.records.now()
        if attempts is None or attempts.changed_at <= wall:
            return attempts
        now = self.clock.monotonic()
        return replace(attempts, changed_at=wall - timedelta(seconds=now - user.sighted(attempts, now)))

    def _since(self, attempts: Attempts) -> float:
        """When an entry was written, in monotonic seconds."""
        return self.clock.monotonic() - max((self.records.now() - attempts.changed_at).total_seconds(), 0.0)

    def _wake(self, wakes: Iterable[Wake]) -> None:
        for wake in wakes:
            self.wake(wake)


def own_places(wiring: Wiring, facts: Facts) -> list[Sink]:
    """The places of a token at which no call hangs."""
    return [sink for sink, place in zip(wiring.sinks, facts.places, strict=True) if place.busy is None]


def patience(facts: Facts, now: float) -> float:
    """How long to wait at most for being woken: no longer than a retry would."""
    cap = facts.config.rotation.backoff.cap
    remaining = facts.expires_at - now
    return min(cap, max(remaining * SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS)) if remaining > 0 else cap
