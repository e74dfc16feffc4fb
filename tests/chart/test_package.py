"""The chart as it is handed on: what is made by a script is as the script makes it, and the package is the chart.

There is no earlier version of it yet, so no upgrade from one is tried.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.chart.rendering import CASES, CHART, HELMS, ROOT, program, run, template

if TYPE_CHECKING:
    from pathlib import Path

(LEAST,) = [case for case in CASES if case.name == "kubernetes"]
ABOUT = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))


def test_made_files() -> None:
    """README, schema, alerts and dashboard of the chart are as `make chart` writes them now."""
    from generate import generated

    differ = [path.name for path, text in generated().items() if path.read_text(encoding="utf-8") != text]
    assert not differ, "call `make chart`"
    assert {path.parent.name for path in generated()} == {"aca-tokend", "files"}


def test_versions() -> None:
    """The chart installs the version of this very checkout by default."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert ABOUT["appVersion"] == project["version"]
    assert ABOUT["name"] == project["name"]


@pytest.mark.parametrize("helm", HELMS)
def test_package(helm: str, tmp_path: Path) -> None:
    """Packed, it renders what the folder renders, and holds nothing but the chart."""
    run(program("helm", helm), "package", str(CHART), "--destination", str(tmp_path))
    archive = tmp_path / f"{ABOUT['name']}-{ABOUT['version']}.tgz"

    for case in CASES:
        packed = template(helm, archive, case.release, ("-f", str(case.path)))
        assert packed == case.text(helm), case.name
    assert not list(CHART.glob("*.tgz"))


def test_notes() -> None:
    """After an installation it says what to look at next, for the names of this release.

    Helm 3.17 asks a cluster even for a dry run, so Helm 4 shows it alone; both render it with every template.
    """
    for case in CASES:
        told = run(
            *(program("helm"), "install", case.release, str(CHART), "--namespace", "team", "--dry-run=client"),
            *("-f", str(case.path)),
        )
        _, _, notes = told.rpartition("\nNOTES:\n")
        assert notes.strip()
        (workload,) = [item for item in case.objects() if item["kind"] in {"Deployment", "StatefulSet"}]
        assert f"helm test {case.release} -n team" in notes
        name = workload["metadata"]["name"]
        assert f"{workload['kind'].lower()}/{name}" in notes or f"pod/{name}-0" in notes or f" {name}-0" in notes
        assert "<no value>" not in told
        monitored = any(case.of(kind) for kind in ("ServiceMonitor", "PodMonitor"))
        assert ("Nobody is told" in notes) != monitored
