"""Counts what it is told and writes the page. It decides nothing, and never does I/O."""

from __future__ import annotations

import re
import threading
import zlib
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder

from aca_tokend.core.login import LoggedIn, LoginEvent, LoginFailed, Renewed
from aca_tokend.core.outcome import (
    Adopted,
    Event,
    Failed,
    Granted,
    HookRan,
    Published,
    PublishResult,
    Reason,
    Rotated,
    Skipped,
    Step,
    Unexpected,
)
from aca_tokend.metrics._registry import LOGIN_RESULTS, Registry
from aca_tokend.metrics._tokens import FAMILIES, Counts, Row, token_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.registry import Collector

    from aca_tokend.metrics._tokens import TokenView

# The answers of a server that does the work of an OAuth provider, be it to refuse.
UP_CODES = frozenset({"200", "400", "401"})

# To count unavailable time, all tokens are walked through: not before one of them may have expired, not more often than
# the first of these while one has, and no less often than the second. What lies between is worked out, not lost.
WALK_AT_MOST_EVERY_SECONDS = 5.0
WALK_AT_LEAST_EVERY_SECONDS = 15.0

# More would take longer than it saves: the page is mostly the same words.
PACKING_LEVEL = 1

_ODD_VERSION = re.compile(r"version\s*=\s*(?!\d{1,3}\.\d{1,3}\.\d{1,3}\s*(?:[;,]|$))")
# Each sink that cannot be read or written has told of it by itself.
_TOLD_BY_SINKS = frozenset({Step.LOOK, Step.PUBLISH})
_EOF = b"# EOF\n"


class Metrics:
    """Everything that is measured. Every method may be called from several threads at once.

    Args:
        views: the tokens that there are, as they are now.
        wall: the wall clock, in seconds since 1970.
        endpoints: the names of the endpoints.
        vaults: the log-in method of each Vault, by its name.
    """

    def __init__(
        self,
        views: Callable[[], Iterable[TokenView]],
        wall: Callable[[], float],
        endpoints: Iterable[str],
        vaults: Mapping[str, str],
    ) -> None:
        self._views = views
        self._wall = wall
        self._registry = Registry(endpoints, vaults)
        self._counts: dict[str, Counts] = {}
        self._counting = threading.Lock()  # held for each change of `_counts` and of what is in it
        self._known: set[str] = set()
        self._walking = threading.Lock()  # held while all tokens are walked through, so that no time counts twice
        self._walk_at = 0.0
        self.observe_reload(True)

    def follow(self, endpoints: Iterable[str], vaults: Mapping[str, str]) -> None:
        """The configuration has these by now: the series of what left vanish, those of what is new begin."""
        self._registry.follow(endpoints, vaults)

    def observe_reload(self, succeeded: bool) -> None:
        """Notes whether the configuration was well when it was last read."""
        self._registry.reload_successful.set(succeeded)
        if succeeded:
            self._registry.reloaded_at.set(self._wall())

    def observe(self, event: Event) -> None:
        """Counts one event of a rotation."""
        match event:
            case Rotated():
                self._succeeded(event)
                self._registry.rotation.observe(event.duration_seconds)
            case Adopted():
                self._succeeded(event)
            case Failed():
                self._failed(event)
            case Skipped():
                with self._counting:
                    self._of(event.token).skipped += 1
            case Published():
                self._published(event)
            case Granted():
                self._granted(event)
            case HookRan():
                self._hook_ran(event)
            case Unexpected() if event.reason is Reason.INTERNAL_ERROR:
                self._registry.internal_errors.labels(event.component).inc()
            case _:
                pass  # Suspended follows a Failed; that and Resumed are read from the views

    def observe_dropped_lines(self, count: int) -> None:
        """Counts lines of the log that were not written."""
        self._registry.lines_dropped.inc(count)

    def observe_lag(self, seconds: float) -> None:
        """Counts how much later than due an attempt began."""
        self._registry.lag.observe(max(0.0, seconds))

    def observe_demand(self, endpoint: str, ratio: float) -> None:
        """Notes what is asked of an endpoint, as a share of what it gives."""
        self._registry.demand.labels(endpoint).set(ratio)

    def observe_login(self, event: LoginEvent) -> None:
        """Counts a log-in to a Vault, and notes when our token there expires."""
        if isinstance(event, LoggedIn | LoginFailed):
            result = LOGIN_RESULTS[0 if isinstance(event, LoggedIn) else 1]
            self._registry.logins.labels(event.vault, event.method, result).inc()
            self._registry.login_successful.labels(event.vault).set(isinstance(event, LoggedIn))
        if isinstance(event, LoggedIn | Renewed):
            expires_at = float("inf") if event.expires_at is None else event.expires_at
            self._registry.vault_expires.labels(event.vault).set(expires_at)
            self._registry.vault_issued.labels(event.vault).set(self._wall())

    def tick(self, now: float) -> None:
        """Counts unavailable time. Called about once a second; cheap while no token can have expired."""
        if now >= self._walk_at:
            self._walk(self._views(), now)

    def exposition(self, accept: str, compressed: bool = False) -> tuple[bytes, str]:
        """The page and its content type: OpenMetrics where the Accept header asks for it, else the older text.

        With `compressed` by gzip, while it is written: ten thousand tokens make 20 MB, which then never exist at once.
        """
        # the library raises on a version that is none, and repeats one in the content type
        encode, content_type = choose_encoder("" if _ODD_VERSION.search(accept) else accept)
        pieces = self._pieces(encode, openmetrics=content_type.startswith("application/openmetrics-text"))
        if not compressed:
            return b"".join(pieces), content_type
        packer = zlib.compressobj(PACKING_LEVEL, wbits=zlib.MAX_WBITS | 16)  # with the head and the end of gzip
        packed = [part for piece in pieces if (part := packer.compress(piece))]
        return b"".join((*packed, packer.flush())), content_type

    def _pieces(self, encode: Callable[[Collector], bytes], *, openmetrics: bool) -> Iterator[bytes]:
        views, now = list(self._views()), self._wall()
        self._walk(views, now)
        yield encode(self._registry.collectors).removesuffix(_EOF)
        rows = [self._row(view, now) for view in views]
        for family in FAMILIES:
            for text in family.texts(rows, openmetrics=openmetrics):
                yield text.encode()
        if openmetrics:
            yield _EOF

    def _row(self, view: TokenView, now: float) -> Row:
        with self._counting:
            return Row(view, self._of(view.token), token_label(view.token), now)

    def _of(self, token: str) -> Counts:
        counts = self._counts.get(token)
        if counts is None:
            counts = self._counts[token] = Counts()
        return counts

    def _succeeded(self, event: Rotated | Adopted) -> None:
        now = self._wall()
        with self._counting:
            counts = self._of(event.token)
            counts.last_success = now
            if isinstance(event, Rotated):
                counts.rotated += 1
            else:
                counts.adopted += 1
                counts.published_at = now

    def _failed(self, event: Failed) -> None:
        with self._counting:
            counts = self._of(event.token)
            counts.failed += 1
            if event.failure.step not in _TOLD_BY_SINKS:
                counts.error(event.failure)

    def _published(self, event: Published) -> None:
        now = self._wall()
        with self._counting:
            counts = self._of(event.token)
            counts.publish(event.sink, event.result)
            if event.failure is not None:
                counts.error(event.failure)
            else:
                counts.published_at = now
        if event.result is PublishResult.WRITTEN:
            self._registry.publish.labels(event.kind).observe(event.duration_seconds)

    def _granted(self, event: Granted) -> None:
        self._registry.grant.labels(event.endpoint, event.code).observe(event.duration_seconds)
        self._registry.endpoint_up.labels(event.endpoint).set(event.code in UP_CODES)
        if event.skew_seconds is not None:
            self._registry.skew.labels(event.endpoint).set(event.skew_seconds)

    def _hook_ran(self, event: HookRan) -> None:
        if event.failure is not None:
            with self._counting:
                for token in event.tokens:
                    self._of(token).error(event.failure)

    def _walk(self, views: Iterable[TokenView], now: float) -> None:
        """Counts the unavailable time of every token that is settled, and forgets the tokens that left."""
        with self._walking:
            earliest = now + WALK_AT_LEAST_EVERY_SECONDS
            names: set[str] = set()
            for view in views:
                names.add(view.token)
                if not view.settled:
                    earliest = now
                    continue
                valid_until = view.valid_until
                earliest = min(earliest, valid_until)
                with self._counting:
                    self._of(view.token).unavailable(valid_until, now)
            self._walk_at = max(earliest, now + WALK_AT_MOST_EVERY_SECONDS)
            with self._counting:
                # Not one that came since the views were taken; but again what an attempt told that ended after it left.
                left = self._counts.keys() - names
                for gone in left & self._known:
                    del self._counts[gone]
            self._known = names | left
