"""The result of a simulation in the terminal: a timeline for each token, and what to make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from aca_tokend.core.durations import format_duration

if TYPE_CHECKING:
    from rich.console import Console

    from aca_tokend.simulation.run import Options, Result, TokenResult

# So many timelines are shown, the worst first.
MOST_SHOWN = 20
FRESH, OUT, REFUSED = "─", "░", "█"
STYLES = {FRESH: "green", OUT: "yellow", REFUSED: "bold red"}
# What the columns beside the timeline take, and the least that is left to it.
BESIDE = 40
LEAST_CELLS = 20
MOST_CELLS = 96
LONGEST_NAME = 18
COLUMNS = (
    "refused: for how long; failed: attempts that brought no token; "
    "survives: the longest outage that readers do not notice, from the worst moment on"
)
DAY = 86_400
HOUR = 3_600


def show(result: Result, console: Console) -> None:
    """Prints the verdict, the timelines of the worst tokens and what the marks mean."""
    options = result.options
    shown = result.worst(MOST_SHOWN)
    start, end = _window(options)
    name_width = min(max(len("token"), *(len(token.token) for token in shown)), LONGEST_NAME)
    cells = min(max(console.width - name_width - BESIDE, LEAST_CELLS), MOST_CELLS)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("token", width=name_width, overflow="fold")
    table.add_column(_axis(start, end, cells), width=cells, no_wrap=True)
    for name, width in (("refused", 7), ("grants", 6), ("failed", 6), ("survives", 8)):
        table.add_column(name, width=width, justify="right", no_wrap=True)
    for token in shown:
        table.add_row(
            token.token,
            timeline(token, options, (start, end), cells),
            _refused(token),
            str(token.grants),
            str(token.refused_attempts),
            _short(token.survived_seconds),
        )
    console.print(_headline(result))
    console.print()
    console.print(table)
    console.print()
    if len(shown) < len(result.tokens):
        console.print(f"The worst {len(shown)} of {len(result.tokens)} tokens; --json has them all.")
    for phase, names in _phases(result).items():
        console.print(f"Readers of {names} are refused where the outage begins {phase} after a token was issued.")
    console.print(Text.assemble(*_legend()))


def timeline(token: TokenResult, options: Options, window: tuple[float, float], cells: int) -> Text:
    """One mark for each cell of time, the worst that happened in it."""
    text = Text()
    start, end = window
    width = (end - start) / cells
    for cell in range(cells):
        left = start + cell * width
        right = left + width
        mark = FRESH
        if token.endpoint in options.endpoints and left < options.at + options.outage and options.at < right:
            mark = OUT
        if any(left < until and since < right for since, until in token.refused):
            mark = REFUSED
        text.append(mark, STYLES[mark])
    return text


def _window(options: Options) -> tuple[float, float]:
    """The outage with a lifetime on both sides."""
    start = max(0.0, options.at - options.lifetime)
    return start, min(options.until, options.at + options.outage + options.lifetime)


def _axis(start: float, end: float, cells: int) -> str:
    left, right = _clock(start), _clock(end)
    return left + " " * max(cells - len(left) - len(right), 1) + right


def _clock(seconds: float) -> str:
    day, rest = divmod(round(seconds), DAY)
    text = f"{rest // HOUR:02}:{rest % HOUR // 60:02}"
    return f"day {day + 1} {text}" if day else text


def _headline(result: Result) -> Text:
    options = result.options
    where = " and ".join(options.endpoints)
    what = f"{where} out for {_short(options.outage)} from {_clock(options.at)} on, "
    what += f"tokens of {_short(options.lifetime)}, {options.replicas} replica{'s' * (options.replicas != 1)}: "
    hit = sum(bool(token.refused) for token in result.tokens)
    if result.well:
        return Text.assemble(what, ("no reader would have been refused", "bold green"))
    if not hit:
        return Text.assemble(
            what, ("no reader refused from then on, but some had it begun at another moment", "bold red")
        )
    return Text.assemble(what, (f"readers of {hit} of {len(result.tokens)} tokens would have been refused", "bold red"))


def _phases(result: Result) -> dict[str, str]:
    """The phases in which such an outage must begin for readers to be refused, and the tokens that share each."""
    names: dict[str, list[str]] = {}
    for token in result.tokens:
        if (phase := result.refused_if_begins(token)) is not None:
            names.setdefault(f"{_short(phase[0])} to {_short(phase[1])}", []).append(token.token)
    return {phase: them[0] if len(them) == 1 else f"{len(them)} tokens" for phase, them in names.items()}


def _refused(token: TokenResult) -> Text:
    if not token.refused:
        return Text("never", "green")
    return Text(_short(token.refused_seconds), "bold red")


def _short(seconds: float) -> str:
    """Whole seconds below an hour, whole minutes above."""
    whole = round(seconds)
    if whole >= HOUR:
        whole = round(whole / 60) * 60
    return format_duration(float(whole))


def _legend() -> list[tuple[str, str] | str]:
    return [
        (FRESH, STYLES[FRESH]),
        " a valid token   ",
        (OUT, STYLES[OUT]),
        " the endpoint is out, the token still valid   ",
        (REFUSED, STYLES[REFUSED]),
        f" readers are refused\n{COLUMNS}",
    ]
