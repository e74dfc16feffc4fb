"""One trouble through all instruments: what readers had, and what each said when, in minutes from its begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.status import State
from tests.truth.alerts import fired
from tests.truth.fleet import Fleet
from tests.truth.troubles import BEGINS, MINUTE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.truth.troubles import Trouble

# Before the earliest rotation point of a token, as a share of its life.
EARLIEST = 0.59
COLUMNS = ("Trouble", "Readers refused", "`token_ready` is 0", "Alerts", "Status", "Log, WARNING and above")
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"
CALM = "-"
# A trouble that is still felt at the end of the run.
_OPEN = "…"
_RANK = {state.value: number for number, state in enumerate(State)}


def row(trouble: Trouble) -> str:
    """One line of the table."""
    fleet = seen(trouble)
    cells = (
        f"{trouble.name}, {_minutes(trouble.lasts)}",
        _spans(fleet, _merged(fleet.unserved(fleet.begins))),
        _spans(fleet, _unready(fleet)),
        _alerts(fleet),
        _states(fleet),
        _lines(fleet),
    )
    return f"| {' | '.join(cells)} |"


def seen(trouble: Trouble) -> Fleet:
    """The fleet after it was through that."""
    fleet = Fleet(trouble.shape)
    fleet.begins = max(BEGINS, trouble.shape.lifetime * EARLIEST)
    fleet.skip(fleet.begins - BEGINS)
    fleet.run(fleet.begins)
    trouble.begin(fleet)
    fleet.run(fleet.begins + trouble.lasts)
    trouble.end(fleet)
    fleet.run(fleet.begins + trouble.lasts + trouble.follow)
    return fleet


def _minutes(seconds: float) -> str:
    """A length of time, or a moment counted from the begin of the trouble, rounded to what people tell."""
    if seconds >= 48 * 3600.0:
        return f"{seconds / 86400:.0f} d"
    return f"{seconds / MINUTE:.0f} min" if seconds >= MINUTE / 2 else "at once"


def _span(fleet: Fleet, begin: float, end: float) -> str:
    until = _OPEN if end >= fleet.world.now - 2 * fleet.shape.scrape else f"{max(end - fleet.begins, 0.0) / MINUTE:.0f}"
    return f"{max(begin - fleet.begins, 0.0) / MINUTE:.0f} to {until} min"


def _spans(fleet: Fleet, spans: Iterable[tuple[float, float]]) -> str:
    found = [_span(fleet, begin, end) for begin, end in spans]
    more = f" and {len(found) - 2} more" if len(found) > 2 else ""
    return ", ".join(found[:2]) + more or CALM


def _merged(spans: Iterable[tuple[float, float]], gap: float = MINUTE) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1] + gap:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end - begin >= MINUTE / 2:  # else no scrape may see it
            merged.append((begin, end))
    return merged


def _unready(fleet: Fleet) -> list[tuple[float, float]]:
    """The spans in which any daemon said of any token that it is not ready."""
    rows = [samples for name, samples in fleet.series.items() if name.startswith("aca_tokend_token_ready")]
    zero = [any(samples[number] == 0 for samples in rows) for number in range(fleet.scrapes)]
    step = fleet.shape.scrape
    times = [number * step for number, it in enumerate(zero) if it and number * step >= fleet.begins]
    return _merged(((at, at + step) for at in times), 2 * step)


def _alerts(fleet: Fleet) -> str:
    spans: dict[str, list[tuple[float, float]]] = {}
    for it in fired(fleet):
        spans.setdefault(it.alert, []).append((it.began, it.ended))
    told = [
        f"{alert} {_span(fleet, min(it)[0], max(end for _, end in it))}"
        for alert, it in sorted(spans.items(), key=lambda item: min(item[1]))
    ]
    return ", ".join(told) or CALM


def _states(fleet: Fleet) -> str:
    """What the worst token was said to be, and the exit code of `aca-tokend status`, from the begin on."""
    told: list[str] = []
    latest: dict[str, dict[str, str]] = {}
    for at, who, states in fleet.states:
        latest[who] = states
        answers = [it for it in latest.values() if it]
        worst = min(
            (state for it in answers for key, state in it.items() if key != "exit"), key=_RANK.__getitem__, default=""
        )
        code = max((it["exit"] for it in answers), default="")
        text = f"{worst or 'no answer'} {code}".strip()
        if at >= fleet.begins and (not told or not told[-1].endswith(text)):
            told.append(f"{(at - fleet.begins) / MINUTE:.0f} min: {text}")
    return ", ".join(told[:6]) + (f" and {len(told) - 6} more" if len(told) > 6 else "") or CALM


def _lines(fleet: Fleet) -> str:
    first: dict[tuple[str, str], float] = {}
    for at, _, event, reason in fleet.lines:
        if at >= fleet.begins:
            first.setdefault((event, reason), at)
    told = [
        f"{event}{f' ({reason})' if reason else ''} {(at - fleet.begins) / MINUTE:.0f} min"
        for (event, reason), at in first.items()
    ]
    return ", ".join(told) or CALM
