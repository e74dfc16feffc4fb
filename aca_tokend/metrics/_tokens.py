"""The series of each token: what they are read from, and how they are written down.

prometheus-client would take over a second for the page of 10,000 tokens, and 100 MB for its objects; writing the text
itself takes a fifth of a second. No label carries a URL, a user name or free text.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from aca_tokend.core.outcome import REJECTED, PublishResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from aca_tokend.core.outcome import Failure, Reason
    from aca_tokend.core.token import Document

PREFIX = "aca_tokend_"

ROTATION_RESULTS = ("rotated", "adopted", "failed", "skipped")
PUBLISH_RESULTS = tuple(result.value for result in PublishResult)
# So many series make one piece of the page: few pieces, since each waits for the interpreter when it was packed; and
# small ones, since malloc keeps the memory of a few.
LINES_AT_ONCE = 2500
SUSPENDING_REASONS = tuple(sorted(reason.value for reason in REJECTED))


class SinkView(NamedTuple):
    """What one sink of a token holds as far as we know; None where it holds no token of ours."""

    name: str
    kind: str
    issued_at: datetime | None
    expires_at: datetime | None


class TokenView(NamedTuple):
    """One token at the moment of looking.

    `rotate_at` is its rotation point and `expires_at` when it expires, in wall seconds as the clock goes now, both 0
    where none is held: a clock that was stepped since it was published changes neither. `settled`: an attempt has
    ended, perhaps to wait; before, nobody knows what is published, or a first token is on its way there.
    """

    token: str
    document: Document | None
    rotate_at: float
    expires_at: float
    suspended: Reason | None
    consecutive_failures: int
    sinks: tuple[SinkView, ...]
    settled: bool

    @property
    def valid_until(self) -> float:
        """Until when every reader of this token finds a valid one; 0 where a sink holds none."""
        ours = self.document.expires_at if self.document else None
        ends = (self.expires_at if sink.expires_at == ours else _seconds(sink.expires_at) for sink in self.sinks)
        return min(ends, default=0.0)


# How often each of a few pairs has happened. A token has one or two of them, for which a dict takes twice the room.
Tally = tuple[tuple[str, str, int], ...]


def _one_more(tally: Tally, first: str, second: str) -> Tally:
    for index, (one, other, count) in enumerate(tally):
        if (one, other) == (first, second):
            return (*tally[:index], (one, other, count + 1), *tally[index + 1 :])
    return (*tally, (first, second, 1))


@dataclass(slots=True)  # no dict for each: there are thousands of tokens
class Counts:
    """What has been counted of one token. The caller holds a lock for each change."""

    rotated: int = 0
    adopted: int = 0
    failed: int = 0
    skipped: int = 0
    published: Tally = ()
    errors: Tally = ()
    last_success: float = 0.0
    published_at: float = 0.0
    unavailable_seconds: float = 0.0
    valid_until: float = 0.0
    counted_until: float = 0.0

    def publish(self, sink: str, result: PublishResult) -> None:
        """Counts what became of a publish."""
        self.published = _one_more(self.published, sink, result.value)

    def error(self, failure: Failure) -> None:
        """Counts a step that failed."""
        self.errors = _one_more(self.errors, failure.step.value, failure.reason.value)

    def unavailable(self, valid_until: float, now: float) -> None:
        """Counts that part of the time since the last count in which a sink held no valid token.

        The token may have expired and been replaced since: the gap then goes from its old expiration to the publish.
        """
        if self.counted_until:
            ended = now if valid_until <= now else min(self.published_at, now)
            gap = ended - max(self.valid_until, self.counted_until)
            if gap > 0.0:  # else there would be another number in memory for each token
                self.unavailable_seconds += gap
        self.valid_until = valid_until
        self.counted_until = now


class Row(NamedTuple):
    """One token while a page is written: `label` is its label, escaped."""

    view: TokenView
    counts: Counts
    label: str
    now: float


class Family(NamedTuple):
    """The series of one name, for every token. `samples` gives the further labels and the values of one token."""

    name: str
    kind: str
    meaning: str
    samples: Callable[[Row], Iterable[tuple[str, float]]]

    def texts(self, rows: Sequence[Row], *, openmetrics: bool) -> Iterator[str]:
        """This family's part of the page, in pieces: each is small, however many tokens there are."""
        name, samples = PREFIX + self.name, self.samples
        family = name.removesuffix("_total") if openmetrics else name
        yield f"# HELP {family} {self.meaning}\n# TYPE {family} {self.kind}\n"
        lines = (f"{name}{{{row.label}{further}}} {value}\n" for row in rows for further, value in samples(row))
        while piece := "".join(islice(lines, LINES_AT_ONCE)):
            yield piece


def token_label(name: str) -> str:
    """The label that every series of a token begins with."""
    return f'token="{_escaped(name)}"'


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0


def _one(value: Callable[[Row], float]) -> Callable[[Row], Iterable[tuple[str, float]]]:
    return lambda row: (("", value(row)),)


def _suspended(row: Row) -> Iterator[tuple[str, float]]:
    for reason in SUSPENDING_REASONS:
        yield f',reason="{reason}"', int(row.view.suspended == reason)


def _rotations(row: Row) -> Iterator[tuple[str, float]]:
    for result in ROTATION_RESULTS:
        yield f',result="{result}"', getattr(row.counts, result)


def _errors(row: Row) -> Iterator[tuple[str, float]]:
    for step, reason, count in row.counts.errors:
        yield f',step="{step}",reason="{reason}"', count


def _published(row: Row) -> Iterator[tuple[str, float]]:
    counts = {(sink, result): count for sink, result, count in row.counts.published}
    for sink in row.view.sinks:
        label = f',sink="{_escaped(sink.name)}",result='
        for result in PUBLISH_RESULTS:
            yield f'{label}"{result}"', counts.get((sink.name, result), 0)


def _sink_expires(row: Row) -> Iterator[tuple[str, float]]:
    for sink in row.view.sinks:
        yield f',sink="{_escaped(sink.name)}"', _seconds(sink.expires_at)


def _sink_issued(row: Row) -> Iterator[tuple[str, float]]:
    for sink in row.view.sinks:
        yield f',sink="{_escaped(sink.name)}"', _seconds(sink.issued_at)


FAMILIES = tuple(
    Family(name, "counter" if name.endswith("_total") else "gauge", meaning, samples)
    for name, meaning, samples in (
        (
            "token_issued_timestamp_seconds",
            "When the current token was issued; 0 while there is none.",
            _one(lambda row: _seconds(row.view.document.issued_at) if row.view.document else 0.0),
        ),
        (
            "token_expiration_timestamp_seconds",
            "When the current token expires; 0 while there is none.",
            _one(lambda row: row.view.expires_at),
        ),
        (
            "token_rotation_timestamp_seconds",
            "The rotation point of the current token; 0 while there is none.",
            _one(lambda row: row.view.rotate_at),
        ),
        (
            "token_ttl_seconds",
            "The life left to the current token when scraped: negative once it has expired, 0 while there is none.",
            _one(lambda row: row.view.expires_at - row.now if row.view.document else 0.0),
        ),
        (
            "token_outage_tolerance_seconds",
            "How long the endpoint may be out from the rotation point on: expiration minus rotation point.",
            _one(lambda row: row.view.expires_at - row.view.rotate_at),
        ),
        (
            "token_ready",
            "1 while every sink holds a token that has not expired.",
            _one(lambda row: int(row.view.valid_until > row.now)),
        ),
        (
            "token_suspended",
            "1 while the token is suspended because the server refused it for this reason.",
            _suspended,
        ),
        (
            "token_consecutive_failures",
            "Failed attempts since the last success.",
            _one(lambda row: row.view.consecutive_failures),
        ),
        (
            "token_last_success_timestamp_seconds",
            "When this process last rotated or adopted the token; 0 before the first time.",
            _one(lambda row: row.counts.last_success),
        ),
        (
            "token_unavailable_seconds_total",
            "Time in which at least one sink held no valid token.",
            _one(lambda row: row.counts.unavailable_seconds),
        ),
        ("rotations_total", "Attempts that ended, by result.", _rotations),
        (
            "rotation_errors_total",
            "Steps that failed; a pair of step and reason appears once it has happened.",
            _errors,
        ),
        ("publish_total", "What became of the publishes to each sink.", _published),
        (
            "published_expiration_timestamp_seconds",
            "When the token that the sink holds expires; 0 while it holds none of ours.",
            _sink_expires,
        ),
        (
            "published_issued_timestamp_seconds",
            "When the token that the sink holds was issued; 0 while it holds none of ours.",
            _sink_issued,
        ),
    )
)
