"""deploy/compose.yaml, started by podman-compose as docs/compose.md (compose.md) tells, but for the network.

Containers have no network between them here: all share one, in which the names of the services are 127.0.0.1.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from aca_tokend.demo.stage import wait_until
from tests.blocks import ROOT, blocks_for
from tests.system.image.podman import BASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.image.podman import Podman

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("podman")]

FILE = ROOT / "deploy" / "compose.yaml"
DOCKERFILE = ROOT / "deploy" / "compose" / "Dockerfile"
TEST = "tests/system/image/test_compose.py::test_a_trial"
TRIAL = "localhost/aca-tokend-trial"
PATIENCE_SECONDS = 120.0


class Trial:
    """The services of the file, running."""

    def __init__(self, podman: Podman, file: Path) -> None:
        self.podman = podman
        self.command = ["timeout", "180", "podman-compose", "--in-pod=false", "--file", str(file)]
        self("up", "--detach", "--no-build", "network")
        self("up", "--detach", "--no-build")

    def __call__(self, *arguments: str) -> str:
        return self.podman._run([*self.command, *arguments], ROOT).stdout

    def said(self, service: str) -> str:
        """All that a service wrote."""
        done = self.podman.run("logs", f"aca-tokend_{service}_1", check=False)
        return done.stdout + done.stderr

    def inside(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self.podman.run("exec", f"aca-tokend_{service}_1", *command, check=False)


def build_trial(podman: Podman) -> None:
    """The image of the other services, with what pip is to be told of its index as secrets of the build."""
    given = {"pip.conf": "PIP_CONFIG_FILE", "ca.pem": "PIP_CERT"}
    secrets = [
        f"--secret=id={name},src={podman._environment[variable]}"
        for name, variable in given.items()
        if variable in podman._environment
    ]
    options = ["--quiet", "--pull=never", "--network=host", f"--build-arg=BASE_IMAGE={BASE}", *secrets]
    podman("build", *options, f"--tag={TRIAL}", f"--file={DOCKERFILE}", str(ROOT))


@pytest.fixture
def trial(podman: Podman, tmp_path: Path) -> Iterator[Trial]:
    """The file as it stands, but for the network the order of the start and the building of the images."""
    build_trial(podman)
    podman("tag", podman.image, "localhost/aca-tokend")
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost acaengine openbao\n")
    content = yaml.safe_load(FILE.read_text())
    for service in content["services"].values():
        del service["build"]
        service.pop("ports", None)
        service.pop("depends_on", None)  # the daemon tries again; podman ties what depends to what shares a network
        service["volumes"] = [
            str(FILE.parent / volume) if volume.startswith(".") else volume for volume in service.get("volumes", ())
        ]
        service["volumes"].append(f"{hosts}:/etc/hosts:ro")
        service["network_mode"] = "service:network"
    image = {"image": TRIAL, "init": True, "command": ["sleep", "infinity"]}
    content["services"] = {"network": image | {"network_mode": "none"}, **content["services"]}
    file = tmp_path / "compose.yaml"
    file.write_text(yaml.safe_dump(content))
    trial = Trial(podman, file)
    yield trial
    trial("down", "--volumes", "--timeout", "1")


def test_a_trial(trial: Trial) -> None:
    """The reader is served over rotations and never refused; an outage is told as on the page; no secret is logged."""
    look, stop, look_again, start = [line.split() for block in blocks_for(TEST) for line in block.content.splitlines()]
    for command in (look, stop, look_again, start):
        assert command[:4] == ["docker", "compose", "--file", "deploy/compose.yaml"]
    wait_until(lambda: trial.said("aca-tokend").count('"token_rotated"') >= 2, "two rotations", PATIENCE_SECONDS)
    served = trial.said("reader").count("200 svc-bookings")
    wait_until(lambda: trial.said("reader").count("200 svc-bookings") > served, "the reader goes on")
    assert "401" not in trial.said("reader")
    status = trial.inside(*look[5:])
    assert status.returncode == 0, status.stdout + status.stderr

    trial(*stop[4:])
    wait_until(lambda: "connect_failed" in trial.said("aca-tokend"), "the outage is noticed", PATIENCE_SECONDS)
    assert "bookings" in trial.inside(*look_again[5:]).stdout
    trial(*start[4:])

    volume = "--volume=aca-tokend_secrets:/secrets:ro"
    for name in ("bookings-password", "client-secret", "secret-id"):
        secret = trial.podman("run", "--rm", "--network=none", volume, TRIAL, "cat", f"/secrets/{name}").strip()
        assert secret
        for service in ("aca-tokend", "setup", "reader"):
            assert secret not in trial.said(service)


def test_the_dockerfile_has_no_findings() -> None:
    """Nothing is to be said about its Dockerfile by hadolint, not even of style."""
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [
        str(hadolint),
        "--failure-threshold=style",
        "--no-color",
        str(ROOT / "deploy" / "compose" / "Dockerfile"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
