"""Where the demo is shown: a picture that is drawn anew on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from io import TextIOWrapper
from typing import TYPE_CHECKING, Protocol, Self

import typer
from rich.console import Console
from rich.live import Live

from aca_tokend.demo.view import left, line, picture

if TYPE_CHECKING:
    from rich.status import Status

    from aca_tokend.demo.view import Scene

FRAMES_A_SECOND = 4
PROGRESS_SECONDS = 5.0


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
    stream = sys.stdout
    if not isinstance(stream, TextIOWrapper):  # None where standard output is closed
        return PlainScreen()
    stream.reconfigure(errors="replace")  # a character that the terminal does not know is no reason to end
    console = Console(highlight=False)
    return LiveScreen(console) if stream.isatty() and not console.is_dumb_terminal else PlainScreen()


class PlainScreen:
    """One line for each event, and one every few seconds that says how it goes."""

    def __init__(self) -> None:
        self._last: float | None = None

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
        if self._last is None:
            self._last = scene.elapsed
            for name, place in scene.places:
                typer.echo(f"{name}: {place}")
        for entry in scene.journal.news():
            typer.echo(line(entry))
        if scene.elapsed - self._last >= PROGRESS_SECONDS:
            self._last = scene.elapsed
            now = time.time()
            lives = ", ".join(f"{token.name} {left(token, now)}" for token in scene.journal.tokens.values())
            typer.echo(f"{scene.elapsed:6.1f} s  left: {lives}; {scene.use}")


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
            self._status = self._console.status("", spinner="line")
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
        self._live.update(picture(scene, time.time(), self._console), refresh=True)
