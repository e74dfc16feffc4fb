"""Attempt records beside the places of a token: reading and writing them by check-and-set. core/guard.py decides.

What a token's own places can tell is put together; what happens to one of them costs no more than its part. An attempt
is recorded in the first place that can be written, a refusal in each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from aca_tokend.core import guard
from aca_tokend.core.errors import LookError, PublishError, ReasonedError
from aca_tokend.core.guard import RECORD, AttemptRecord, Attempts, Claim, Denied, Rules, SeenRecord
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import BUSY, Call, Calls
from aca_tokend.core.token import NotADocumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aca_tokend.core.ports import Clock, Sink

# Replicas that change a record at once meet each other's writes; each of them decides anew, so many times.
ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Page:
    """The record at one place as it was read or written: None where there is none, or it cannot be read by now."""

    sink: Sink
    record: AttemptRecord | None
    stamp: object
    error: ReasonedError | None = None


@dataclass(frozen=True, slots=True)
class Book:
    """The records of one token at all its places."""

    pages: tuple[Page, ...]

    @property
    def readable(self) -> bool:
        """Whether any place could be read."""
        return any(page.error is None for page in self.pages)

    @property
    def error(self) -> ReasonedError:
        """Why the first place that cannot be used cannot be."""
        return next(page.error for page in self.pages if page.error is not None)

    def known(self, credential: str) -> Attempts | None:
        """What the records together tell of a credential: the latest; of one moment the more cautious."""
        entries = [entry for page in self.pages if page.record and (entry := page.record.of(credential))]
        return max(entries, key=lambda it: (it.changed_at, not it.proven, it.spent), default=None)

    def cleared(self, credential: str) -> bool:
        """Whether a record is there that knows nothing of the credential: one that is gone tells nothing."""
        return self.known(credential) is None and any(page.record is not None for page in self.pages)

    def with_page(self, number: int, page: Page) -> Book:
        """With one page replaced."""
        return Book((*self.pages[:number], page, *self.pages[number + 1 :]))


class Wanted(NamedTuple):
    """An attempt that is to be recorded.

    Attributes:
        mine: one of ours that may have been recorded already.
        aged: what is known, as old as it can be by our clock.
    """

    credential: str
    rules: Rules
    mine: Claim | None
    aged: Callable[[Attempts | None], Attempts | None]


@dataclass(frozen=True, slots=True)
class AttemptRecords:
    """Reads and writes the records of tokens. `patience` is how long a place may take, in seconds."""

    clock: Clock
    patience: float

    async def read(self, sinks: Sequence[Sink], urgency: float) -> Book:
        """The records as they are now."""
        calls = [Call(sink.pool, _reading(sink), urgency, finish=True) for sink in sinks]
        results = await Calls(calls, self.patience)
        return Book(tuple(map(_page, sinks, results)))

    async def claim(self, book: Book, wanted: Wanted, urgency: float) -> tuple[Claim | Denied, Book]:
        """Records one attempt with an unproven credential before it is made.

        Raises:
            ReasonedError: no place can be read and written; no attempt may be made.
        """
        for _ in range(ROUNDS):
            known = book.known(wanted.credential)
            if wanted.mine is not None and known == wanted.mine.attempts:
                return wanted.mine, book
            decision = guard.claim(wanted.aged(known), wanted.credential, self.now(), wanted.rules)
            if isinstance(decision, Denied):
                return decision, book
            book, written = await self._write_first(book, decision.attempts, urgency)
            if written:
                return decision, book
        raise PublishError(Reason.CONFLICT, "the attempt record is written by others all the time")

    async def note(
        self, book: Book, change: Callable[[Attempts | None], Attempts | None], credential: str, urgency: float
    ) -> None:
        """Changes what each place tells of a credential. What cannot be noted stays as it is, on the safe side."""
        for number in range(len(book.pages)):
            page = book.pages[number]
            for _ in range(ROUNDS):
                if page.error is not None:
                    break
                attempts = change(page.record.of(credential) if page.record else None)
                if attempts is None:
                    break
                page = await self._write(page, attempts, urgency)
                if page.error is None:
                    break
                if page.error.reason is Reason.CONFLICT:
                    (page,) = (await self.read([page.sink], urgency)).pages

    async def _write_first(self, book: Book, attempts: Attempts, urgency: float) -> tuple[Book, bool]:
        """Writes to the first place that can be written. False where another writer was met, and it was read anew."""
        for number, page in enumerate(book.pages):
            if page.error is not None:
                continue
            written = await self._write(page, attempts, urgency)
            book = book.with_page(number, written)
            if written.error is None:
                return book, True
            if written.error.reason is Reason.CONFLICT:
                (again,) = (await self.read([page.sink], urgency)).pages
                return book.with_page(number, again), False
        raise book.error

    async def _write(self, page: Page, attempts: Attempts, urgency: float) -> Page:
        record = (page.record or AttemptRecord()).put(attempts)
        sink, stamp, fields = page.sink, page.stamp, record.fields()
        call = Call(sink.pool, lambda: sink.write_record(RECORD, fields, stamp), urgency, finish=True)
        (result,) = await Calls([call], self.patience)
        if result is BUSY:
            return replace(page, error=_hangs(sink))
        if isinstance(result, ReasonedError):
            return replace(page, error=result)
        return Page(sink, record, result)

    def now(self) -> datetime:
        """The wall time that is written into records."""
        return datetime.fromtimestamp(self.clock.wall(), UTC)


def _reading(sink: Sink) -> Callable[[], SeenRecord]:
    return lambda: sink.read_record(RECORD)


def _hangs(sink: Sink) -> ReasonedError:
    return LookError(Reason.TIMEOUT, f"{sink.name}: no answer yet")


def _page(sink: Sink, result: object) -> Page:
    if result is BUSY:
        return Page(sink, None, None, _hangs(sink))
    if isinstance(result, ReasonedError):
        return Page(sink, None, None, result)
    assert isinstance(result, SeenRecord)  # noqa: S101 -- what the call returns
    try:
        record = None if result.fields is None else guard.parse_record(result.fields)
    except NotADocumentError as error:
        message = f"{sink.name}: what stands in the place of its attempt record is none: {error}"
        return Page(sink, None, None, LookError(Reason.FOREIGN_DOCUMENT, message))
    return Page(sink, record, result.stamp)
