"""Checks of each place in the file system, and of the hook that follows a write. Nothing is written."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.core.config import CommandHook, VaultPublish, after_of
from aca_tokend.core.errors import LookError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import Call
from aca_tokend.doctor.examination import Check, advice
from aca_tokend.doctor.findings import Area
from aca_tokend.sinks import where
from aca_tokend.sinks.atomic import Access, opened, told_as
from aca_tokend.sinks.hooks import DEFAULT_PATH
from aca_tokend.sinks.mounts import FILE_POOL, pool_of
from aca_tokend.sinks.probe import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.core.config import After, AnyFiles
    from aca_tokend.doctor.examination import Notes
    from aca_tokend.parts import Parts

DIRECTORY, OWNER, MEMORY, HOOK = "directory", "owner", "memory", "hook"
MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})


def places(parts: Parts) -> Iterator[Check]:
    """One for each place. Its key is its path."""
    known: dict[tuple[str, str], str] = {}
    for place in _places(parts):
        examine = partial(_place, place=place, known=known)
        yield Check(Area.FILE, place.path, (DIRECTORY, OWNER), examine, key=place.path)


def surroundings(parts: Parts) -> Iterator[Check]:
    """One for each directory, and for each hook."""
    for directory in dict.fromkeys(where(place)[0] for place in _places(parts)):
        yield Check(Area.FILE, directory, (MEMORY,), partial(_memory, directory=directory))
    for after in dict.fromkeys(after_of(place) for place in _places(parts)):
        if after is not None:
            subject = f"command {after.command[0]}" if isinstance(after, CommandHook) else f"pid file {after.pid_file}"
            yield Check(Area.FILE, subject, (HOOK,), partial(_hook, after=after))


def _places(parts: Parts) -> list[AnyFiles]:
    return [it for token in parts.config.tokens for it in token.publish if not isinstance(it, VaultPublish)]


async def _place(notes: Notes, place: AnyFiles, known: dict[tuple[str, str], str]) -> None:
    """Tries a place. `known` are the places of other checks, by where they really are."""
    directory, name = where(place)
    try:
        real = await Call(pool_of(place.path), lambda: _probe(place))
    except LookError as error:
        said = error.message.removeprefix(f"{place.path}: ")
        if error.reason is not Reason.OWNER_NOT_SET:
            notes.error(DIRECTORY, error, said)
            return
        notes.ok(DIRECTORY, "may be written")
        notes.error(OWNER, error, said)
    else:
        if (other := known.setdefault((real, name), place.path)) != place.path:
            notes.failed(
                DIRECTORY, f"is the same place as {other}, by a link", "publish each token to places of its own"
            )
            return
        notes.ok(DIRECTORY, "may be written" if real == directory else f"may be written; it leads to {real}")
        notes.ok(OWNER, "the daemon may give it its owner and group, and read it again")


def _probe(place: AnyFiles) -> str:
    """Where its directory really is. Raises LookError."""
    directory, name = where(place)
    with told_as(LookError, place.path), opened(directory, os.O_DIRECTORY) as found:
        probe(found, name, Access(place.mode, place.owner, place.group))
    return os.path.realpath(directory)


async def _memory(notes: Notes, directory: str) -> None:
    _tell_memory(notes, await Call(pool_of(directory), lambda: _file_system(directory)))


def _tell_memory(notes: Notes, kind: str) -> None:
    if not kind:
        notes.skipped(MEMORY, "the directory, or its file system, cannot be found")
    elif kind in MEMORY_FILE_SYSTEMS:
        notes.ok(MEMORY, f"on {kind}: in memory alone")
    else:
        notes.warn(MEMORY, f"on {kind}: tokens are written to a disk", "use a directory on a tmpfs, such as below /run")


def _file_system(directory: str, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of file system that a directory is on, as the kernel calls it; empty where that cannot be told."""
    try:
        device = Path(directory).stat().st_dev
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    # proc(5): the third field is the device, and the kind follows the only field that is a hyphen
    return next((line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == number), "")


async def _hook(notes: Notes, after: After) -> None:
    if isinstance(after, CommandHook):
        program = after.command[0]
        found = await Call(FILE_POOL, lambda: shutil.which(program, path=os.environ.get("PATH", DEFAULT_PATH)))
        if found is None:
            notes.failed(HOOK, "there is no such program that may be run", advice(Reason.COMMAND_MISSING))
        else:
            notes.ok(HOOK, f"is {found}")
    elif await Call(FILE_POOL, lambda: os.access(after.pid_file, os.R_OK)):
        notes.ok(HOOK, "can be read")
    else:
        notes.failed(HOOK, "is not there, or may not be read", advice(Reason.PID_FILE_MISSING))
