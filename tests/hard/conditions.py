"""What a machine may do to a daemon, and how each is done to a real one and taken away again."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aca_tokend.demo.stage import Stage
    from tests.hard.log import UnreadLog

    Condition = Callable[[], contextlib.AbstractContextManager[None]]

# What a limit on memory leaves: less than the stack of a thread.
SPARE_BYTES = 1 << 20
SWAP_SECONDS = 0.05
# The hook of a token gets its file, and where to copy that.
COPIES = 'cp "$1" "$2.new" && mv "$2.new" "$2"'


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions around one daemon.

    Attributes:
        folder: of included files, which a link `..data` leads to, as in a ConfigMap.
        hook: the program that runs after writes.
        bad: where the places are that come and go.
    """

    stage: Stage
    pid: int
    log: UnreadLog
    folder: Path
    hook: Path
    bad: Path

    def by_name(self) -> Mapping[str, Condition]:
        """Each condition: it is there as long as its context."""
        lookalike = self.stage.lookalike
        return {
            "no further descriptor": lambda: self._limit(resource.RLIMIT_NOFILE, self._descriptors),
            "no further memory or thread": lambda: self._limit(resource.RLIMIT_AS, self._memory),
            "no space in files": lambda: self._limit(resource.RLIMIT_FSIZE, lambda: 0),
            "a log that nobody reads": self.log.unread,
            "files that swap": self._swapping,
            "a folder that cannot be listed": self._unlisted,
            "a pipe among the files": self._pipe,
            "SIGHUP again and again": lambda: self._again(lambda: os.kill(self.pid, signal.SIGHUP)),
            "a hook that hangs": lambda: self._hook("exec sleep 60"),
            "a hook that fails": lambda: self._hook("exit 1"),
            "a hook that leaves a process": lambda: self._hook(f"setsid sleep 60 & {COPIES}"),
            "no hook": lambda: self._hook(None),
            "no places": self._no_places,
            "an endpoint that hangs": lambda: _between(lambda: lookalike.fail("hang"), lookalike.heal),
            "an endpoint that resets": lambda: _between(lambda: lookalike.fail("reset"), lookalike.heal),
            "a Vault that halts": self._vault_halts,
        }

    @contextlib.contextmanager
    def _limit(self, which: int, to: Callable[[], int]) -> Iterator[None]:
        before = resource.prlimit(self.pid, which)
        resource.prlimit(self.pid, which, (to(), before[1]))
        try:
            yield
        finally:
            resource.prlimit(self.pid, which, before)

    def _descriptors(self) -> int:
        """The limit at which it can open no further one: its lowest free number."""
        used = {int(it.name) for it in Path(f"/proc/{self.pid}/fd").iterdir()}
        return min(set(range(len(used) + 1)) - used)

    def _memory(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[0])
        return pages * resource.getpagesize() + SPARE_BYTES

    @contextlib.contextmanager
    def _again(self, act: Callable[[], None]) -> Iterator[None]:
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(SWAP_SECONDS):
                act()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _swapping(self) -> contextlib.AbstractContextManager[None]:
        return self._again(self._swap)

    def _swap(self) -> None:
        """The same files in another folder, as kubelet swaps them."""
        data = self.folder / "..data"
        before = data.resolve()
        fresh = self.folder / f"..{os.urandom(8).hex()}"
        shutil.copytree(before, fresh)
        (self.folder / "..next").symlink_to(fresh.name)
        (self.folder / "..next").rename(data)
        shutil.rmtree(before)

    def _unlisted(self) -> contextlib.AbstractContextManager[None]:
        """Root may list every folder, but for one that is a link to itself."""
        kept = self.folder.with_name("kept.d")

        def begin() -> None:
            self.folder.rename(kept)
            self.folder.symlink_to(self.folder.name)

        def end() -> None:
            self.folder.unlink()
            kept.rename(self.folder)

        return _between(begin, end)

    def _pipe(self) -> contextlib.AbstractContextManager[None]:
        pipe = self.folder / "pipe.toml"
        return _between(lambda: os.mkfifo(pipe), pipe.unlink)

    def _hook(self, does: str | None) -> contextlib.AbstractContextManager[None]:
        def begin() -> None:
            if does is None:
                self.hook.unlink()
            else:
                write_hook(self.hook, does)

        return _between(begin, lambda: write_hook(self.hook, COPIES))

    def _no_places(self) -> contextlib.AbstractContextManager[None]:
        kept = self.bad.with_name("kept")
        return _between(lambda: self.bad.rename(kept) and None, lambda: kept.rename(self.bad) and None)

    def _vault_halts(self) -> contextlib.AbstractContextManager[None]:
        pid = self.stage.bao.pid
        return _between(lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT))


def write_hook(path: Path, does: str) -> None:
    """Puts a program there, whole from the first moment."""
    fresh = path.with_suffix(".new")
    fresh.write_text(f"#!/bin/sh\n{does}\n")
    fresh.chmod(0o755)
    fresh.rename(path)


@contextlib.contextmanager
def _between(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    begin()
    try:
        yield
    finally:
        end()
