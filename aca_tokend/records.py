"""Attempt records beside the tokens: reading and writing them by check-and-set. core/guard.py decides what they say.

A claim is written before its request is sent. Where the record cannot be read or written, no claim is had.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

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
NOTED = object()
EMPTY = AttemptRecord()


@dataclass(slots=True)
class Ledger:
    """One attempt record: where it lives, and what is known of it.

    `proven` is the credential with which we were granted what is published: an attempt with it needs no claim.
    `pending` is a claim that was sent to be written: if that is what stands there it is ours, whatever the answer was.
    `stamp` is UNREAD where `record` is not what stands there, and NOTED where, besides, that says `proven` is proven.
    """

    sink: Sink
    name: str
    proven: str = ""
    record: AttemptRecord = EMPTY
    stamp: object = UNREAD
    pending: Claim | None = None

    @property
    def read(self) -> bool:
        """Whether `record` is what stood there when it was last read or written."""
        return self.stamp is not UNREAD and self.stamp is not NOTED


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
        known = ledger.read
        for _ in range(ROUNDS):
            if not ledger.read:
                await self.read(ledger, urgency)
                known = False
                if ledger.pending is not None and ledger.record.of(credential) == ledger.pending.attempts:
                    return ledger.pending
            decision = guard.claim(ledger.record.of(credential), credential, self._now(), rules)
            if isinstance(decision, Denied):
                if not known:
                    return decision
                ledger.stamp = UNREAD  # somebody may have resumed it since we read it
                continue
            ledger.pending = decision
            if await self._write(ledger, decision.attempts, urgency):
                return decision
        raise PublishError(Reason.CONFLICT, f"{ledger.sink.name}: the attempt record is written by others all the time")

    async def settle(
        self, ledger: Ledger, credential: str, claim: Claim | None, verdict: Verdict, urgency: float
    ) -> None:
        """Notes how an attempt went. What cannot be noted stays as claimed, which errs on the safe side."""
        noted = ledger.stamp is NOTED and ledger.proven == credential
        ledger.pending = None
        ledger.proven = credential if verdict.accepted else ""
        if noted and verdict.accepted:
            return
        try:
            for _ in range(ROUNDS):
                if not ledger.read:
                    await self.read(ledger, urgency)
                attempts = self._after(ledger.record.of(credential), credential, claim, verdict)
                if attempts is None or await self._write(ledger, attempts, urgency):
                    if verdict.accepted:
                        # nobody needs the record until something changes, and there are thousands of tokens
                        ledger.record, ledger.stamp = EMPTY, NOTED
                    return
        except ReasonedError:
            ledger.stamp = UNREAD

    def _after(self, known: Attempts | None, credential: str, claim: Claim | None, verdict: Verdict) -> Attempts | None:
        if verdict.accepted:
            return guard.succeeded(known, credential, self._now())
        if verdict.refused is not None:
            return guard.refused(known, credential, verdict.refused, self._now(), claimed=claim is not None)
        return guard.given_back(known, claim, self._now()) if claim else None

    async def read(self, ledger: Ledger, urgency: float) -> None:
        """Reads the record as it is now. Raises LookError."""
        sink = ledger.sink
        seen: SeenRecord = await Call(sink.pool, lambda: sink.read_record(ledger.name), urgency, finish=True)
        try:
            ledger.record = guard.parse_record(seen.fields or {})
        except NotADocumentError as error:
            message = f"{sink.name}: what stands in the place of its record {ledger.name} is none: {error}"
            raise LookError(Reason.FOREIGN_DOCUMENT, message) from error
        ledger.stamp = seen.stamp

    async def _write(self, ledger: Ledger, attempts: Attempts, urgency: float) -> bool:
        """Writes one entry of the record; False where somebody else wrote first."""
        record = ledger.record.put(attempts)
        sink, stamp, fields = ledger.sink, ledger.stamp, record.fields()
        ledger.stamp = UNREAD
        try:
            ledger.stamp = await Call(
                sink.pool, lambda: sink.write_record(ledger.name, fields, stamp), urgency, finish=True
            )
        except PublishError as error:
            if error.reason is Reason.CONFLICT:
                return False
            raise
        ledger.record = record
        return True

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.wall(), UTC)
