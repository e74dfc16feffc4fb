"""`aca-tokend status`: asks a running daemon how its tokens are, and says it in the terminal.

Exit codes: 0 nobody is needed, 1 something needs a person, 2 the call is wrong or nobody answers.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aca_tokend.bell import Bell, handle_signals
from aca_tokend.terminal import picture
from aca_tokend.terminal.client import Address, AskError, ask_all, ask_one
from aca_tokend.terminal.picture import plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from aca_tokend.core.config import AdminConfig

__all__ = ["AskError", "address", "plain", "show", "watch"]

# How often `--watch` asks.
WATCH_SECONDS = 2.0
# Elsewhere than on a terminal a line is as long as what it says.
NO_TERMINAL_WIDTH = 4000


@dataclass(frozen=True, slots=True)
class Answer:
    """What there is to show, the JSON of it, and the exit code."""

    shown: RenderableType
    read: Any
    code: int


def address(admin: AdminConfig | None, url: str, client: tuple[str, str]) -> Address:
    """Where to ask: at `url`, or else at the listener of a configuration. Raises AskError."""
    found = Address.parse(url) if admin is None else Address.of(admin)
    return replace(found, client=client)


def ask(address: Address, name: str | None, width: int) -> Answer:
    """Asks once. Raises AskError."""
    if name is None:
        status, read = ask_all(address)
        return Answer(picture.page(status, width), read, int(status.needs_a_person))
    one, read = ask_one(address, name)
    return Answer(picture.one(one), read, int(one.token.needs_a_person))


def show(address: Address, name: str | None, *, as_json: bool) -> int:
    """Asks once and prints. Returns the exit code. Raises AskError."""
    console = _console()
    answer = ask(address, name, console.width if console.is_terminal else 0)
    if as_json:
        sys.stdout.write(json.dumps(answer.read, indent=2) + "\n")
    elif console.is_terminal:
        console.print(answer.shown)
    else:
        console.width = NO_TERMINAL_WIDTH
        with console.capture() as captured:
            console.print(answer.shown)
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    return answer.code


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def watch(address: Address, name: str | None) -> int:
    """Asks again and again until interrupted. Returns the exit code of the last answer. Raises AskError at first."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    console = _console()
    answer = ask(address, name, console.width)
    code = answer.code
    # an interrupt is noticed between two looks: one amid what is drawn could leave the terminal locked
    bell = Bell()
    handle_signals(bell)
    with Live(answer.shown, console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            bell.wait(WATCH_SECONDS)
            if bell.stop:
                return code
            try:
                answer = ask(address, name, console.width)
                shown, code = answer.shown, answer.code
            except AskError as error:
                shown, code = Group(Text(picture.plain(error.message), "bold red"), answer.shown), 2
            live.update(shown, refresh=True)
