"""What needs packages of the system: a wall clock that tests can step, by Debian's faketime; the container image."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Passwords, Stage
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD
from tests.system.image.podman import Podman

if TYPE_CHECKING:
    from collections.abc import Iterator


class WallClock:
    """The wall clock of the processes that get `environment`; all clocks that count on are left alone."""

    def __init__(self, file: Path) -> None:
        self._file = file
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not libraries:
            pytest.fail("no libfaketimeMT.so.1: install the Debian package faketime")
        self.environment = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(0)

    def set(self, ahead_seconds: int) -> None:
        """Steps it so that it is so many seconds ahead of the machine's."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{ahead_seconds:+d}\n")
        fresh.rename(self._file)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The servers, with tokens of 8 seconds and canaries for secrets."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=8.0, raft=True, passwords=passwords) as stage:
        yield stage


@pytest.fixture
def wall(tmp_path: Path) -> WallClock:
    """A wall clock that can be stepped; it is right at first."""
    return WallClock(tmp_path / "faketime")


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """The image, built once, in a podman of its own. All tests that use it are of one group of xdist, "podman"."""
    # not in a directory of pytest: the path of the sockets of podman would be too long
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as directory:
        podman = Podman(Path(directory) / "p")
        try:
            podman.make_base()
            podman.image = podman.build()
            yield podman
        finally:
            podman.remove()
