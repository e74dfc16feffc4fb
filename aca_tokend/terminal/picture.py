"""The status in the terminal: what needs a person first, then token by token, worst first.

Whatever a value holds is printed as text: no markup, no colour, no control character of it takes effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from aca_tokend.core.saying import clock, relative, span, tokens, unsaid
from aca_tokend.core.status import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from rich.console import RenderableType

    from aca_tokend.core.status import DaemonStatus, EndpointStatus, StatusPage, TokenPage, TokenStatus, VaultStatus

STYLES = {
    State.EXPIRED: "bold red",
    State.SUSPENDED: "bold magenta",
    State.FAILING: "yellow",
    State.STARTING: "dim",
    State.READY: "green",
}
# So many lines of tokens that are well; what is not is always shown.
WELL_LINES = 40
# The bar has room from this width of the terminal on.
BAR_FROM = 110
BAR_WIDTH = 20


def plain(value: object) -> str:
    """A value as text in which nothing acts: control characters, and those that turn the direction, are replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value))


def page(status: StatusPage, width: int) -> Group:
    """The whole."""
    parts: list[RenderableType] = [_verdict(status), *_above(status.daemon, status.endpoints, status.vaults), Text()]
    shown = [token for token in status.tokens if token.state is not State.READY]
    shown += [token for token in status.tokens if token.state is State.READY][: max(WELL_LINES - len(shown), 0)]
    parts.append(_tokens(status, shown, width))
    left = status.matching - len(shown)
    if left > 0:
        parts.append(Text(f"… and {left} more, no worse than the last of these", "dim"))
    return Group(*parts)


def _verdict(status: StatusPage) -> Text:
    total = status.daemon.tokens
    if status.need_a_person:
        needs = f"{status.need_a_person} of {tokens(total)} need{'s' * (status.need_a_person == 1)} a person"
        text = Text(needs, "bold red")
    elif status.needs_a_person:
        text = Text("no token needs a person, but something else does", "bold red")
    else:
        text = Text("nobody is needed", "bold green")
    counts = ", ".join(f"{number} {state}" for state, number in status.counts.items() if number)
    text.append(f"  {counts or tokens(0)}", "not bold default")
    text.append(f"  at {status.now:%H:%M:%S} UTC{_of_shard(status.daemon)}", "dim not bold default")
    return text


def _of_shard(daemon: DaemonStatus) -> str:
    return "" if daemon.shard is None else f", shard {daemon.shard} of {daemon.shards}"


def _above(daemon: DaemonStatus, endpoints: list[EndpointStatus], vaults: list[VaultStatus]) -> Iterator[Text]:
    """What is wrong beyond single tokens."""
    for problem in daemon.problems:
        yield _trouble("daemon", problem, "restart it, and report what its log says")
    for problem in daemon.config.problems:
        yield _trouble("configuration", problem, "mend it; until then the one before is in effect")
    for endpoint in endpoints:
        if endpoint.summary:
            yield _trouble(f"acaengine.{endpoint.name}", endpoint.summary, endpoint.advice, endpoint.needs_a_person)
    for vault in vaults:
        if vault.summary:
            yield _trouble(f"vault.{vault.name}", vault.summary, vault.advice, vault.needs_a_person)


def _trouble(place: str, summary: str, advice: str | None, urgent: bool = True) -> Text:
    text = Text(plain(place), "bold red" if urgent else "yellow")
    text.append(f"  {plain(summary)}", "not bold default")
    if advice:
        text.append(f"\n  → {plain(advice)}", "not bold default")
    return text


def _tokens(status: StatusPage, shown: Iterable[TokenStatus], width: int) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(width=9, no_wrap=True)
    table.add_column(overflow="fold", max_width=max(width // 4, 12))
    if bars := width >= BAR_FROM:
        table.add_column(width=BAR_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    for token in shown:
        said = Text(plain(token.summary))
        if advice := _advice(token, status):
            said.append(f"\n→ {plain(advice)}")
        state = token.state.upper() if token.needs_a_person else token.state
        bar = [_bar(token, status.now)] if bars else []
        table.add_row(Text(state, STYLES[token.state]), Text(plain(token.name)), *bar, said)
    return table


def _advice(token: TokenStatus, status: StatusPage) -> str | None:
    """What to do, where somebody is needed for this token alone: not what was said above of its server."""
    if not token.needs_a_person:
        return None
    if token.suspended is not None:
        return unsaid(token.suspended.advice, token.summary)
    wide = {server.reason for server in status.endpoints if server.name == token.endpoint}
    wide |= {server.reason for server in status.vaults}
    for trouble in (token.last, *token.sinks, *token.hooks):
        if trouble is not None and trouble.advice and trouble.reason not in wide:
            return unsaid(trouble.advice, token.summary)
    return None


def _bar(token: TokenStatus, now: datetime) -> Text:
    """From issue to expiry: what has passed, where the rotation point is, and where we are."""
    issued, rotate, expires = token.issued_at, token.rotate_at, token.expires_at
    if issued is None or rotate is None or expires is None or expires <= issued:
        return Text("·" * BAR_WIDTH, "dim")
    life = expires - issued
    here = min(max(int((now - issued) / life * BAR_WIDTH), 0), BAR_WIDTH - 1)
    point = min(max(int((rotate - issued) / life * BAR_WIDTH), 0), BAR_WIDTH - 1)
    bar = ["━" if cell <= here else "─" for cell in range(BAR_WIDTH)]
    bar[point] = "┿" if point <= here else "┼"
    bar[here] = "╸" if point != here else "┽"
    return Text("".join(bar), STYLES[token.state])


def one(status: TokenPage) -> Group:
    """All of one token."""
    token, now = status.token, status.now
    head = Text(plain(token.name), "bold")
    head.append(f"  {token.state}", STYLES[token.state])
    head.append(f"  {plain(token.summary)}", "not bold default")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in _rows(status):
        table.add_row(Text(plain(name)), Text(plain(value)))
    above = list(_above(status.daemon, [status.endpoint], status.vaults))
    return Group(head, *above, Text(f"at {now:%H:%M:%S} UTC{_of_shard(status.daemon)}", "dim"), table)


def _rows(status: TokenPage) -> Iterator[tuple[str, str]]:
    token, now = status.token, status.now
    for at, name in (
        (token.issued_at, "issued"),
        (token.rotate_at, "rotation point"),
        (token.expires_at, "expires"),
        (token.safe_until, "readers safe until"),
        (token.next_attempt_at, "next attempt"),
    ):
        yield name, _when(at, now)
    if token.outage_tolerance_seconds is not None:
        yield "outage tolerance", span(token.outage_tolerance_seconds)
    yield "account", " ".join(filter(None, (token.username, "of", token.authority, "at", token.endpoint)))
    yield "failures running", str(token.consecutive_failures)
    if token.suspended is not None:
        yield "suspended", f"{token.suspended.reason}; {token.suspended.advice}"
        yield "resumes", token.suspended.resumes
    if token.last is not None:
        last = token.last
        words = (last.step and f"step {last.step}", last.reason, last.message, last.request_id)
        yield "last result", "; ".join([f"{last.result} {_when(last.at, now)}", *(str(it) for it in words if it)])
        if last.advice:
            yield "", f"→ {last.advice}"
    for sink in token.sinks:
        yield sink.name, f"expires {_when(sink.expires_at, now)}" if sink.expires_at else "holds no token of ours"
        if not sink.ok:
            yield "", f"step {sink.step}; {sink.reason}; {sink.message}"
            yield "", f"→ {sink.advice}"
    for hook in token.hooks:
        yield f"hook {hook.name}", f"failed {hook.failures} times; {hook.reason}; {hook.message}"
        yield "", f"→ {hook.advice}"
    if token.runbook:
        yield "runbook", token.runbook


def _when(at: datetime | None, now: datetime) -> str:
    return "-" if at is None else f"{clock(at, now)} ({relative(at, now)})"
