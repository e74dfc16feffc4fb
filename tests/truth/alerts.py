"""Which alerts fire over recorded series, by `promtool test rules`."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.truth.fleet import LATER_SECONDS, RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.fleet import Fleet

_GOT = re.compile(r"(\{[^{}]*\}) ([^\s,]+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_FIRING = 'timestamp(ALERTS{alertstate="firing"})'


@dataclass(frozen=True, slots=True, order=True)
class Fired:
    """One alert: when it fired first and last, in seconds of the run, for which token or instance."""

    began: float
    ended: float
    alert: str
    severity: str
    whom: str


def fired(fleet: Fleet, *, rules: Path = RULES) -> list[Fired]:
    """What fires since the trouble began, soonest first."""
    step, since = f"{fleet.shape.scrape:.0f}s", int(fleet.begins)
    end = int((fleet.scrapes - 1) * fleet.shape.scrape + LATER_SECONDS)
    asked = [f"{how}_over_time({_FIRING}[{end - since}s:{step}])" for how in ("min", "max")]
    late = int(LATER_SECONDS / fleet.shape.scrape)
    test = {
        "interval": step,
        "input_series": [{"series": name, "values": _values(samples, late)} for name, samples in fleet.series.items()],
        "promql_expr_test": [{"expr": it, "eval_time": f"{end}s"} for it in asked],
    }
    document = {"rule_files": [str(rules)], "evaluation_interval": step, "tests": [test]}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "test.yaml"
        file.write_text(yaml.safe_dump(document, width=10**9), encoding="utf-8")
        done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)  # noqa: S607 -- as the path has it
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return []
    parts = said.split("expr:")[1:]
    if len(parts) != len(asked):
        raise RuntimeError(said)
    began, ended = (dict(_samples(part)) for part in parts)
    return sorted(
        Fired(
            began[key] - LATER_SECONDS,
            ended[key] - LATER_SECONDS,
            labels["alertname"],
            labels["severity"],
            _whom(labels),
        )
        for key, labels in ((key, dict(_LABEL.findall(key))) for key in began)
    )


def _samples(part: str) -> Iterator[tuple[str, float]]:
    for labels, value in _GOT.findall(part.partition("got:")[2]):
        yield labels, float(value)


def _whom(labels: dict[str, str]) -> str:
    return " ".join(
        labels[key] for key in ("token", "sink", "instance", "endpoint", "vault", "shard") if labels.get(key)
    )


def _values(samples: list[float | None], late: int) -> str:
    """In promtool's shorthand, so many samples later than what was seen."""
    runs = ((value, sum(1 for _ in same)) for value, same in groupby([None] * late + samples))
    return " ".join(f"_x{count}" if value is None else f"{value!r}x{count - 1}" for value, count in runs)
