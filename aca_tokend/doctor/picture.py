"""The report in the terminal, or as JSON, and the progress until then."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from aca_tokend.doctor.findings import Status, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from aca_tokend.doctor.findings import Report, Row

MARKS = {
    Status.OK: Text("ok", "green"),
    Status.WARN: Text("warn", "yellow"),
    Status.FAILED: Text("FAILED", "bold red"),
    Status.SKIPPED: Text("skipped", "dim"),
}


def show(report: Report, console: Console) -> None:
    """Prints what was tried under what it was tried of, a fix beside each failure, and what it comes to."""
    widest = max((len(row.check) for row in report.rows), default=0)
    for subjects, rows in groupby(report.rows, key=lambda row: row.subjects):
        console.print(Text(listed(subjects), "bold"), soft_wrap=True)
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(width=9, justify="right", no_wrap=True)
        table.add_column(width=widest, no_wrap=True)
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(MARKS[row.status], row.check, _found(row))
        console.print(table)
    console.print()
    console.print(_verdict(report), soft_wrap=True)


def _found(row: Row) -> Text:
    found = Text(row.detail)
    if row.fix:
        found.append(f"\n→ {row.fix}")
    return found


def _verdict(report: Report) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in report.counts.items() if number or name != "skipped")
    return f"{'well' if report.well else 'not well'}: {counts}; {report.seconds:.1f} s"


def as_json(report: Report) -> str:
    """The report as docs/doctor.md describes it."""
    return json.dumps(report.fields(), indent=2, ensure_ascii=False)


@contextmanager
def progress(console: Console, seconds: float) -> Iterator[Callable[[int, int, Sequence[str]], None]]:
    """What to tell of progress: a bar on a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(30), TextColumn("{task.description}"))
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None)

            def on_terminal(done: int, total: int, out: Sequence[str]) -> None:
                bar.update(task, completed=done, total=total, description=listed(tuple(dict.fromkeys(out))))

            yield on_terminal
        return
    quarter = 0

    def in_lines(done: int, total: int, out: Sequence[str]) -> None:
        nonlocal quarter
        if not quarter:
            console.print(f"{total} checks, {seconds:g} s at most", soft_wrap=True)
            quarter = 1
        if done < total and 4 * done >= quarter * total:
            quarter = 4 * done // total + 1
            waiting = listed(tuple(dict.fromkeys(out)))
            console.print(f"{done} of {total} done; waiting for {waiting}", soft_wrap=True)

    yield in_lines
