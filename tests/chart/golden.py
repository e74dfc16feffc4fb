"""Writes what each case renders to now into `golden/`: `make golden`. Read the difference before it is committed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.chart.rendering import CASES, GOLDEN

if TYPE_CHECKING:
    from tests.chart.rendering import Case

# what is a file of the repository anyway, and is compared with it by another test
COPIES = re.compile(r"^(  aca-tokend\.json: \|\n|  groups:\n)(?:(?!---$).*\n)*", re.MULTILINE)


def golden(case: Case) -> str:
    """What is kept of a case: all but the dashboard and the alerts."""
    return COPIES.sub(r"\1    …\n", case.text())


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES:
        (GOLDEN / case.path.name).write_text(golden(case), encoding="utf-8")
    for path in GOLDEN.glob("*.yaml"):
        if path.name not in {case.path.name for case in CASES}:
            path.unlink()
