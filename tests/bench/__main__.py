"""`make bench`: every figure with its target, in the terminal and as JSON. `--quick` is for use while working.

Nothing is made faster for it: OpenBao syncs each write, and the daemon has check-and-set, the guard and its metrics on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.figures import FULL, QUICK, Bench
from tests.bench.machine import machine
from tests.bench.servers import Servers

# What every measured run of the daemon has; nothing of the bench takes it away.
HELD = "fsync and check-and-set are on"
# Columns of what is printed where there is no terminal.
WIDTH = 160


def main() -> None:
    """Measures and tells."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of everything, in under two minutes")
    parser.add_argument("--before", type=Path, help="a checkout of the version before, measured in turn with this one")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the figures go")
    arguments = parser.parse_args()
    before = arguments.before.resolve() if arguments.before else None
    console, began = Console(), time.monotonic()
    if not console.is_terminal:
        console.width = WIDTH

    def tell(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.0f} s  {what}[/dim]", highlight=False)

    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        bench = Bench(servers, QUICK if arguments.quick else FULL, tell, before)
        bench.measure()
    table = Table(title=machine(), caption=f"medians; x: a ratio taken in this run; {HELD}")
    for heading in ("figure", "value", "spread", "target", "", "beside"):
        table.add_column(heading)
    for it in bench.figures:
        spread = f"{min(it.samples):.3g} to {max(it.samples):.3g}" if len(it.samples) > 1 else ""
        target = "" if it.target is None else f"{'at least' if it.least else 'at most'} {it.target:g}"
        met = {True: "[green]met[/]", False: "[red]not met[/]", None: ""}[it.met]
        table.add_row(it.name, f"{it.value:.3g} {it.unit}", spread, target, met, it.note)
    console.print(table)
    figures = [
        {"name": it.name, "samples": it.samples, "unit": it.unit, "target": it.target, "least": it.least, "met": it.met}
        for it in bench.figures
    ]
    told = {"machine": machine(), "held": HELD, "figures": figures, "raw": bench.raw}
    arguments.json.write_text(json.dumps(told, indent=1) + "\n")
    tell(f"done; the figures are in {arguments.json}")


if __name__ == "__main__":
    main()
