"""Attempt records beside the places of a token: reading and writing them by check-and-set. core/guard.py decides.

The latest that any of its own places tells is what a token knows. An attempt is recorded in the first place that can be
written, a refusal in each. A place that fails costs no more than its part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from aca_tokend.core import guard
from aca_tokend.core.errors import LookError, PublishError, ReasonedError
from aca_tokend.core.guard import RECORD, AttemptRecord, Attempts, Claim, Denied, SeenRecord
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import BUSY, FIRST, Call, Calls
from aca_tokend.core.token import NotADocumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aca_tokend.core.ports import Clock, Sink

# Replicas that change a record at once meet each other's writes; each of them decides anew, so many times.
ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Page:
    """The record at one place as it was read or written: None where there is none, or it cannot be used."""

    sink: Sink
    record: AttemptRecord | None
    stamp: object
    error: ReasonedError | None = None

    def of(self, credential: str) -> Attempts | None:
        """What this place tells of a credential."""
        return self.record.of(credential) if self.record else None


@dataclass(frozen=True, slots=True)
class Book:
    """The records of one token at all its places."""

    pages: tuple[Page, ...]

    @property
    def error(self) -> ReasonedError | None:
        """Why no place can be used; None where one can."""
        errors = [page.error for page in self.pages if page.error is not None]
        return errors[0] if len(errors) == len(self.pages) and errors else None

    @property
    def cleared(self) -> bool:
        """Whether a record is there without an entry, as an operator leaves it: one that is gone tells nothing."""
        there = [page.record.entries for page in self.pages if page.record is not None]
        return bool(there) and not any(there)

    def known(self, credential: str) -> Attempts | None:
        """What the records together tell of a credential: the latest; of one moment the more cautious."""
        entries = [entry for page in self.pages if (entry := page.of(credential))]
        return max(entries, key=lambda it: (it.changed_at, not it.proven, it.spent), default=None)

    def with_page(self, number: int, page: Page) -> Book:
        """With one page replaced."""
        return Book((*self.pages[:number], page, *self.pages[number + 1 :]))


class Unwritten(NamedTuple):
    """No place could record an attempt; `claim` may have been recorded all the same."""

    error: ReasonedError
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class AttemptRecords:
    """Reads and writes the records of tokens. `patience` is how long a place may take, in seconds."""

    clock: Clock
    patience: float

    def now(self) -> datetime:
        """The wall time that is written into records."""
        return datetime.fromtimestamp(self.clock.wall(), UTC)

    async def read(self, sinks: Sequence[Sink]) -> Book:
        """The records as they are now."""
        calls = [Call(sink.pool, partial(sink.read_record, RECORD), FIRST, finish=True) for sink in sinks]
        return Book(tuple(map(_page, sinks, await Calls(calls, self.patience))))

    async def claim(
        self, book: Book, credential: str, decide: Callable[[Attempts | None], Claim | Denied]
    ) -> tuple[Claim | Denied | Unwritten, Book]:
        """Records one attempt with an unproven credential before it is made, where `decide` allows it."""
        tried: Claim | None = None
        for _ in range(ROUNDS):
            decision = decide(book.known(credential))
            if isinstance(decision, Denied):
                return decision, book
            for number, page in enumerate(book.pages):
                if page.error is not None:
                    continue
                tried, written = decision, await self._write(page, decision.attempts)
                book = book.with_page(number, written)
                if written.error is None:
                    return decision, book
                if written.error.reason is Reason.CONFLICT:
                    book = await self._read_anew(book, number)
                    break
            else:
                error = book.error or PublishError(Reason.UNAVAILABLE, "it has no place")
                return Unwritten(error, tried), book
        return Unwritten(
            PublishError(Reason.CONFLICT, "the attempt record is written by others all the time"), None
        ), book

    async def note(
        self,
        book: Book,
        credential: str,
        change: Callable[[Attempts | None], Attempts | None],
        *,
        everywhere: bool = False,
    ) -> tuple[Attempts | None, Book]:
        """Changes what the places tell of a credential: those that know it, or the first if none does, or all.

        Returns what they tell then, None where nothing could be written. What cannot be noted stays on the safe side.
        """
        noted: Attempts | None = None
        for number in range(len(book.pages)):
            for _ in range(ROUNDS):
                page, known = book.pages[number], book.known(credential)
                attempts = noted or change(known)
                if attempts is None:
                    return known, book
                there = page.of(credential)
                if page.error is not None or not (everywhere or there or known is None):
                    break
                if there == attempts or (noted and there and there.changed_at > noted.changed_at):
                    break
                book = book.with_page(number, written := await self._write(page, attempts))
                if written.error is None:
                    noted = attempts
                    break
                if written.error.reason is not Reason.CONFLICT:
                    break
                book = await self._read_anew(book, number)
        return noted, book

    async def _read_anew(self, book: Book, number: int) -> Book:
        (page,) = (await self.read([book.pages[number].sink])).pages
        return book.with_page(number, page)

    async def _write(self, page: Page, attempts: Attempts) -> Page:
        record, sink = (page.record or AttemptRecord()).put(attempts), page.sink
        write = partial(sink.write_record, RECORD, record.fields(), page.stamp)
        (result,) = await Calls([Call(sink.pool, write, FIRST, finish=True)], self.patience)
        if result is BUSY or isinstance(result, ReasonedError):
            return replace(page, error=_hangs(sink) if result is BUSY else result)
        return Page(sink, record, result)


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
