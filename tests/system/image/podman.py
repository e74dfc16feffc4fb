"""podman with a storage of its own, and the image of deploy/Dockerfile in it, on a base that mmdebstrap makes.

All that it keeps is in one directory. It builds as a user does, by `make image`, and hands on how pip is configured.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from aca_tokend.demo.stage import wait_until
from tests.blocks import blocks_for

ROOT = Path(__file__).parents[3]
USER = 65532
MORE = ("--network=host", "--quiet")  # there are no networks for containers here
EPOCH = 1_790_000_000  # when the image says that it was made
CANARY_PIP = "canary-pip-index-5d20"
# How docs/image.md makes the base, builds and runs.
MAKE_BASE, BUILD, RUN = (
    block.content.replace("\\\n", " ") for block in blocks_for("tests/system/image/test_image.py::test_run")
)
BASE = MAKE_BASE.split()[-1]
OTHERWISE = ("--volume", "--publish")
# The defaults want cgroups by systemd, a journal, and more processes than a user of this machine may have.
CONTAINERS = """
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{directory}/tmp"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{directory}/graph"
runroot = "{directory}/run"
"""


class Podman:
    """podman, with everything that it keeps in `directory`; `image` is ours once it was built."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        limits = {
            name: min(bound, *(limit for limit in resource.getrlimit(kind) if limit != resource.RLIM_INFINITY))
            for name, kind, bound in (
                ("files", resource.RLIMIT_NOFILE, 4096),
                ("processes", resource.RLIMIT_NPROC, 4096),
            )
        }
        (directory / "containers.conf").write_text(CONTAINERS.format(directory=directory, **limits))
        (directory / "storage.conf").write_text(STORAGE.format(directory=directory))
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "CONTAINERS_CONF_OVERRIDE": str(directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            **_pip(directory),
        }
        self.image = ""

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """What a podman command prints; one that fails fails the test."""
        return self.run(*arguments, stdin=stdin).stdout

    def run(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a podman command to its end."""
        return self._run(["podman", *arguments], ROOT, stdin=stdin, check=check)

    def make_base(self) -> None:
        """Makes the base, a small Debian with Python."""
        self._run(["/bin/sh", "-eu", "-c", MAKE_BASE], self.directory)
        (self.directory / "base.tar").unlink()

    def build(self, checkout: Path = ROOT, *arguments: str) -> str:
        """Builds the image of a checkout on that base, and returns its id."""
        command = [f"{word} {' '.join(MORE + arguments)}" if "ARGS" in word else word for word in shlex.split(BUILD)]
        variables = ["REVISION=of-the-tests", f"SOURCE_DATE_EPOCH={EPOCH}"]
        return self._run([*command, "--silent", *variables], checkout).stdout.split()[-1]

    def inspect(self, name: str) -> dict[str, Any]:
        """All that podman tells of a container or an image."""
        (found,) = json.loads(self("inspect", name))
        return dict(found)

    def end(self) -> None:
        """Ends and removes every pod and container."""
        self("pod", "rm", "--all", "--force", "--time=0")
        self("rm", "--all", "--force", "--time=0")

    def remove(self) -> None:
        """Removes all that it kept."""
        self.end()
        self("rmi", "--all", "--force")
        shutil.rmtree(self.directory)

    def _run(
        self, command: list[str], directory: Path, *, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=directory,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr[-4000:]}"
        return done


class Container:
    """A container of the image as a careful operator runs it: read-only, as 65532, without capabilities."""

    def __init__(self, podman: Podman, *arguments: str, mounts: tuple[str, ...] = ()) -> None:
        self.podman = podman
        options = [
            word for word in shlex.split(RUN) if word.startswith("--") and word.partition("=")[0] not in OTHERWISE
        ]
        options += ["--detach", "--network=host", "--timeout=300"]  # it ends though nobody may be left to end it
        options += [f"--volume={mount}" for mount in mounts]
        self.id = podman("run", *options, podman.image, *arguments).strip()

    @property
    def text(self) -> str:
        """All that it wrote."""
        done = self.podman.run("logs", self.id)
        return done.stdout + done.stderr

    @property
    def pid(self) -> int:
        """The process id of its first process, as the machine counts."""
        return int(self.podman.inspect(self.id)["State"]["Pid"])

    @property
    def written(self) -> list[Path]:
        """The files with content that its root has and the image has not; what things are mounted on is empty."""
        upper = Path(self.podman.inspect(self.id)["GraphDriver"]["Data"]["UpperDir"])
        return [path for path in upper.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log of one event."""
        lines = [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """Waits until an event was logged so many times, and returns the last of them."""
        wait_until(lambda: len(self.events(event)) >= count, f"{count} times {event} in a container")
        return self.events(event)[count - 1]

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return int(self.podman("wait", self.id))

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.podman("kill", "--signal=TERM", self.id)
        return self.ended()


def _pip(directory: Path) -> dict[str, str]:
    """What `make image` is to hand on, so that pip in the build finds the index that pip finds here."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = {
        name.rpartition(".")[2]: value.strip("'\"")
        for name, _, value in (line.partition("=") for line in told.stdout.splitlines())
    }
    wanted = ("index-url", "extra-index-url", "trusted-host", "proxy")
    lines = [f"# {CANARY_PIP}", "[global]", *(f"{name} = {settings[name]}" for name in wanted if name in settings)]
    file = directory / "pip.conf"
    file.write_text("\n".join(lines) + "\n")
    given = {"PIP_CONFIG_FILE": str(file)}
    if "cert" in settings:
        given["PIP_CERT"] = settings["cert"]
    return given
