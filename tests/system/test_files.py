"""Files on real disks that are full or read-only, and as systemd's own code reads them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aca_tokend.core.formats import render
from aca_tokend.core.outcome import Reason
from tests.unit.file_writer import CANARY, document
from tests.unit.test_formats import AWKWARD, awkward

ROOT = Path(__file__).parents[2]
NAME = "bookings.json"
LIBRARIES = [
    file for place in ("lib/systemd", "lib/*/systemd") for file in Path("/usr").glob(f"{place}/libsystemd-shared-*.so")
]
SYSTEMD = """
import ctypes, json, sys
read = ctypes.POINTER(ctypes.c_char_p)()
status = ctypes.CDLL(sys.argv[1]).load_env_file(None, sys.argv[2].encode(), ctypes.byref(read))
assert status == 0, status
lines, number = [], 0
while read and read[number]:
    lines.append(read[number].decode())
    number += 1
print(json.dumps(dict(line.split("=", 1) for line in lines)))
"""


def on_a_disk(action: str, path: Path) -> list[Any]:
    """What a process says that has mounted a file system of its own, which nobody else sees."""
    command = ["unshare", "--mount", "--map-root-user", sys.executable, "-m", "tests.unit.file_writer", action]
    done = subprocess.run([*command, str(path)], cwd=ROOT, capture_output=True, check=False, text=True)
    if done.returncode:
        pytest.fail(f"it takes root, or user namespaces, to mount a file system: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_full_disk(tmp_path: Path) -> None:
    """On a full disk the publish fails, the old file is whole and no temporary file is left."""
    (reason, message), fields, found = on_a_disk("on_a_full_disk", tmp_path / NAME)
    assert reason == Reason.DISK_FULL
    assert CANARY not in message
    assert fields == document(1).fields()
    assert found == [f".{NAME}.lock", NAME, "filler"]


def test_look_tells_of_sick_disks(tmp_path: Path) -> None:
    """A file system without space, without inodes or read-only is told of before a grant; nothing is written."""
    path = tmp_path / NAME
    *told, left = on_a_disk("on_sick_disks", path)
    assert told == [
        [Reason.DISK_FULL, f"{path}: no space is left on its file system"],
        [Reason.DISK_FULL, f"{path}: its file system can take no further file"],
        [Reason.READ_ONLY, f"{path}: its file system is read-only"],
    ]
    assert left == ["filler"]


def test_env_is_read_by_systemd(tmp_path: Path) -> None:
    """The parser of EnvironmentFile=, in systemd's own library, reads exactly the values of the document from env."""
    if not LIBRARIES:
        pytest.fail("no libsystemd-shared: install the Debian package systemd")
    for number, value in enumerate(AWKWARD):
        path = tmp_path / str(number)
        path.write_bytes(render(awkward(value), "env"))
        command = [sys.executable, "-c", SYSTEMD, str(LIBRARIES[0]), str(path)]
        read = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert read == {f"ACA_{name.upper()}": str(field) for name, field in awkward(value).fields().items()}, value
