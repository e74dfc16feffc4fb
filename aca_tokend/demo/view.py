"""What there is to see of the demo, and the picture of it that a terminal shows.

It draws what it is given: it starts nothing, asks nobody, and is given no secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Group
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from aca_tokend.demo.journal import TokenState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from aca_tokend.demo.journal import Entry, Journal, TokenLife
    from aca_tokend.demo.outage import Outage
    from aca_tokend.demo.reader import Reader

# How many rows of the picture are no events, so that all of it fits a terminal of 24 rows.
OTHER_ROWS = 19
EVENTS_AT_LEAST = 2
EVENTS_AT_MOST = 10
BAR_AT_LEAST = 10
STYLES = {
    TokenState.NONE: "dim",
    TokenState.FRESH: "green",
    TokenState.DUE: "cyan",
    TokenState.RETRYING: "yellow",
    TokenState.SUSPENDED: "bold red",
    TokenState.EXPIRED: "bold red",
}


class Signs(NamedTuple):
    """What the bar of a life is drawn with."""

    lived: str
    ahead: str
    rotation: str
    now: str


SIGNS = Signs("━", "─", "┃", "●")
ASCII_SIGNS = Signs("=", "-", "|", "o")


@dataclass(slots=True)
class Scene:
    """All that can be seen of a demo that runs.

    Attributes:
        places: where to look for oneself, as pairs of a name and an address or a path.
        lifetime: of each token, in seconds.
        duration: how long the demo runs, None where until it is told to stop.
        elapsed: since the daemon was started.
    """

    journal: Journal
    readers: Sequence[Reader]
    outage: Outage
    places: Sequence[tuple[str, str]]
    lifetime: float
    duration: float | None
    elapsed: float = 0.0

    @property
    def over(self) -> bool:
        """Whether its time is up."""
        return self.duration is not None and self.elapsed >= self.duration

    @property
    def accepted(self) -> int:
        """How many reads the API accepted."""
        return sum(reader.accepted for reader in self.readers)

    @property
    def refused(self) -> int:
        """How many reads it refused."""
        return sum(reader.refused for reader in self.readers)

    @property
    def tokens_seen(self) -> int:
        """How many different tokens the readers met."""
        seen: dict[str, int] = {}
        for reader in self.readers:
            account = reader.name.rpartition(" ")[2]
            seen[account] = max(seen.get(account, 0), reader.tokens)
        return sum(seen.values())

    @property
    def reads(self) -> int:
        """How many reads were made."""
        return self.accepted + self.refused

    @property
    def use(self) -> str:
        """The reads in words."""
        return (
            f"{self.reads:,} reads of OpenBao and the files, {self.refused:,} refused, "
            f"{self.tokens_seen:,} different tokens seen"
        )


def picture(scene: Scene, now: float, console: Console) -> RenderableType:
    """The demo at one moment, for this terminal. `now` is wall time."""
    signs = ASCII_SIGNS if console.options.ascii_only else SIGNS
    count = min(max(console.height - OTHER_ROWS, EVENTS_AT_LEAST), EVENTS_AT_MOST)
    events = list(scene.journal.entries)[-count:]
    return Group(
        _head(scene),
        "",
        _tokens(scene.journal, now, signs),
        "",
        Text(scene.use, style="bold red" if scene.refused else "bold green"),
        Text(scene.outage.text(), style="yellow" if scene.outage.running else ""),
        "",
        Text("Last events", style="bold"),
        *(Text(line(entry), no_wrap=True, overflow="ellipsis") for entry in events),
        *([""] * (count - len(events))),
        "",
        _places(scene.places),
    )


def _head(scene: Scene) -> Table:
    head = Table.grid(Column(ratio=1, no_wrap=True), Column(justify="right", no_wrap=True), expand=True)
    of = "" if scene.duration is None else f" of {scene.duration:.0f} s"
    what = Text.assemble(
        ("aca-tokend demo", "bold"), f"  {len(scene.journal.tokens)} tokens, each valid for {scene.lifetime:.0f} s"
    )
    head.add_row(what, Text(f"{scene.elapsed:.0f} s{of}, Ctrl-C ends it"))
    return head


def _tokens(journal: Journal, now: float, signs: Signs) -> Table:
    scale = Table.grid(Column(), Column(ratio=1, justify="center"), Column(), expand=True)
    scale.add_row("issued", f"now {signs.now}  rotation point {signs.rotation}", "expiry")
    table = Table(
        Column("token", no_wrap=True),
        Column("state", min_width=9, no_wrap=True),
        Column(scale, ratio=1),
        Column("left", justify="right", min_width=6, no_wrap=True),
        Column("rotations", justify="right", no_wrap=True),
        box=None,
        expand=True,
        pad_edge=False,
        header_style="dim",
    )
    for token in journal.tokens.values():
        state = token.state(now)
        table.add_row(
            token.name,
            Text(state.value, style=STYLES[state]),
            Bar(token, now, signs),
            left(token, now),
            str(token.rotations),
        )
    return table


def _places(places: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(Column(style="bold"), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, place in places:
        table.add_row(name, Text(place))
    return table


def line(entry: Entry) -> str:
    """An event with its time."""
    return f"{entry.seconds:6.1f} s  {entry.text}"


def left(token: TokenLife, now: float) -> str:
    """The seconds until the token expires."""
    return f"{token.expires_at - now:.1f} s" if token.granted else "-"


@dataclass(frozen=True, slots=True)
class Bar:
    """The life of a token from issue to expiry, with its rotation point and now."""

    token: TokenLife
    now: float
    signs: Signs

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """As wide as there is room."""
        width = options.max_width
        signs = self.signs
        if not self.token.granted:
            yield Text(signs.ahead * width, style="dim")
            return
        here, turn = self._place(self.now, width), self._place(self.token.rotate_at, width)
        style = STYLES[self.token.state(self.now)]
        bar = Text(signs.lived * here, style=style) + Text(signs.ahead * (width - here), style="dim")
        for place, sign, look in ((turn, signs.rotation, "bold"), (here, signs.now, f"bold {style}")):
            bar = bar[:place] + Text(sign, style=look) + bar[place + 1 :]
        yield bar

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        """Any width will do."""
        return Measurement(BAR_AT_LEAST, options.max_width)

    def _place(self, moment: float, width: int) -> int:
        share = (moment - self.token.issued_at) / (self.token.expires_at - self.token.issued_at)
        return round(min(max(share, 0.0), 1.0) * (width - 1))
