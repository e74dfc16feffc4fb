"""What the status page says of a StatusPage: the verdict on top, what else is in trouble, links that keep the query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aca_tokend.core.outcome import Step
from aca_tokend.core.saying import relative, span, tokens, unsaid
from aca_tokend.core.status import PER_PAGE, Query, State

if TYPE_CHECKING:
    from datetime import datetime

    from aca_tokend.core.outcome import Reason
    from aca_tokend.core.status import EndpointStatus, StatusPage, TokenStatus, VaultStatus

# States in which something went wrong. A token that starts is no trouble yet.
ILL = (State.EXPIRED, State.SUSPENDED, State.FAILING)
# A clock that is off by less is not worth a word.
SKEW_WORTH_A_WORD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something beside tokens that is not well: an endpoint, a Vault, the configuration, the process."""

    what: str
    said: list[str]
    runbook: str | None
    needs_a_person: bool


@dataclass(frozen=True, slots=True)
class Culprit:
    """The step that failed for a token, why, and what a person can do about it."""

    step: Step
    reason: Reason
    advice: str


@dataclass(frozen=True, slots=True)
class Server:
    """One line on an endpoint or a Vault."""

    what: str
    said: str
    well: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """One state to filter by."""

    state: State
    count: int
    link: str
    current: bool


def address(query: Query, *, refreshing: bool) -> str:
    """The address of the page for a query."""
    pairs = [("state", state.value) for state in State if state in query.states]
    pairs += [("q", query.search)] if query.search else []
    pairs += [("page", str(query.page))] if query.page > 1 else []
    pairs += [("per_page", str(query.per_page))] if query.per_page != PER_PAGE else []
    pairs += [] if refreshing else [("refresh", "off")]
    return "/" + (f"?{urlencode(pairs)}" if pairs else "")


@dataclass(frozen=True, slots=True)
class Listing:
    """The status page.

    Attributes:
        page: the answer to `query`.
        first: the token that comes first of all, whatever is asked for; None where there are none.
        refreshing: whether the page loads itself again.
    """

    page: StatusPage
    first: TokenStatus | None
    query: Query
    refreshing: bool

    @property
    def worst(self) -> TokenStatus | None:
        """The token that the page begins with; None where none is in trouble."""
        return self.first if self.first is not None and self.first.state in ILL else None

    @property
    def tone(self) -> str:
        """How the verdict looks."""
        if self.worst is not None:
            return tone(self.worst)
        if self.troubles:
            return "alarm" if self.troubles[0].needs_a_person else State.FAILING
        return State.STARTING if self.page.counts[State.STARTING] or self.first is None else State.READY

    @property
    def headline(self) -> str:
        """The verdict in a few words; it is also the title of the page."""
        if self.worst is not None:
            return f"{self.worst.state}: {self.worst.name}"
        if self.troubles:
            return "Readers are safe, but not all is well" if self.first else "Not all is well"
        if self.first is None:
            return "No tokens are configured"
        return "Starting" if self.page.counts[State.STARTING] else "All well"

    @property
    def ill(self) -> int:
        """How many tokens are in trouble."""
        return sum(self.page.counts[state] for state in ILL)

    @property
    def troubles(self) -> list[Trouble]:
        """What is in trouble beside tokens, first what needs a person."""
        daemon = self.page.daemon
        found = [
            Trouble("The process", [problem, "a restart mends it"], None, needs_a_person=True)
            for problem in daemon.problems
        ]
        found += [_trouble(f"Endpoint {one.name}", one) for one in self.page.endpoints if one.summary]
        found += [_trouble(f"Vault {one.name}", one) for one in self.page.vaults if one.summary]
        if not daemon.config.ok:
            said = ["the last reload was refused, and what was loaded before stays in effect", *daemon.config.problems]
            found.append(Trouble("Configuration", said, daemon.config.runbook, needs_a_person=True))
        return sorted(found, key=lambda trouble: not trouble.needs_a_person)

    @property
    def servers(self) -> list[Server]:
        """A line on each endpoint and Vault."""
        endpoints = [Server(f"Endpoint {one.name}", _endpoint(one), one.summary is None) for one in self.page.endpoints]
        vaults = [
            Server(f"Vault {one.name}", _vault(one, self.page.now), one.summary is None) for one in self.page.vaults
        ]
        return endpoints + vaults

    # ── links ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def choices(self) -> list[Choice]:
        """Each state with its count and a link; the link of the only one that is chosen takes the filter away."""
        return [
            Choice(
                state,
                self.page.counts[state],
                self.link(page=1, states=set() if self.query.states == {state} else {state}),
                state in self.query.states,
            )
            for state in State
        ]

    def link(self, *, refreshing: bool | None = None, **changes: Any) -> str:  # noqa: ANN401 -- as the query has it
        """This page with another query; it loads itself again where this one does, unless told otherwise."""
        return address(replace(self.query, **changes), refreshing=self.refreshing if refreshing is None else refreshing)

    @property
    def before(self) -> str:
        """The page before, empty on the first."""
        page = min(self.page.page - 1, self.page.pages)
        return self.link(page=page) if page >= 1 else ""

    @property
    def after(self) -> str:
        """The next page, empty on the last."""
        page = self.page.page + 1
        return self.link(page=page) if page <= self.page.pages else ""


def _trouble(what: str, one: EndpointStatus | VaultStatus) -> Trouble:
    said = one.summary or ""
    return Trouble(what, [said, *([unsaid(one.advice, said)] if one.advice else [])], one.runbook, one.needs_a_person)


def _endpoint(one: EndpointStatus) -> str:
    works = {True: "works", False: "does not work", None: "not asked yet"}[one.up]
    parts = [one.url, works, tokens(one.tokens)]
    if one.waiting:
        parts.append(f"{tokens(one.waiting)} waiting")
    if one.clock_skew_seconds is not None and abs(one.clock_skew_seconds) >= SKEW_WORTH_A_WORD_SECONDS:
        side = "ahead of" if one.clock_skew_seconds > 0 else "behind"
        parts.append(f"its clock is {span(abs(one.clock_skew_seconds))} {side} ours")
    if one.demand_ratio is not None:
        parts.append(f"asked for {one.demand_ratio:.0%} of what it gives")
    return " · ".join(parts)


def _vault(one: VaultStatus, now: datetime) -> str:
    out = "no log-in was needed yet" if one.summary is None else "not logged in"
    parts = [f"logged in by {one.method}" if one.logged_in else f"{out} ({one.method})"]
    if one.logged_in:
        until = one.token_expires_at
        parts.append(f"our own token expires {relative(until, now)}" if until else "our own token does not expire")
    if one.failing:
        parts.append(f"{tokens(one.failing)} failing")
    return " · ".join(parts)


def tone(token: TokenStatus) -> str:
    """How the verdict on a token looks."""
    return "alarm" if token.needs_a_person else token.state


def culprit(token: TokenStatus) -> Culprit | None:
    """What a token in trouble suffers from; None where none is, or it only waits."""
    if token.state not in ILL:
        return None
    if token.suspended is not None:
        return Culprit(Step.GRANT, token.suspended.reason, unsaid(token.suspended.advice, token.summary))
    for one in (token.last, *token.sinks, *token.hooks):
        if one is not None and one.step is not None and one.reason is not None:
            return Culprit(one.step, one.reason, unsaid(one.advice or "", token.summary))
    return None
