"""Attempt records beside the tokens: reading and writing them by check-and-set. core/guard.py decides what they say.

A claim is written before its request is sent. Where the record cannot be read or written, no claim is had.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from aca_tokend.core import guard
from aca_tokend.core.errors import LookError, PublishError, ReasonedError
from aca_tokend.core.guard import AttemptRecord, Attempts, Claim, Denied, Rules, SeenRecord
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import Call
from aca_tokend.core.token import NotADocumentError

if TYPE_CHECKING:
    from aca_tokend.core.ports import Clock, Sink

# Replicas that change a record at once meet each other's writes; each of them decides anew, so many times.
ROUNDS = 8
UNREAD = object()
EMPTY = AttemptRecord()


class Held(NamedTuple):
    """A record as it was last read or written, with its stamp: UNREAD where something else may stand there by now."""

    record: AttemptRecord
    stamp: object


NOTHING_HELD = Held(EMPTY, UNREAD)


@dataclass(slots=True)
class Ledger:
    """One attempt record: where it lives, and what is known of it.

    Several threads use that of a client at once, so `held` is replaced whole.

    `proven` is the credential with which we were granted what is published: an attempt with it needs no claim.
    `pending` is a claim that was sent to be written: if that is what stands there it is ours, whatever the answer was.
    """

    sink: Sink
    name: str
    proven: str = ""
    held: Held = NOTHING_HELD
    pending: Claim | None = None

    @property
    def record(self) -> AttemptRecord:
        """The record as far as it is known."""
        return self.held.record

    def distrust(self) -> None:
        """Has it read anew before it is relied on: something else may stand there by now."""
        self.held = self.held._replace(stamp=UNREAD)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the server said of a credential: accepted, refused with a reason, or nothing."""

    accepted: bool = False
    refused: Reason | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """Reads and writes single records."""

    clock: Clock

    async def claim(self, ledger: Ledger, credential: str, rules: Rules, urgency: float) -> Claim | Denied:
        """Asks for one attempt with an unproven credential.

        Raises:
            LookError, PublishError: the record cannot be read or written; no attempt may be made.
        """
        known = ledger.held.stamp is not UNREAD
        for _ in range(ROUNDS):
            held = ledger.held
            if held.stamp is UNREAD:
                held = await self.read(ledger, urgency)
                known = False
                if ledger.pending is not None and held.record.of(credential) == ledger.pending.attempts:
                    return ledger.pending
            decision = guard.claim(held.record.of(credential), credential, self._now(), rules)
            if isinstance(decision, Denied):
                if not known:
                    return decision
                ledger.distrust()  # somebody may have resumed it since we read it
                continue
            ledger.pending = decision
            if await self._write(ledger, held, decision.attempts, urgency):
                return decision
        raise PublishError(Reason.CONFLICT, f"{ledger.sink.name}: the attempt record is written by others all the time")

    async def settle(
        self, ledger: Ledger, credential: str, claim: Claim | None, verdict: Verdict, urgency: float
    ) -> None:
        """Notes how an attempt went. What cannot be noted stays as claimed, which errs on the safe side."""
        ledger.pending = None
        ledger.proven = credential if verdict.accepted else ""
        try:
            for _ in range(ROUNDS):
                held = ledger.held
                if held.stamp is UNREAD:
                    held = await self.read(ledger, urgency)
                attempts = self._after(held.record.of(credential), credential, claim, verdict)
                if attempts is None or await self._write(ledger, held, attempts, urgency):
                    return
        except ReasonedError:
            ledger.distrust()

    def _after(self, known: Attempts | None, credential: str, claim: Claim | None, verdict: Verdict) -> Attempts | None:
        if verdict.accepted:
            return guard.succeeded(known, credential, self._now())
        if verdict.refused is not None:
            return guard.refused(known, credential, verdict.refused, self._now(), claimed=claim is not None)
        return guard.given_back(known, claim, self._now()) if claim else None

    async def read(self, ledger: Ledger, urgency: float) -> Held:
        """Reads the record as it is now, and returns what is held then. Raises LookError."""
        sink = ledger.sink
        seen: SeenRecord = await Call(sink.pool, lambda: sink.read_record(ledger.name), urgency, finish=True)
        try:
            held = Held(guard.parse_record(seen.fields or {}), seen.stamp)
        except NotADocumentError as error:
            message = f"{sink.name}: what stands in the place of its record {ledger.name} is none: {error}"
            raise LookError(Reason.FOREIGN_DOCUMENT, message) from error
        ledger.held = held
        return held

    async def _write(self, ledger: Ledger, held: Held, attempts: Attempts, urgency: float) -> bool:
        """Writes one entry of the record that is held; False where somebody else wrote first."""
        record = held.record.put(attempts)
        sink, fields = ledger.sink, record.fields()
        ledger.distrust()
        try:
            stamp = await Call(
                sink.pool, lambda: sink.write_record(ledger.name, fields, held.stamp), urgency, finish=True
            )
        except PublishError as error:
            if error.reason is Reason.CONFLICT:
                return False
            raise
        ledger.held = Held(record, stamp)
        return True

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.wall(), UTC)
