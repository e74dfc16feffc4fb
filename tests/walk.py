"""Calls the commands of pages as a reader of the page would, beside a daemon that runs."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.demo.stage import DaemonProcess, Settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from aca_tokend.demo.stage import Stage
    from tests.blocks import Block

PATIENCE_SECONDS = 120.0
# our program first, and `bao`, which lies beside it
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
HELD = re.compile("token_(rotated|adopted)")
TOKENS = ["bookings", "rooms"]
# `simulate` answers a question: that readers would be refused is an answer
ANSWERS = {"simulate": {0, 1}}


def calls(blocks: Iterable[Block]) -> Iterator[str]:
    """Each different command of the blocks once, without what is said of it."""
    seen = set()
    for block in blocks:
        for line in block.content.replace("\\\n", "").splitlines():
            call = re.sub(r"(^| +)# .*$", "", line).strip()
            if call and call not in seen:
                seen.add(call)
                yield call


def call_in(directory: Path, command: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Calls a command of a page in a folder: its exit code, and what it printed."""
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", command],
        cwd=directory,
        env={"PATH": PATH, "HOME": str(directory), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


class Walk:
    """A folder with the `config.toml` of the pages, whose tokens `bookings` and `rooms` a daemon keeps already.

    The names of servers in commands lead to the look-alike and to OpenBao.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        daemon = stage.config(TOKENS, Settings(rotation="", files=True))
        self.running = stage.daemon(daemon)
        self.running.wait_for("token_rotated", len(TOKENS))
        self.directory = stage.directory / "walk"
        self.directory.mkdir()
        text = daemon.read_text()
        (self.directory / "another.toml").write_text(text)
        port = self.running.admin_port
        (self.directory / "config.toml").write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        self.environment = {
            "PATH": PATH,
            "HOME": str(self.directory),
            "ACA_TOKEND_CONFIG": str(self.directory / "config.toml"),
            "BAO_ADDR": stage.bao.address,
            "BAO_TOKEN": stage.bao.root_token.reveal(),
        }
        self.names = {
            "https://aca.example.com": stage.lookalike.url,
            "http://127.0.0.1:9464": f"http://127.0.0.1:{port}",
            "/etc/aca-tokend/config.toml": "config.toml",
        }

    def call(self, command: str) -> str:
        """Calls one command, and returns what it printed. A daemon is stopped once it holds a token."""
        for shown, real in self.names.items():
            command = command.replace(shown, real)
        if re.match(r"aca-tokend run(?! --once)", command):
            return self._run(command.replace("config.toml", "another.toml"))
        if "--watch" in command:
            return self._watch(command)
        code, told = call_in(self.directory, command, self.environment)
        program = command.split()
        assert code in ANSWERS.get(program[1] if program[1:] else "", {0}), (command, told)
        return told

    def _begin(self, command: str, output: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/bash", "-euo", "pipefail", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def _watch(self, command: str) -> str:
        """On a terminal, until it shows a token; then Ctrl-C."""
        ours, its = pty.openpty()
        process = self._begin(f"exec {command}", its)
        os.close(its)
        shown = b""
        while TOKENS[0].encode() not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        # what it still draws is taken, so that it does not wait for us
        with contextlib.suppress(OSError):
            while os.read(ours, 65536):
                pass
        os.close(ours)
        assert process.wait(PATIENCE_SECONDS) == 0, shown
        return shown.decode()

    def _run(self, command: str) -> str:
        log = self.directory / "run.log"
        with log.open("wb") as stream:
            daemon = DaemonProcess(self._begin(f"exec {command}", stream.fileno()), log, 0)
        try:
            wait_until(lambda: bool(HELD.search(daemon.text)) or not daemon.running, "a token that a daemon holds")
            assert daemon.terminate() == 0, daemon.text
        finally:
            daemon.kill()
        return daemon.text
