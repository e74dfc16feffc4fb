"""What docs/kubernetes.md and docs/helm.md show is rendered as it stands there, and our own parser takes the result."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.blocks import blocks_for
from tests.chart.rendering import CHART, HELMS, PROGRAMS, objects, program, template

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.blocks import Block

TUTORIAL = "tests/chart/test_pages.py::test_tutorial"
FRAGMENTS = blocks_for("tests/chart/test_pages.py::test_values", at_least=10)
# of these tables a page shows the whole, in place of what was there
WHOLE = ("auth",)


def tutorial() -> dict[str, Any]:
    """The values of the tutorial."""
    (block,) = [block for block in blocks_for(TUTORIAL) if block.language == "yaml"]
    values: dict[str, Any] = yaml.safe_load(block.content)
    return values


def with_fragment(values: dict[str, Any], fragment: dict[str, Any]) -> dict[str, Any]:
    """The values as somebody changes them who follows a page."""
    merged = dict(values)
    for key, value in fragment.items():
        before = merged.get(key)
        merge = isinstance(value, dict) and isinstance(before, dict) and key not in WHOLE
        merged[key] = with_fragment(before or {}, value) if merge else value
    return merged


def check(config: str, folder: Path) -> None:
    """Our own parser takes a configuration."""
    path = folder / "config.toml"
    path.write_text(config, encoding="utf-8")
    command = [sys.executable, "-m", "aca_tokend", "check", "--config", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def config_of(manifests: Iterable[dict[str, Any]]) -> list[str]:
    """The configuration among them, if there is one."""
    maps = [item["data"] for item in manifests if item["kind"] == "ConfigMap"]
    return [data["config.toml"] for data in maps if "config.toml" in data]


@pytest.mark.parametrize("helm", HELMS)
def test_tutorial(helm: str, tmp_path: Path) -> None:
    """Values and command of kubernetes.md make the objects that its other commands name."""
    (command,) = [block.content for block in blocks_for(TUTORIAL) if block.language == "sh"]
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(tutorial()), encoding="utf-8")
    (tmp_path / "charts").symlink_to(CHART.parent)
    install, *arguments = shlex.split(command)[1:]
    assert install == "install"

    rendered = subprocess.run(
        [program("helm", helm), "template", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    manifests = objects(rendered.stdout)
    names = {(item["kind"], item["metadata"]["name"], item["metadata"]["namespace"]) for item in manifests}
    assert {("Deployment", "aca-tokend", "aca-tokend"), ("ServiceAccount", "aca-tokend", "aca-tokend")} <= names
    (config,) = config_of(manifests)
    check(config, tmp_path)


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("block", FRAGMENTS, ids=lambda block: f"line{block.line}")
def test_values(block: Block, helm: str, tmp_path: Path) -> None:
    """Each piece of values in helm.md may be put into those of the tutorial."""
    fragment = yaml.safe_load(block.content)
    values = with_fragment(tutorial(), fragment)
    if "existingConfigMap" in fragment:
        del values["config"]
    manifests = objects(template(helm, CHART, "aca-tokend", ("-f", "-"), json.dumps(values)))
    for config in config_of(manifests):
        check(config, tmp_path)
    (workload,) = [item for item in manifests if item["kind"] in {"Deployment", "StatefulSet"}]
    assert workload["kind"] == ("StatefulSet" if "shards" in fragment else "Deployment")


def test_check(tmp_path: Path) -> None:
    """The commands of helm.md take the configuration out of the chart without a cluster, and check it."""
    (block,) = blocks_for("tests/chart/test_pages.py::test_check")
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(tutorial()), encoding="utf-8")
    (tmp_path / "charts").symlink_to(CHART.parent)
    path = os.pathsep.join([str(PROGRAMS / "4"), str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", block.content],
        cwd=tmp_path,
        env={"PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "config.toml: well, 1 token" in result.stdout + result.stderr
