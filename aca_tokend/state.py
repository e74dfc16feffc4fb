"""What is known of each token: written by its own attempts alone, one at a time, so without a lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aca_tokend.core.config import TokenConfig
    from aca_tokend.core.outcome import Failure
    from aca_tokend.core.policy import Life
    from aca_tokend.core.ports import Sink, TokenEndpoint
    from aca_tokend.core.token import Document, Seen


# The stamp of a sink that we have not written to: equal to no other.
NOTHING = object()


@dataclass(slots=True)
class SinkState:
    """What is known of one sink of one token."""

    sink: Sink
    seen: Seen | None = None  # None: not read yet, or the last look failed
    seen_at: float = 0.0
    published: Document | None = None  # the token of ours it holds
    failure: Failure | None = None
    failing: bool = False  # a failure was told of, and no success since
    written: object = NOTHING  # the stamp of what we wrote there ourselves


@dataclass(slots=True)
class TokenState:
    """What is known of one token. Written by its own attempts alone; others may read single fields at any time.

    `rotate_at` is when the next grant is due, `publish_at` when the failed sinks are tried again (None: none failed),
    both in monotonic seconds; `draw` is this token's jitter, drawn once.
    """

    config: TokenConfig
    endpoint: TokenEndpoint
    sinks: tuple[SinkState, ...]
    draw: float
    rotate_at: float
    publish_at: float | None = None
    account: str = ""
    document: Document | None = None
    life: Life | None = None
    granted: Document | None = None  # the last token that was granted to us, and when we asked for it
    granted_at: float = 0.0
    failure: Failure | None = None
    failures: int = 0
    publish_failures: int = 0
    rejections: int = 0
    rejected_credential: str = ""
    suspended: Failure | None = None
    cautious_at: float | None = None
    poll_seconds: float = 5.0  # how often a suspended token looks whether its credential changed
    request_id: str | None = None
    rotating_since: float | None = None  # when the rotation began whose token has reached no sink yet
    settled: bool = False  # looked at, rotated or honestly failed at least once

    @property
    def name(self) -> str:
        """The configured name."""
        return self.config.name

    def due(self, now: float) -> bool:
        """Whether it is time for a grant, `now` in monotonic seconds."""
        return now >= self.rotate_at

    @property
    def urgency(self) -> float:
        """When readers meet an expired token; now, where nothing is published yet."""
        return self.life.expires if self.life else 0.0

    @property
    def published(self) -> bool:
        """Whether every sink holds the token that we hold."""
        return self.document is not None and all(sink.published == self.document for sink in self.sinks)
