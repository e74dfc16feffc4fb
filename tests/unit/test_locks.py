"""The hash-pinned requirements: current, whole, and without download addresses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCKS = ("run", "demo", "test")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    """The pinned versions of a lock by package name."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    return {name.lower().replace("_", "-"): version for name, version in PIN.findall(text)}


def asked(lock: str) -> list[Requirement]:
    """What a lock is made from: pyproject.toml, and the .in files of this purpose."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    wanted = {"run": [], "demo": ["build", "demo"], "test": ["build", "demo", "test"]}[lock]
    if wanted:
        lines += project["optional-dependencies"]["demo"]
    for name in wanted:
        text = (ROOT / "requirements" / f"{name}.in").read_text()
        lines += [line for line in text.splitlines() if line and not line.startswith(("#", "-r"))]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_what_is_asked_for(lock: str) -> None:
    """Each direct dependency is pinned, at a version that is allowed: `make lock` was run after the last change."""
    pinned = pins(lock)
    for requirement in asked(lock):
        name = requirement.name.lower().replace("_", "-")
        assert name in pinned, f"{name} is not in requirements/{lock}.txt; run make lock"
        assert pinned[name] in requirement.specifier, f"{name} is out of range; run make lock"


@pytest.mark.parametrize("lock", sorted(path.stem for path in (ROOT / "requirements").glob("*.txt")))
def test_lock_has_hashes_and_no_addresses(lock: str) -> None:
    """Every package has hashes, and no line names where to download from."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]

    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text
    assert "--index-url" not in text


def test_locks_agree() -> None:
    """What runs in production is what is tested: the locks pin the same versions."""
    run, test = pins("run"), pins("test")

    assert {name: test[name] for name in run} == run
