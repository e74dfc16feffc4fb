"""The real parts: a look-alike, an OpenBao with raft storage, and daemons as processes of their own."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import Passwords, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.demo.stage import DaemonProcess

CANARY_PASSWORD = "canary-p&ss+w%rd=ü-4f1b"
CANARY_CLIENT_SECRET = "canary-client-secret-b7c2"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The servers, with tokens of 8 seconds and canaries for secrets."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=8.0, raft=True, passwords=passwords) as stage:
        yield stage


def secrets_of(stage: Stage) -> set[str]:
    """Every secret that this stage knows of, in the forms in which it travels."""
    values = {CANARY_PASSWORD, CANARY_CLIENT_SECRET, stage.bao.root_token.reveal()}
    for published in stage.directory.glob("published*/*.json"):
        import json

        values.add(json.loads(published.read_text())["access_token"])
    values |= {urllib.parse.quote_plus(value) for value in values}
    return values | {value.encode("unicode_escape").decode() for value in values}


def of_process(pid: int, *names: str) -> str:
    """What /proc tells of a process; nothing where it keeps that even from its own user, unless that is root."""
    told = ""
    for name in names:
        with contextlib.suppress(PermissionError):
            told += Path(f"/proc/{pid}/{name}").read_bytes().decode()
    return told


def open_files(pid: int) -> int:
    """How many files a process has open; 0 where it keeps that to itself."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except PermissionError:
        return 0


def assert_nothing_leaked(stage: Stage, daemon: DaemonProcess) -> None:
    """No secret is in the daemon's log, its pages, its arguments or its environment."""
    seen = {"log": daemon.text}
    if daemon.running:
        proc = Path(f"/proc/{daemon.process.pid}")
        seen |= {
            "metrics": daemon.get("/metrics")[1],
            "health": daemon.get("/-/healthy")[1] + daemon.get("/-/ready")[1] + daemon.get("/nothing")[1],
            "status": "".join(daemon.get(page)[1] for page in ("/api/v1/status", "/")),
            "process list": of_process(daemon.process.pid, "cmdline", "environ"),
            "names of threads": " ".join(
                (task / "comm").read_text() for task in (proc / "task").iterdir() if os.access(task, os.R_OK)
            ),
        }
    for where, text in seen.items():
        for secret in secrets_of(stage):
            assert secret not in text, f"a secret is in the {where}"
