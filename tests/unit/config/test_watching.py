"""What may be a change of the configuration rings, what is none does not, and nothing ends the watching."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from aca_tokend.config.watching import ConfigWatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GENEROUS = 60.0


class Rig:
    """A main file that includes others, and a watch that counts how often it rings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.main = folder / "config.toml"
        self.main.write_text("one")
        self.include = ["tokens.d/*.toml"]
        self._rung = threading.Semaphore(0)
        self.watch = ConfigWatch(self.main, lambda: self.include, self._rung.release)

    def start(self) -> None:
        """Starts, and takes the ring that comes because the file was written a moment ago."""
        self.watch.start()
        assert self.rings()

    def swap_main(self, text: str) -> None:
        """Changes the main file at one stroke: one that is written anew is empty for a moment, and may ring twice."""
        (self.folder / "fresh").write_text(text)
        (self.folder / "fresh").rename(self.main)

    def rings(self) -> bool:
        return self._rung.acquire(timeout=GENEROUS)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A watch that ends with the test."""
    rig = Rig(tmp_path)
    yield rig
    rig.watch.stop()
    if rig.watch._thread.is_alive():
        rig.watch._thread.join(GENEROUS)


def test_changes_ring(rig: Rig) -> None:
    """A file written anew, one that takes its place, an included one in a new folder and its end: each rings."""
    rig.start()
    rig.main.write_text("two!")
    assert rig.rings()
    rig.swap_main("three")
    assert rig.rings()
    (rig.folder / "tokens.d").mkdir()
    (rig.folder / "tokens.d" / "a.toml").write_text("a")
    assert rig.rings()
    (rig.folder / "tokens.d" / "a.toml").unlink()
    assert rig.rings()


def test_swap_of_a_mounted_config_map(tmp_path: Path) -> None:
    """The swap of `..data`, through which the main file is linked, rings."""
    for name in ("..1", "..2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text("same")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "config.toml").symlink_to("..data/config.toml")
    rung = threading.Semaphore(0)
    watch = ConfigWatch(tmp_path / "config.toml", lambda: (), rung.release)
    watch.start()
    try:
        assert rung.acquire(timeout=GENEROUS)
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        assert rung.acquire(timeout=GENEROUS)
    finally:
        watch.stop()


def test_other_files_do_not_ring(rig: Rig) -> None:
    """Whatever happens to other files in the same folder does not ring: the daemon's own log may be among them."""
    rig.start()
    for number in range(20):
        (rig.folder / "daemon.log").write_text("x" * number)
    (rig.folder / "tokens.d").mkdir()
    (rig.folder / "tokens.d" / "a.txt").write_text("no token")
    rig.swap_main("two!")

    assert rig.rings()
    assert not rig._rung.acquire(timeout=0.5), "the one ring is that of the main file"


def test_old_file_does_not_ring_at_the_start(rig: Rig) -> None:
    """A file that was there long before the daemon rings only once it changes."""
    rig.watch.start(recent_seconds=0.0)
    rig.swap_main("two!")

    assert rig.rings()
    assert not rig._rung.acquire(timeout=0.5)


def test_file_that_left_before_the_start_rings(rig: Rig) -> None:
    """An included file that was removed a moment before may have been read: its folder tells."""
    (rig.folder / "tokens.d").mkdir()
    (rig.folder / "tokens.d" / "a.toml").write_text("a")
    time.sleep(0.05)  # the system's time of a change cannot be set, and steps by some milliseconds
    between = time.time()
    time.sleep(0.05)  # the same
    (rig.folder / "tokens.d" / "a.toml").unlink()

    rig.watch.start(recent_seconds=time.time() - between)

    assert rig.rings()


def test_folder_that_vanishes_and_comes_back(rig: Rig) -> None:
    """The folder may vanish with everything in it: the watch goes on, and rings when it is back."""
    rig.start()
    rig.folder.rename(rig.folder.with_name("elsewhere"))
    assert rig.rings()
    rig.folder.mkdir()
    rig.main.write_text("back")
    assert rig.rings()


def test_file_that_is_written_in_steps(rig: Rig) -> None:
    """A file that grows while it is looked at is waited for, but not for ever."""
    rig.start()
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.wait(0.01):
            number += 1
            rig.swap_main("x" * number)

    writing = threading.Thread(target=write)
    writing.start()
    assert rig.rings(), "though it changes all the time"
    ended.set()
    writing.join()
    rig.swap_main("done")
    assert rig.rings()
