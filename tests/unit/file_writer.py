"""Another process that publishes into a file: `python -m tests.unit.file_writer ACTION PATH`, run by test_file_sink.py.

It says what it saw as lines of JSON.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from aca_tokend.core.config import DirectoryPublish, FilePublish, FormatConfig
from aca_tokend.core.errors import ReasonedError
from aca_tokend.core.formats import render
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document, Seen
from aca_tokend.sinks import FileSink, build, clean_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.formats import Format

CANARY = "canary-access-token-27d0"
NOBODY = 65534


def document(number: int) -> Document:
    """The token that was issued `number` seconds after the first."""
    issued = datetime(2026, 11, 24, 6, 0, tzinfo=UTC) + timedelta(seconds=number)
    return Document(
        access_token=Secret(f"{CANARY}-{number}"),
        issued_at=issued,
        expires_at=issued + timedelta(hours=2),
        refresh_after=issued + timedelta(hours=1),
        expires_in=7200,
        scope="public",
        username="svc-bookings",
        authority="authority-ID",
        account="00112233445566778899aabbccddeeff",
    )


def say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def attempt(path: str, owner: str = "", kind: str = "json", group: str = "") -> None:
    """Says how a look and a publish failed, "" where they did not."""
    sink = build(config_of(kind, path).model_copy(update={"owner": owner, "group": group}), {})
    try:
        sink.publish(document(2), sink.look())
    except ReasonedError as error:
        say([error.reason, str(error)])
    else:
        say(["", ""])


def as_nobody(path: str) -> None:
    """Publishes without root's privileges, which permission bits do not bind."""
    _drop_root()
    attempt(path)


def as_nobody_for_root(path: str) -> None:
    """Publishes a file that is to be root's without being root."""
    _drop_root()
    attempt(path, owner="root")


def unreadable(path: str, kind: str, mode: str, owner: str, group: str) -> None:
    """Says how a publish without a look before it, and then a look, failed, "" where they did not."""
    config = config_of(kind, path).model_copy(update={"mode": int(mode, 8), "owner": owner, "group": group})
    sink = build(config, {})
    runs: tuple[Callable[[], object], ...] = (lambda: sink.publish(document(1), Seen(None, None)), sink.look)
    for run in runs:
        try:
            run()
        except ReasonedError as error:
            say([error.reason, str(error)])
        else:
            say(["", ""])


def _drop_root() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def limited(path: str, kind: str = "json") -> None:
    """Publishes where no file may grow beyond 100 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    attempt(path, kind=kind)


def on_a_full_disk(path: str) -> None:
    """Publishes on a file system of two pages, once with room and once without. Needs a mount namespace of its own."""
    directory = Path(path).parent
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(directory)], check=True)  # noqa: S607
    sink = FileSink(FilePublish(path=path))
    sink.publish(document(1), sink.look())
    (directory / "filler").write_bytes(b"0" * 4096)
    attempt(path)
    say(json.loads(Path(path).read_bytes()))
    say(sorted(os.listdir(directory)))  # noqa: PTH208


def on_sick_disks(path: str) -> None:
    """Looks where nothing is published yet: on a file system without space, one without inodes, a read-only one."""
    directory = Path(path).parent
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(directory)]
    subprocess.run(mount, check=True)
    (directory / "filler").write_bytes(b"0" * 4096)
    attempt(path)
    for options in ("remount,size=1m,nr_inodes=2", "remount,nr_inodes=9,ro"):
        subprocess.run(["mount", "-o", options, str(directory)], check=True)  # noqa: S607
        attempt(path)
    say(sorted(os.listdir(directory)))  # noqa: PTH208


def watched(path: str) -> None:
    """Says of each change of the temporary file's mode and of its rename which mode and size it then has."""
    os.umask(0)
    sink = FileSink(FilePublish(path=path, mode=0o640))
    seen = sink.look()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        match event, arguments:
            case "os.chmod", (int() as file, *_):
                status = os.fstat(file)
            case "os.rename", (str() as name, *_):
                status = Path(path).with_name(name).stat()
            case _:
                return
        say([event, f"{status.st_mode & 0o7777:04o}", status.st_size])

    sys.addaudithook(hook)
    sink.publish(document(1), seen)


def ordered(path: str, *forms: str) -> None:
    """Publishes in one format after the other, saying the calls whose order a power cut could show."""
    calls: list[str] = []

    def note(_: object, event: str, called: object) -> None:
        name = getattr(called, "__name__", "")
        if event == "c_call" and name in {"fsync", "rename", "unlink"}:
            calls.append(name)

    for number, form in enumerate(forms):
        sink = FileSink(FilePublish(path=path, format=cast("Format", form)))
        seen = sink.look()
        sys.setprofile(note)
        sink.publish(document(number), seen)
        sys.setprofile(None)
    say(calls)


def dying(path: str) -> None:
    """Is killed between the last byte of the temporary file and the rename."""
    sink = FileSink(FilePublish(path=path))
    seen = sink.look()
    sys.addaudithook(lambda event, _: os.kill(os.getpid(), signal.SIGKILL) if event == "os.rename" else None)
    sink.publish(document(2), seen)


def config_of(kind: str, path: str) -> FilePublish | DirectoryPublish:
    """A place of this kind, with files from which a reader can tell whole from torn."""
    if kind == "directory":
        files = {"token": FormatConfig(format="token"), "env": FormatConfig(format="env"), "json": FormatConfig()}
        return DirectoryPublish(path=path, files=files)
    return FilePublish(path=path, format="env" if kind == "env" else "json")


def killed(path: str, kind: str, count: str) -> None:
    """Kills so many writers at random moments of their work; says what was wrong after each, and at last all names."""
    place = config_of(kind, path)
    done = memoryview(mmap.mmap(-1, 8)).cast("q")  # a number is stored whole; `struct` would set it to 0 first
    draw = random.Random(count)  # noqa: S311  # moments, no secrets
    wrong, last = [], 0
    for number in range(int(count)):
        done[0] = last
        writer = os.fork()
        if writer == 0:
            _write_on(place, last, done)
        time.sleep(draw.uniform(0.001, 0.03))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        said = done[0]
        found = _read_whole(kind, Path(path))
        if found is None or not said <= found <= said + 1:
            wrong.append([number, "reader", said, found])
        seen = build(place, {}).look()
        if found and (seen.document is None or seen.document != document(found)):
            wrong.append([number, "look", said, seen.foreign])
        clean_up([place])
        last = found or said
    say(wrong)
    say([last, sorted(entry.name for entry in Path(path).parent.rglob("*"))])


def _write_on(place: FilePublish | DirectoryPublish, last: int, done: memoryview) -> NoReturn:
    sink = build(place, {})
    seen = sink.look()
    for number in itertools.count(last + 1):
        seen = sink.publish(document(number), seen)
        done[0] = number
    raise AssertionError


def _read_whole(kind: str, path: Path) -> int | None:
    """The number of the document that an application finds, None where there is none. Fails on what is not whole."""
    if not os.path.lexists(path / "..data" if kind == "directory" else path):
        return 0
    names = ("token", "env", "json") if kind == "directory" else (kind,)
    contents = {name: (path / "..data" / name if kind == "directory" else path).read_text("utf-8") for name in names}
    numbers = set()
    for name, content in contents.items():
        match = re.search(rf"{CANARY}-([0-9]+)", content)
        numbers.add(int(match[1]) if match else -1)
        if match and content.encode() != render(document(int(match[1])), cast("Format", name)):
            return None
    return numbers.pop() if len(numbers) == 1 else None


if __name__ == "__main__":
    actions = (
        *(killed, as_nobody, as_nobody_for_root, limited, on_a_full_disk, on_sick_disks),
        *(watched, ordered, dying, attempt, unreadable),
    )
    {action.__name__: action for action in actions}[sys.argv[1]](*sys.argv[2:])
