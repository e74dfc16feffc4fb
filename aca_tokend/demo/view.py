"""What the demo shows: a live picture on a terminal, plain lines elsewhere.

It draws what it is given. It starts nothing, decides nothing, and is given no secret.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from aca_tokend.demo.journal import TokenState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import ConsoleOptions, RenderableType, RenderResult
    from rich.status import Status

    from aca_tokend.demo.journal import Entry, Journal, TokenLife
    from aca_tokend.demo.outage import Outage
    from aca_tokend.demo.reader import Reader

FRAMES_A_SECOND = 4
PROGRESS_SECONDS = 5.0
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
    def reads(self) -> str:
        """The reads in words."""
        return (
            f"{self.accepted + self.refused:,} reads by {len(self.readers)} readers, {self.refused:,} refused, "
            f"{self.tokens_seen} different tokens seen"
        )


class Screen(Protocol):
    """Where the demo is shown."""

    def __enter__(self) -> Self:
        """Begins."""

    def __exit__(self, *_: object) -> None:
        """Leaves the terminal as it was."""

    def step(self, text: str) -> None:
        """Something begins that takes a moment."""

    def tell(self, text: str) -> None:
        """Something to be kept in view."""

    def draw(self, scene: Scene) -> None:
        """The demo as it is now; called four times a second."""


def screen() -> Screen:
    """A live picture on a terminal that can show one, plain lines elsewhere."""
    # a character that the terminal's encoding lacks is no reason to end
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # TextIO has it not, the real one has
    console = Console(highlight=False)
    return LiveScreen(console) if sys.stdout.isatty() and not console.is_dumb_terminal else PlainScreen()


class PlainScreen:
    """One line for each event, and one every few seconds that says how it goes."""

    def __init__(self) -> None:
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, text: str) -> None:
        """One line."""
        typer.echo(f"{text} ...")

    def tell(self, text: str) -> None:
        """One line."""
        typer.echo(text)

    def draw(self, scene: Scene) -> None:
        """The lines that are new."""
        for entry in scene.journal.news():
            typer.echo(_line(entry))
        if scene.elapsed - self._last >= PROGRESS_SECONDS:
            self._last = scene.elapsed
            now = time.time()
            left = ", ".join(f"{token.name} {_left(token, now)}" for token in scene.journal.tokens.values())
            typer.echo(f"{scene.elapsed:6.1f} s  left: {left}; {scene.reads}")


class LiveScreen:
    """A picture that is drawn anew in its place, below the lines that are kept."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for shown in (self._status, self._live):
            if shown is not None:
                shown.stop()
        self._status = self._live = None

    def step(self, text: str) -> None:
        """A spinner with the text, in place of any picture."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        self._status.update(f"{text} ...")

    def tell(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text)

    def draw(self, scene: Scene) -> None:
        """The picture."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(picture(scene, time.time(), self._console.height), refresh=True)


def picture(scene: Scene, now: float, height: int) -> RenderableType:
    """The demo at one moment, for a terminal of so many rows. `now` is wall time."""
    count = min(max(height - OTHER_ROWS, EVENTS_AT_LEAST), EVENTS_AT_MOST)
    events = list(scene.journal.entries)[-count:]
    return Group(
        _head(scene),
        "",
        _tokens(scene.journal, now),
        "",
        Text(scene.reads, style="bold red" if scene.refused else "bold green"),
        Text(scene.outage.text(), style="yellow" if scene.outage.running else ""),
        "",
        Text("Last events", style="bold"),
        *(Text(_line(entry), no_wrap=True, overflow="ellipsis") for entry in events),
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


def _tokens(journal: Journal, now: float) -> Table:
    scale = Table.grid(Column(), Column(ratio=1, justify="center"), Column(), expand=True)
    scale.add_row("issued", "now ●  rotation point ┃", "expiry")
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
            Bar(token, now),
            _left(token, now),
            str(token.rotations),
        )
    return table


def _places(places: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(Column(style="bold"), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, place in places:
        table.add_row(name, Text(place))
    return table


def _line(entry: Entry) -> str:
    return f"{entry.seconds:6.1f} s  {entry.text}"


def _left(token: TokenLife, now: float) -> str:
    """The seconds until the token expires."""
    return f"{token.expires_at - now:.1f} s" if token.granted else "-"


@dataclass(frozen=True, slots=True)
class Bar:
    """The life of a token from issue to expiry, with its rotation point and now."""

    token: TokenLife
    now: float

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """As wide as there is room."""
        width = options.max_width
        lived, ahead, rotation, present = "=-|o" if options.ascii_only else "━─┃●"
        if not self.token.granted:
            yield Text(ahead * width, style="dim")
            return
        here, turn = self._place(self.now, width), self._place(self.token.rotate_at, width)
        style = STYLES[self.token.state(self.now)]
        bar = Text(lived * here, style=style) + Text(ahead * (width - here), style="dim")
        for place, sign, look in ((turn, rotation, "bold"), (here, present, f"bold {style}")):
            bar = bar[:place] + Text(sign, style=look) + bar[place + 1 :]
        yield bar

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        """Any width will do."""
        return Measurement(BAR_AT_LEAST, options.max_width)

    def _place(self, moment: float, width: int) -> int:
        share = (moment - self.token.issued_at) / (self.token.expires_at - self.token.issued_at)
        return round(min(max(share, 0.0), 1.0) * (width - 1))
