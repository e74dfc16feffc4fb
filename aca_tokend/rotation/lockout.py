"""The lockout guard at work: an attempt with a credential that is not proven is recorded before its request is sent.

core/guard.py has the rules, attempts.py the records, admission.py what this process knows; here is what a denied,
refused or accepted attempt means for the token that made it, and for the others with its credential.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from aca_tokend.core import guard
from aca_tokend.core.guard import SEND_WITHIN_SECONDS, Claim, Denied
from aca_tokend.core.outcome import Failure, Reason, Step
from aca_tokend.core.policy import SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS
from aca_tokend.rotation.attempts import AttemptRecords, Unwritten
from aca_tokend.rotation.facts import Recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.guard import Attempts
    from aca_tokend.core.ports import Clock, Sink
    from aca_tokend.rotation.admission import Credential
    from aca_tokend.rotation.attempts import Book
    from aca_tokend.rotation.credentials import Resolved
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.managed import Wiring
    from aca_tokend.rotation.shared import Known

# The server knew the client and its secret when it refused for one of these: it looks at the client first.
PROVES_CLIENT = frozenset({Reason.INVALID_GRANT, Reason.INVALID_SCOPE, Reason.UNAUTHORIZED_CLIENT})

# Why a token waits for another one's request with its credential.
UNPROVEN = frozenset({"client_unproven", "user_unproven"})
# Why it waits until fewer attempts of others are claimed.
BUSY = "endpoint_busy"
# What a token waits for that another one's attempt ends.
TURNS = UNPROVEN | {BUSY}
# How often a token looks whether another process is done with its claim: it rarely takes longer than a request.
CLAIMED_AGAIN_SECONDS = 5.0
# What the server said of a credential: accepted, refused for a reason, or nothing.
Verdict = Literal[True] | Reason | None


@dataclass(frozen=True, slots=True)
class Wait:
    """No request was sent: why, and after how many seconds to come again at the latest."""

    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Denial:
    """No request may be sent with this credential: why, and from which refusal the wait counts."""

    failure: Failure
    refused_at: float
    recorded: Recorded


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """No request may be sent, since it cannot be recorded; `claim` may have been all the same."""

    failure: Failure
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class Permit:
    """A request may be sent, until `until`. `claim` is what was recorded of it; None where its credential is proven."""

    resolved: Resolved
    known: Known
    until: float
    claim: Claim | None = None
    book: Book | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a permitted request.

    Attributes:
        last: it was refused, and no other may be sent.
        recorded: what the records tell of the refusal.
        noted: what is known to be noted as proven from then on.
        claim: what was recorded of it and could not be taken back.
    """

    last: bool
    recorded: Recorded
    noted: str
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class Lockout:
    """Allows requests with the credentials of tokens, and notes what became of them. `wake` lets other tokens go on."""

    clock: Clock
    records: AttemptRecords
    wake: Callable[[Wake], None]

    async def permit(self, wiring: Wiring, facts: Facts, resolved: Resolved) -> Permit | Wait | Denial | Unrecorded:
        """Whether a request may be sent with this credential; where that is not proven, it is recorded first."""
        known, now = wiring.shared.known(resolved), self.clock.monotonic()
        for credential, named in zip(known, (resolved.credential, resolved.scoped, None), strict=True):
            if credential.wait(wiring.rules, now) > 0.0:
                denial = await self._refused_elsewhere(wiring, facts, credential, named or resolved.credential)
                if denial is not None:
                    return denial
        wait = self._other_first(wiring, facts, known, now)
        if wait is not None:
            return wait
        lapses = now + (_proof_ends(facts) - self.records.now()).total_seconds()
        if known.user.proven() and _granted(facts) and now < lapses:
            return Permit(resolved, known, lapses)
        if not wiring.gate.claims.enter(facts.name, facts.expires_at):
            return Wait(BUSY, patience(facts, now))
        return await self._claim(wiring, facts, resolved, known)

    def enter(self, wiring: Wiring, facts: Facts, permit: Permit) -> Wait | bool:
        """A moment before the request is sent: whether that is still permitted, and it waits for no other one."""
        now = self.clock.monotonic()
        if now > permit.until:
            return False
        for credential, why in _turns(permit.known):
            entered = credential.enter(facts, wiring.rules, now, permit)
            if not entered:
                return False if entered is None else self._queue(wiring, facts, permit.known, why)
        return True

    async def settle(self, wiring: Wiring, facts: Facts, permit: Permit, verdict: Verdict = None) -> Settled:
        """Notes how a permitted request went: a refused client says nothing of the user, and the other way round."""
        known, rules, now = permit.known, wiring.rules, self.clock.monotonic()
        refused = verdict if isinstance(verdict, Reason) else None
        concerned, woken = known.concerned(refused), wiring.client.passed(facts.name, now)
        for credential in known:
            of_it: Verdict = verdict if verdict is True or credential is concerned else None
            if credential is known.client and refused in PROVES_CLIENT:
                of_it = True
            woken += credential.answered(permit, rules, now, of_it)
        self._wake(woken)
        told, cleared, claim = await self._note(wiring, facts, permit, verdict)
        spent = told is not None and guard.exhausted(told, rules)
        last = refused is not None and (spent or concerned.wait(rules, now) > 0.0)
        untold = told is None and refused in {None, Reason.INVALID_CLIENT}
        kept = facts.noted if untold or refused is Reason.INVALID_SCOPE else ""
        noted = permit.resolved.credential if told and told.proven else kept
        return Settled(last, Recorded(told.changed_at if told and spent else None, cleared), noted, claim)

    async def allowed(self, wiring: Wiring, facts: Facts, resolved: Resolved) -> tuple[float, Recorded]:
        """In how many seconds a suspended token may make an attempt by its records, read anew, and by what is known.

        Infinity for never. Only what an operator cleared, or a success that was noted after the refusals, outranks what
        this process knows: a record that is gone, or was restored from before, does not.

        Raises:
            ReasonedError: no record can be read.
        """
        suspension, known, book = facts.suspended, wiring.shared.known(resolved), await self._read(wiring, facts)
        assert suspension is not None  # noqa: S101 -- asked for a suspended token alone
        if book.error is not None:
            raise book.error
        now, before, waits = self.clock.monotonic(), suspension.recorded, [0.0]
        entry = book.known(suspension.credential)
        later = entry is not None and before.refused_at is not None and entry.changed_at > before.refused_at
        if (later and entry and entry.proven) or (book.cleared and not before.cleared):
            for credential in known:
                credential.cleared(now, suspension.refused_at)
        for named in (resolved.credential, resolved.scoped):
            decision = self._decide(wiring, facts, known, book.known(named), named)
            if isinstance(decision, Denied):
                waits.append(math.inf if decision.wait_seconds is None else decision.wait_seconds)
        waits += [credential.wait(wiring.rules, now) for credential in known]
        refused_at = entry.changed_at if entry and later and not entry.proven else before.refused_at
        return max(waits), Recorded(refused_at, book.cleared)

    def ended(self, wiring: Wiring, facts: Facts) -> None:
        """An attempt ended: if it was its turn and it does not wait for another's, the next comes."""
        now, waits = self.clock.monotonic(), facts.waiting is not None and facts.waiting.why in UNPROVEN
        self._wake(wiring.client.passed(facts.name, now))
        self._wake([] if waits else wiring.shared.passed(facts.name, now))
        self._wake([] if facts.waits_for == BUSY else wiring.gate.claims.passed(facts.name, now))

    # ── before a request ──────────────────────────────────────────────────────────────────────────────────────────────

    def _other_first(self, wiring: Wiring, facts: Facts, known: Known, now: float) -> Wait | None:
        """Whether this token waits for another one's request with the same credential."""
        if not known.client.proven() and not known.client.refusals:
            first = wiring.client.before(facts.name, now)
            if first > 0.0:
                return Wait("client_unproven", min(first, patience(facts, now)))
        for credential, why in _turns(known):
            if not credential.enter(facts, wiring.rules, now):
                return self._queue(wiring, facts, known, why)
        return None

    def _queue(self, wiring: Wiring, facts: Facts, known: Known, why: str) -> Wait:
        now = self.clock.monotonic()
        self._wake(wiring.shared.queue(facts.name, known, now))
        return Wait(why, patience(facts, now))

    async def _claim(
        self, wiring: Wiring, facts: Facts, resolved: Resolved, known: Known
    ) -> Permit | Wait | Denial | Unrecorded:
        """Records an attempt at this token's own places."""
        book, mine = await self._read(wiring, facts), facts.claim
        # by our own clock: where it is behind the record, two claims have the same time
        sent_by = self.clock.monotonic() + SEND_WITHIN_SECONDS

        def decide(entry: Attempts | None, named: str = resolved.credential) -> Claim | Denied:
            if mine is not None and entry == mine.attempts:
                entry = mine.previous  # nobody knew whether it was recorded, so no request was sent
            decision = self._decide(wiring, facts, known, entry, named)
            self._remember(known, self._counted(known, entry), decision)
            return decision

        decision: Claim | Denied | Unwritten = decide(book.known(resolved.scoped), resolved.scoped)
        if not isinstance(decision, Denied):
            decision, book = await self.records.claim(book, resolved.credential, decide)
        match decision:
            case Claim():
                return Permit(resolved, known, sent_by, decision, book)
            case Unwritten() if known.user.proven() and known.client.proven() and _granted(facts):
                return Permit(resolved, known, math.inf)  # late: better one attempt too many than an expired token
            case Unwritten(error, claim):
                message = f"no attempt without its record: {error.message}"
                return Unrecorded(Failure(Step.GRANT, error.reason, message, error.retry_after_seconds), claim or mine)
            case Denied(claimed=True, wait_seconds=float(wait)):
                return elsewhere(facts, self.clock.monotonic(), wait)
            case Denied(reason, wait):
                ago = wiring.rules.retry_rejected_seconds - wait if wait is not None else 0.0
                reason = reason or Reason.ATTEMPTS_SPENT
                return _denial(wiring, reason, self.clock.monotonic() - ago, book, resolved.refused(reason))

    async def _refused_elsewhere(
        self, wiring: Wiring, facts: Facts, credential: Credential, named: str
    ) -> Denial | None:
        """This process knows that no attempt is left: the token's own records are to tell that after a restart too.

        None where they tell of a later success. A refused client is told by the records of who was refused alone.
        """
        book = await self._read(wiring, facts)
        entry, now, reason = book.known(named), self.records.now(), credential.reason or Reason.ATTEMPTS_SPENT
        refused_at = now - timedelta(seconds=self.clock.monotonic() - credential.refused_at)
        if entry is not None and entry.proven and refused_at < entry.changed_at < now:
            credential.cleared(self.clock.monotonic())
            return None
        if reason is not Reason.INVALID_CLIENT and not (entry and guard.exhausted(entry, wiring.rules)):
            shown = None if reason is Reason.ATTEMPTS_SPENT else reason
            count = credential.refusals
            _, book = await self.records.note(
                book,
                named,
                lambda it: guard.refused_elsewhere(it, named, count, shown, refused_at),
                everywhere=True,
            )
        return _denial(wiring, reason, credential.refused_at, book, named)

    def _decide(self, wiring: Wiring, facts: Facts, known: Known, entry: Attempts | None, named: str) -> Claim | Denied:
        """Whether one more attempt may be made by an entry of the record."""
        age = self.clock.monotonic() - self._since(known, entry) if entry else 0.0
        times = guard.Times(self.records.now(), age, _proof_ends(facts))
        return guard.claim(self._counted(known, entry), named, times, wiring.rules)

    def _counted(self, known: Known, entry: Attempts | None) -> Attempts | None:
        """What an entry counts for by what this process knows."""
        if entry is None or entry.proven:
            return entry
        if known.concerned(entry.reason).proven(self._since(known, entry)):  # by another token, or untold by the record
            return replace(entry, proven=True, spent=0, reserved=False, reason=None)
        return entry

    def _remember(self, known: Known, entry: Attempts | None, decision: Claim | Denied) -> None:
        """What a token's record tells of refusals holds for the other tokens with the credential too."""
        if entry is None or entry.proven or (isinstance(decision, Denied) and decision.claimed):
            return
        reason = entry.reason or (Reason.ATTEMPTS_SPENT if isinstance(decision, Denied) else None)
        if reason is not None:
            known.concerned(reason).recorded(reason, entry.spent, self._since(known, entry))

    # ── after an answer ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _note(
        self, wiring: Wiring, facts: Facts, permit: Permit, verdict: Verdict
    ) -> tuple[Attempts | None, bool, Claim | None]:
        """Changes the records, where the answer tells something that they do not.

        Returns what they tell then, None where nobody knows; whether they are empty; and a claim that is left behind.
        """
        sent, claim, now = permit.resolved, permit.claim, self.records.now()
        credential, refused = sent.credential, verdict if isinstance(verdict, Reason) else None
        known = facts.noted == credential if verdict is True else refused in {None, Reason.INVALID_CLIENT}
        if claim is None and known:
            return None, False, None
        book = permit.book or await self._read(wiring, facts)
        if verdict is True:
            told, _ = await self.records.note(book, credential, lambda it: guard.succeeded(it, credential, now))
            return told, False, None
        told, of_scope = None, refused is Reason.INVALID_SCOPE
        if refused is not None:
            named, claimed = sent.refused(refused), claim is not None and not of_scope
            told, book = await self.records.note(
                book,
                named,
                lambda it: guard.refused(it, named, refused, now, claimed=claimed),
                everywhere=True,
            )
        if claim is None or (refused is not None and not of_scope):
            return told, book.cleared, None
        back, book = await self.records.note(book, credential, lambda it: guard.given_back(it, claim, now))
        return told, book.cleared, claim if back is None else None

    async def _read(self, wiring: Wiring, facts: Facts) -> Book:
        return await self.records.read(own_places(wiring, facts))

    def _since(self, known: Known, attempts: Attempts) -> float:
        """When an entry was written, in monotonic seconds: if by a clock that runs ahead, when we first saw it."""
        now, age = self.clock.monotonic(), (self.records.now() - attempts.changed_at).total_seconds()
        return now - age if age >= 0.0 else known.user.sighted(attempts, now)

    def _wake(self, wakes: Iterable[Wake]) -> None:
        for wake in wakes:
            self.wake(wake)


def own_places(wiring: Wiring, facts: Facts) -> list[Sink]:
    """The places of a token at which no call hangs."""
    return [sink for sink, place in zip(wiring.sinks, facts.places, strict=True) if place.busy is None]


def elsewhere(facts: Facts, now: float, wait: float = math.inf) -> Wait:
    """Another process has claimed an attempt, for `wait` seconds at the longest."""
    return Wait("claimed_elsewhere", min(wait, patience(facts, now), CLAIMED_AGAIN_SECONDS))


def patience(facts: Facts, now: float) -> float:
    """How long to wait at most for being woken: no longer than a retry would."""
    cap = facts.config.rotation.backoff.cap
    remaining = facts.expires_at - now
    return min(cap, max(remaining * SHARE_OF_REMAINING, URGENT_INTERVAL_SECONDS)) if remaining > 0 else cap


def _turns(known: Known) -> Iterator[tuple[Credential, str]]:
    """Whose requests may have to end first, and what that is called."""
    if not known.client.proven():
        yield known.client, "client_unproven"
    yield known.user, "user_unproven"
    yield known.scope, "user_unproven"


def _granted(facts: Facts) -> bool:
    """Whether this process was granted the token in use: one that was adopted was another's, who may ask unclaimed."""
    return facts.current is not None and facts.current.asked_at is not None


def _proof_ends(facts: Facts) -> datetime:
    return guard.proof_ends(facts.current.document if facts.current else None)


def _denial(wiring: Wiring, reason: Reason, refused_at: float, book: Book, named: str) -> Denial:
    message, entry = f"acaengine.{wiring.endpoint.name}: this credential has no attempt left", book.known(named)
    recorded = Recorded(entry.changed_at if entry else None, book.cleared)
    return Denial(Failure(Step.GRANT, reason, f"{message}; refused before", suspends=True), refused_at, recorded)
