"""An OpenBao agent that runs a snippet of docs/readers, and what it needs of the server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.demo.child import Child

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.demo.stage import Stage

READERS = Path(__file__).parents[2] / "docs" / "readers"


def snippet(name: str, changes: Mapping[str, str]) -> str:
    """A snippet with the names of the page exchanged for those of a test; each must be in it."""
    text = (READERS / name).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return text


def let_in(stage: Stage) -> None:
    """Makes an AppRole with the policy of the page, by the commands of the page; its ids are files of the stage."""
    (stage.directory / "policy.hcl").write_text(snippet("agent/policy.hcl", {}))
    done = subprocess.run(
        [shutil.which("sh") or "/bin/sh", "-e", "-c", snippet("agent/let-in.sh", {})],
        cwd=stage.directory,
        env={
            "PATH": f"{Path(bao_program()).parent}:/usr/bin:/bin",
            "HOME": str(stage.directory),
            "BAO_ADDR": stage.bao.address,
            "BAO_TOKEN": stage.bao.root_token.reveal(),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def bao_program() -> str:
    """The `bao` program, beside the running Python or on PATH."""
    found = shutil.which("bao", path=str(Path(sys.executable).parent)) or shutil.which("bao")
    assert found is not None, "no bao beside Python or on PATH"
    return found


def start_agent(config: Path) -> Child:
    """An agent with this configuration; its log is the file beside it that ends in `.log`."""
    # it logs to both of its outputs, so all goes where nobody has to read it away
    command = [shutil.which("sh") or "/bin/sh", "-c", 'exec "$0" agent "-config=$1" >&2', bao_program(), str(config)]
    return Child(command, log=config.with_suffix(".log"), tied=True)
