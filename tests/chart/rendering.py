"""Renders the chart and the kustomization with the programs of .venv/helm, and what the tests ask of the objects.

A case is a file of values in `cases/`. `# release NAME` in its first line names the release, else it is aca-tokend.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHART = ROOT / "charts" / "aca-tokend"
GOLDEN = HERE / "golden"
PROGRAMS = ROOT / ".venv" / "helm"
HELMS = ("4", "3")
KUBERNETES = ("1.29", "1.37")  # the oldest that the chart is for, and the newest whose schemas are known
NAMESPACE = "team"

Object = dict[str, Any]


class RefusedError(Exception):
    """A program refused what it was given; the message is its own."""


def program(name: str, helm: str = "4") -> str:
    """Helm of a version, or the kubectl that came with it."""
    path = PROGRAMS / helm / name
    assert path.exists(), f"{path} is missing: run `make .venv/helm/.made`"
    return str(path)


def run(*command: str, stdin: str = "") -> str:
    """What a program writes; nothing of the user's own settings or clusters is seen by it."""
    result = subprocess.run(
        command,
        input=stdin,
        env={"PATH": os.defpath, "HOME": "/nonexistent", "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if result.returncode != 0:
        raise RefusedError(result.stderr)
    return result.stdout


@dataclass(frozen=True, slots=True)
class Case:
    """One file of values."""

    path: Path

    @property
    def name(self) -> str:
        """What it is about."""
        return self.path.stem

    @property
    def release(self) -> str:
        """The name of the release."""
        found = re.match(r"# release (\S+)$", self.path.read_text(encoding="utf-8").partition("\n")[0])
        return found[1] if found else "aca-tokend"

    @property
    def values(self) -> dict[str, Any]:
        """The values themselves."""
        values: dict[str, Any] = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        return values

    def text(self, helm: str = "4", chart: Path = CHART) -> str:
        """What Helm makes of it, byte for byte."""
        return template(helm, chart, self.release, ("-f", str(self.path)))

    def objects(self, helm: str = "4") -> tuple[Object, ...]:
        """The same, as objects; not to be changed."""
        return objects(self.text(helm))

    def of(self, kind: str) -> list[Object]:
        """Its objects of a kind."""
        return [item for item in self.objects() if item["kind"] == kind]

    def pods(self) -> list[Object]:
        """What its pods are made of: that of the daemon, then that of the doctor."""
        workloads = [
            item["spec"]["template"] for item in self.objects() if item["kind"] in {"Deployment", "StatefulSet"}
        ]
        return [*workloads, *self.of("Pod")]

    def containers(self) -> Iterator[Object]:
        """The containers of all pods."""
        for pod in self.pods():
            yield from (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])


@cache
def template(helm: str, chart: Path, release: str, more: tuple[str, ...], stdin: str = "") -> str:
    """`helm template`."""
    return run(program("helm", helm), "template", release, str(chart), "--namespace", NAMESPACE, *more, stdin=stdin)


@cache
def objects(text: str) -> tuple[Object, ...]:
    """The objects in a stream."""
    return tuple(item for item in yaml.safe_load_all(text) if item is not None)


CASES = tuple(Case(path) for path in sorted((HERE / "cases").glob("*.yaml")))
