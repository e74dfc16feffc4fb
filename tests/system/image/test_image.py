"""The image of deploy/Dockerfile: what is in it, and that it runs as docs/image.md says."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import secrets_of
from tests.system.image.podman import CANARY_PIP, EPOCH, ROOT, USER, Container

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.demo.stage import Stage
    from tests.system.image.podman import Podman

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("podman")]

LABELS = "org.opencontainers.image."
MEGABYTE = 1_000_000


@pytest.fixture
def containers(podman: Podman) -> Iterator[Podman]:
    """The image, and nothing left running of it."""
    yield podman
    podman.end()


def hand_over(stage: Stage) -> tuple[str, ...]:
    """Gives the user of the image what the stage wrote for a daemon; the mounts that a container needs."""
    for file in (stage.directory, *stage.directory.glob("*.password"), *map(stage.directory.joinpath, SECRETS)):
        os.chown(file, USER, USER)
    for file in stage.directory.glob("published*"):
        os.chown(file, USER, USER)
    directory = stage.directory
    mounts = [f"{directory}:{directory}:ro", f"{directory}/config.toml:/etc/aca-tokend/config.toml:ro"]
    return (*mounts, *(f"{place}:{place}" for place in directory.glob("published*")))


SECRETS = ("client-secret", "vault-token")


def test_the_dockerfile_has_no_findings() -> None:
    """Nothing is to be said about the Dockerfile by hadolint, not even of style."""
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint), "--failure-threshold=style", "--no-color", str(ROOT / "deploy" / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_it_says_of_itself(podman: Podman) -> None:
    """The image has the labels of the OCI convention, a user by number, an entry point without a shell, one layer."""
    told = podman.inspect(podman.image)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    config = told["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert (config["Entrypoint"], config["Cmd"]) == (["aca-tokend"], ["run"])
    assert list(config["ExposedPorts"]) == ["9464/tcp"]
    labels = {name.removeprefix(LABELS): value for name, value in told["Labels"].items() if name.startswith(LABELS)}
    assert labels == {
        "title": "aca-tokend",
        "description": project["description"],
        "licenses": project["license"],
        "version": project["version"],
        "revision": "of-the-tests",
        "created": dt.datetime.fromtimestamp(EPOCH, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "source": "",
    }
    base = podman.inspect("localhost/base:trixie")["RootFS"]["Layers"]
    assert told["RootFS"]["Layers"][:-1] == base


def test_what_is_in_it(podman: Podman) -> None:
    """There are the locked packages and nothing of the build: no pip, no index, no certificate lent to it."""
    root = Path(podman("image", "mount", podman.image).strip())
    try:
        site = next(root.glob("opt/aca-tokend/lib/python3.*/site-packages"))
        installed = {path.name.partition("-")[0].replace("_", "-").lower() for path in site.glob("*.dist-info")}
        lock = (ROOT / "requirements" / "run.txt").read_text().splitlines()
        locked = {line.partition("==")[0].replace("_", "-").lower() for line in lock if "==" in line and line[0] != " "}
        assert "aca-tokend" in installed
        assert installed - {"aca-tokend"} <= locked
        assert not list(site.glob("pip*"))
        sources = [path for path in (root / "opt").rglob("*.py") if path.is_file()]
        compiled = {path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in (root / "opt").rglob("*.pyc")}
        assert sources
        assert set(sources) <= compiled
        for path in (root / "opt").rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert CANARY_PIP.encode() not in path.read_bytes(), path
        assert not list(root.glob("run/secrets/*"))
    finally:
        podman("image", "umount", podman.image)
    history = podman("history", "--no-trunc", "--format=json", podman.image)
    assert CANARY_PIP not in history + json.dumps(podman.inspect(podman.image))


def test_its_size(podman: Podman) -> None:
    """What we add to the base is at most 60 MB, of which docs/image.md tells."""
    size = podman.inspect(podman.image)["Size"] - podman.inspect("localhost/base:trixie")["Size"]
    print(f"the layer: {size / MEGABYTE:.0f} MB")
    assert size < 60 * MEGABYTE


def test_two_builds_are_the_same(podman: Podman, tmp_path: Path) -> None:
    """Built again without a cache, from a copy with other times, each layer and the image are the same."""
    copy = tmp_path / "checkout"
    for name in ("Makefile", "README.md", "LICENSE", "pyproject.toml", ".dockerignore"):
        copy.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    for name in ("aca_tokend", "deploy", "docs", "requirements"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, copy_function=shutil.copyfile)
    again = podman.build(copy, "--no-cache", "--tag=localhost/again")
    first, second = podman.inspect(podman.image), podman.inspect(again)
    assert first["RootFS"]["Layers"] == second["RootFS"]["Layers"]
    assert first["Id"] == second["Id"]


def test_help_and_check_without_a_shell(containers: Podman, tmp_path: Path) -> None:
    """`--help` and `check` answer, read-only and as nobody, though no shell can be run."""
    config = tmp_path / "config.toml"
    shutil.copyfile(ROOT / "config.example.toml", config)
    hidden = tuple(f"/dev/null:/usr/bin/{shell}:ro" for shell in ("dash", "bash"))
    shown = Container(containers, "--help", mounts=hidden)
    assert shown.ended() == 0
    assert "Keep every configured token fresh" in shown.text
    checked = Container(containers, "check", mounts=(*hidden, f"{config}:/etc/aca-tokend/config.toml:ro"))
    assert checked.ended() == 0, checked.text
    assert "/etc/aca-tokend/config.toml: well" in checked.text


def test_a_wrong_configuration(containers: Podman) -> None:
    """Without a configuration it says which file it wanted, and exits 2."""
    container = Container(containers)
    assert container.ended() == 2
    assert "/etc/aca-tokend/config.toml" in container.text


def test_run(containers: Podman, stage: Stage) -> None:
    """It publishes to OpenBao and a file, as nobody, writes nowhere else, shows no secret; SIGTERM ends it with 0."""
    stage.config(["bookings"])
    stage.file_of("bookings")
    container = Container(containers, mounts=hand_over(stage))
    reader = stage.vault_reader("bookings")
    container.wait_for("token_rotated", 2)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{container.pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert set(status["Uid"].split()) | set(status["Gid"].split()) == {str(USER)}
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    told = json.dumps(containers.inspect(container.id))
    environment = Path(f"/proc/{container.pid}/environ").read_text()
    written = container.written
    assert container.terminate() == 0
    (stopped,) = container.events("daemon_stopped")
    assert stopped["unfinished"] == []
    assert written == []
    assert reader.accepted > 0
    assert reader.refused == 0, reader.last_refusal
    for secret in secrets_of(stage):
        for where, text in {"inspect": told, "log": container.text, "environment": environment}.items():
            assert secret not in text, f"a secret is in the {where}"
