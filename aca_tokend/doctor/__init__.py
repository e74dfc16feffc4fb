"""`aca-tokend doctor`: tries everything that a configuration needs, side by side, and says how to mend what fails.

The daemon's own adapters are what is tried. Nothing is published or changed, but with `--grant` the attempt records of
the lockout guard. It is done in time whatever hangs, and no secret is in anything it prints.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from aca_tokend.clock import SystemClock
from aca_tokend.doctor import accounts, endpoints, files, picture, secrets, targets, vaults
from aca_tokend.doctor.examination import Examination
from aca_tokend.doctor.findings import Report
from aca_tokend.parts import Parts

if TYPE_CHECKING:
    from aca_tokend.core.config import Config
    from aca_tokend.doctor.examination import Check

# The whole call is to be over within 15 seconds, with the start of Python before this time and the table after it.
LIMIT_SECONDS = 12.5
# What the daemon may wait for longer counts as failed here: the checks of one server come one after the other.
LONGEST_TIMEOUT = 4.0
CLOSE_SECONDS = 1.0


def main(config: Config, began: float, *, grant: bool, as_json: bool) -> int:
    """Examines and prints. Returns the exit code: 0 where nothing failed, else 1.

    `began` is when the call began, in monotonic seconds: from then on it has its time.
    """
    from rich.console import Console

    clock = SystemClock()
    with picture.progress(Console(stderr=True), LIMIT_SECONDS) as progress:
        parts = Parts(hastened(config), clock, lambda _: None)
        pools = {**secrets.pools(parts), **parts.pools(), accounts.PAUSE_POOL: accounts.PAUSING}
        examination = Examination(pools, all_checks(parts, config, clock, began + LIMIT_SECONDS, grant=grant))
        found = examination.run(began + LIMIT_SECONDS - clock.monotonic(), progress)
        report = Report.of(found, clock.monotonic() - began)
        _close(parts)
    if as_json:
        print(picture.as_json(report))  # noqa: T201 -- it is what was asked for
    else:
        picture.show(report, Console())
    return 0 if report.well else 1


def all_checks(parts: Parts, config: Config, clock: SystemClock, end: float, *, grant: bool) -> list[Check]:
    """Everything there is to try."""
    checks = [
        *endpoints.checks(parts, clock.wall),
        *vaults.checks(parts, clock.wall),
        *secrets.checks(parts),
        *files.places(parts),
        *targets.checks(parts),
        *files.surroundings(parts),
    ]
    return [*checks, *accounts.checks(parts, config, clock, end)] if grant else checks


def hastened(config: Config) -> Config:
    """The configuration with no timeout longer than the doctor can wait for."""
    tables = {
        kind: {
            name: table.model_copy(update={"timeout": min(table.timeout, LONGEST_TIMEOUT)})
            for name, table in getattr(config, kind).items()
        }
        for kind in ("acaengine", "vault")
    }
    return config.model_copy(update=tables)


def _close(parts: Parts) -> None:
    """Revokes what we logged in for, as far as that takes no time."""
    thread = threading.Thread(target=parts.close, daemon=True)
    thread.start()
    thread.join(CLOSE_SECONDS)
