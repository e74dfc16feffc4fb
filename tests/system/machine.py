"""A machine of its own on which systemd runs as process 1, so that a unit is started by systemd itself.

It is made of namespaces over a copy of the host's root file system (machine.sh); its network is the host's, where the
servers of the tests listen. It takes root. The daemon in it is the one of this checkout.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aca_tokend.demo.child import Child
from aca_tokend.demo.stage import wait_until
from tests.blocks import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT = Path(__file__).with_suffix(".sh")
PATIENCE_SECONDS = 120.0
PYTHON = "/opt/aca/python"
# The library of a Python that was moved is not where it says.
LAUNCHER = f"""#!/bin/sh
LD_LIBRARY_PATH={PYTHON}/lib exec {PYTHON}/bin/python3 -IB /opt/aca/start.py "$@"
"""
START = """
import site, sys
site.addsitedir("/opt/aca/packages")
sys.path.insert(0, "/opt/aca/source")
from aca_tokend.__main__ import main
main()
"""


class Machine:
    """One that runs until `stop`; `folder` takes its log and its mounts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        bound = {
            # where an ordinary user finds them, and a service that sees no home folders and no /tmp of others
            sys.base_prefix: PYTHON,
            sysconfig.get_path("purelib"): "/opt/aca/packages",
            str(ROOT / "aca_tokend"): "/opt/aca/source/aca_tokend",
            # what a user would have cloned
            str(ROOT): str(ROOT),
        }
        pairs = [part for pair in bound.items() for part in pair]
        command = ["/usr/bin/unshare", "--mount", "--propagation", "private", "sh", str(SCRIPT), str(folder), *pairs]
        self._child = Child(command, log=folder / "machine.log", tied=True)
        self._cgroup = self._child.read_line().strip()
        if not self._cgroup:
            self._child.give_up("the machine did not start; it takes root")
        children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children")
        wait_until(lambda: children.read_text() != "", "process 1")
        self.pid = int(children.read_text())
        self._ready()
        self.write("/usr/local/bin/aca-tokend", LAUNCHER, 0o755)
        self.write("/opt/aca/start.py", START)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ready(self) -> None:
        def booted() -> bool:
            if not self._child.running:
                self._child.give_up("the machine did not start")
            return self.call("systemctl", "is-system-running").stdout.strip() == "running"

        wait_until(booted, "systemd", PATIENCE_SECONDS)

    def call(
        self, *command: str, environment: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in it as root; both outputs are one."""
        enter = [
            "nsenter",
            "--target",
            str(self.pid),
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--cgroup",
            "--root",
            "--wd",
        ]
        path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        return subprocess.run(
            [*enter, *command],
            env={**path, **(environment or {})},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    def run(self, *command: str, environment: Mapping[str, str] | None = None, stdin: str = "") -> str:
        """What a command says that has to succeed."""
        done = self.call(*command, environment=environment, stdin=stdin)
        assert done.returncode == 0, f"{command}: {done.stdout}\n{self._child.last_words}"
        return done.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Writes a file in it, with the folders above."""
        self.run(
            "sh", "-c", 'mkdir -p "$(dirname "$0")" && cat > "$0" && chmod "$1" "$0"', path, f"{mode:o}", stdin=text
        )

    def stop(self) -> None:
        """Ends all of it, and removes its cgroups."""
        self._child.kill()
        tidy = 'd=$(mktemp -d); mount -t cgroup2 cgroup2 "$d"; find "$d/$0" -depth -type d -exec rmdir {} +'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", tidy, self._cgroup]
        wait_until(lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0, "its end")
