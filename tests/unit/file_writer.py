"""Another process that publishes into a file: `python -m tests.unit.file_writer ACTION PATH`, run by test_file_sink.py.

It says what it saw as lines of JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aca_tokend.core.config import FilePublish
from aca_tokend.core.errors import ReasonedError
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document
from aca_tokend.sinks.file import FileSink

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


def attempt(path: str, owner: str = "") -> None:
    """Says how a look and a publish failed, "" where they did not."""
    sink = FileSink(FilePublish(path=path, owner=owner))
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


def _drop_root() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def limited(path: str) -> None:
    """Publishes where no file may grow beyond 100 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    attempt(path)


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


def dying(path: str) -> None:
    """Is killed between the last byte of the temporary file and the rename."""
    sink = FileSink(FilePublish(path=path))
    seen = sink.look()
    sys.addaudithook(lambda event, _: os.kill(os.getpid(), signal.SIGKILL) if event == "os.rename" else None)
    sink.publish(document(2), seen)


def forever(path: str) -> None:
    """Publishes one document after the other, saying the number of each, until it is killed."""
    sink = FileSink(FilePublish(path=path))
    seen = sink.look()
    for number in itertools.count(1):
        seen = sink.publish(document(number), seen)
        say(number)


if __name__ == "__main__":
    actions = (as_nobody, as_nobody_for_root, limited, on_a_full_disk, watched, dying, forever)
    {action.__name__: action for action in actions}[sys.argv[1]](sys.argv[2])
