"""What the doctor found, as values: one finding for each thing tried, equal ones grouped. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Status(StrEnum):
    """How a check ended. `skipped`: it could not be tried, and its detail says why."""

    FAILED = "failed"
    WARN = "warn"
    SKIPPED = "skipped"
    OK = "ok"


class Area(StrEnum):
    """What a check is about, in the order in which it is shown."""

    ENDPOINT = "endpoint"
    VAULT = "vault"
    SECRET = "secret"  # noqa: S105 -- a word
    FILE = "file"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of one subject found. Neither `detail` nor `fix` holds a secret, or what a server wrote."""

    area: Area
    subject: str
    check: str
    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Findings that differ in their subject alone, with the keys that the JSON has."""

    area: Area
    check: str
    subjects: tuple[str, ...]
    status: Status
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found."""

    rows: tuple[Row, ...]
    seconds: float

    @classmethod
    def of(cls, findings: Iterable[Finding], seconds: float) -> Report:
        """Groups findings that say the same; areas in their order, subjects and checks as they were told."""
        groups: dict[tuple[Area, str, Status, str, str], list[str]] = {}
        for it in findings:
            groups.setdefault((it.area, it.check, it.status, it.detail, it.fix), []).append(it.subject)
        rows = (
            Row(area, check, tuple(subjects), status, detail, fix)
            for (area, check, status, detail, fix), subjects in groups.items()
        )
        order = list(Area)
        return cls(tuple(sorted(rows, key=lambda row: order.index(row.area))), seconds)

    @property
    def counts(self) -> dict[str, int]:
        """How many findings ended in each way."""
        counted = Counter[Status]()
        for row in self.rows:
            counted[row.status] += len(row.subjects)
        return {status.value: counted[status] for status in Status}

    @property
    def well(self) -> bool:
        """Whether nothing failed."""
        return not any(row.status is Status.FAILED for row in self.rows)

    def fields(self) -> dict[str, object]:
        """The report as JSON has it: docs/doctor.md promises these keys."""
        return {
            "well": self.well,
            "counts": self.counts,
            "seconds": round(self.seconds, 1),
            "checks": [asdict(row) for row in self.rows],
        }


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first of many names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
