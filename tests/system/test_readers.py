"""The snippets that are programs of their own: Node, Go, the shell with curl and jq, and the units of systemd."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.demo.child import Child
from aca_tokend.demo.stage import Stage, wait_until
from tests.readers.scenario import (
    ACCOUNT,
    API_PATH,
    NO_TOKEN,
    SECRET_PATH,
    WEBSOCKET_PATH,
    here,
    meets_a_dead_token,
    meets_rotations,
    start_daemon,
    vault_token_file,
)
from tests.readers.snippets import READERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.readers.scenario import Reader

HERE = Path(__file__).parent / "readers"
SCRIPT = READERS / "shell" / "aca-curl"
UNITS = READERS / "systemd"
NODE_WITH_WEBSOCKET = 22
GO = os.environ | {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "", "GOWORK": "off"}
SHELL_STATUS = {0: 200, 3: NO_TOKEN, 22: 401}


class ProgramReader:
    """A program that makes a request for each line, and answers with the status and how often it read."""

    def __init__(self, command: list[str], log: Path, path: str = API_PATH) -> None:
        self.path = path
        self.reads = 0
        self.child = Child(command, log=log)
        self._log = log
        self._answers = ""

    def ask(self) -> int:
        self.child.write_line("ask")
        answer = self.child.read_line()
        if not answer:
            self.child.give_up("the reader ended")
        self._answers += answer
        status, self.reads = map(int, answer.split())
        return status

    @property
    def said(self) -> str:
        return self._answers + self._log.read_text()


class ShellReader:
    """The script, run anew for each request: it reads every time."""

    path = API_PATH
    reads = None

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self.said = ""

    def ask(self) -> int:
        done = subprocess.run(
            self._command, env=self._environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode in SHELL_STATUS, done.stderr
        assert (ACCOUNT in done.stdout) == (done.returncode == 0), "the answer of the API"
        self.said += done.stdout + done.stderr
        return SHELL_STATUS[done.returncode]


class UnitReader(ShellReader):
    """The command of the service that runs and ends, with the copy of the file that systemd would make for it."""

    def __init__(self, stage: Stage) -> None:
        self._published = stage.file_of(ACCOUNT)
        self._credentials = stage.directory / "credentials"
        self._credentials.mkdir()
        (start,) = re.findall(r"^ExecStart=(.+)$", (UNITS / "aca-report.service").read_text(), re.MULTILINE)
        for old, new in {
            "/usr/local/bin/aca-curl": str(SCRIPT),
            "%d": str(self._credentials),
            "https://aca.example.com": stage.lookalike.url,
        }.items():
            assert old in start
            start = start.replace(old, new)
        super().__init__(shlex.split(start), {"PATH": os.environ["PATH"]})

    def ask(self) -> int:
        shutil.copy(self._published, self._credentials / "bookings.json")
        return super().ask()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The servers, with tokens of 8 seconds."""
    with Stage(tmp_path, lifetime=8.0) as stage:
        yield stage


@pytest.fixture(scope="session")
def go_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go snippet, built with the program that asks."""
    module = tmp_path_factory.mktemp("go")
    shutil.copytree(READERS / "go", module / "acatoken")
    shutil.copy(HERE / "ask.go", module)
    (module / "go.mod").write_text("module example.com/bookings\n\ngo 1.21\n")
    for command in (["gofmt", "-l", "-d", "."], ["go", "vet", "./..."], ["go", "build", "-o", "ask", "."]):
        done = subprocess.run(command, cwd=module, env=GO, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), command
    return module / "ask"


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("node", "go", "shell")])
def readers(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Mapping[str, Reader]]:
    """The readers in one language, with a file and with OpenBao."""
    file = str(stage.file_of(ACCOUNT))
    token_file = vault_token_file(stage)
    secret = [f"{stage.bao.address}/v1/{SECRET_PATH}", str(token_file)]
    url = stage.lookalike.url + API_PATH
    if request.param == "shell":
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # where `bao` is
            "BAO_ADDR": stage.bao.address,
            "BAO_TOKEN": token_file.read_text().strip(),
        }
        yield {
            "file": ShellReader([str(SCRIPT), file, url], environment),
            "OpenBao": ShellReader([str(SCRIPT), f"secret/aca/{ACCOUNT}", url], environment),
            "systemd": UnitReader(stage),
        }
        return
    if request.param == "go":
        program = [str(request.getfixturevalue("go_reader"))]
        commands = {"file": [*program, "file", file, url], "OpenBao": [*program, "vault", *secret, url]}
    else:
        program = [*node(), str(HERE / "ask.mjs"), str(READERS)]
        socket = stage.lookalike.url.replace("http", "ws", 1) + WEBSOCKET_PATH
        commands = {
            "file": [*program, "file", file, url],
            "OpenBao": [*program, "vault", *secret, url],
            "websocket": [*program, "file", file, socket],
        }
    readers = {
        name: ProgramReader(
            command, stage.directory / f"{name}.log", WEBSOCKET_PATH if name == "websocket" else API_PATH
        )
        for name, command in commands.items()
    }
    yield readers
    for reader in readers.values():
        reader.child.stop()


def node() -> list[str]:
    """Node, with the WebSocket that newer ones have by themselves."""
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    old = int(version.removeprefix("v").partition(".")[0]) < NODE_WITH_WEBSOCKET
    return ["node", "--experimental-websocket", "--disable-warning=ExperimentalWarning"] if old else ["node"]


def test_rotations(stage: Stage, readers: Mapping[str, Reader]) -> None:
    """No reader is refused while tokens are rotated, and none sends one that has expired."""
    meets_rotations(stage, readers)


def test_dead_token(stage: Stage, readers: Mapping[str, Reader]) -> None:
    """A 401 leads to one read and, where that finds another token, to one more request; else it is the answer."""
    meets_a_dead_token(stage, readers)


def test_header_file(stage: Stage) -> None:
    """A file with the header line is enough for curl, over rotations."""
    file = stage.directory / "bookings.header"
    daemon = start_daemon(stage, f'[[tokens.publish]]\nto = "file"\npath = "{file}"\nformat = "header"\n')
    script = (READERS / "shell" / "header.sh").read_text()
    script = here(script, stage).replace("/run/aca/bookings.header", str(file))

    def rotated() -> bool:
        done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=False, timeout=60)  # noqa: S607
        assert ACCOUNT in done.stdout, done.stderr
        return len(daemon.events("token_rotated")) > 2

    wait_until(rotated, "two rotations")


def test_examples(stage: Stage) -> None:
    """The examples for Node run as they are shown."""
    start_daemon(stage)
    shutil.copy(READERS / "node" / "aca-token.mjs", stage.directory)
    for name in ("example.mjs", "example-vault.mjs"):
        example = stage.directory / name
        example.write_text(here((READERS / "node" / name).read_text(), stage))
        done = subprocess.run([*node(), str(example)], capture_output=True, text=True, check=False, timeout=60)
        assert ACCOUNT in done.stdout, done.stderr


@pytest.mark.xdist_group("go")
def test_example_in_go(stage: Stage, go_reader: Path) -> None:
    """The example for Go runs as it is shown, as a program instead of a test."""
    start_daemon(stage)
    example = here((READERS / "go" / "example_test.go").read_text(), stage)
    for shown, run in {"package acatoken_test": "package main", "func Example()": "func main()"}.items():
        assert shown in example
        example = example.replace(shown, run)
    program = go_reader.parent / "example" / "main.go"
    program.parent.mkdir()
    program.write_text(example)
    command = ["go", "run", "./example"]
    done = subprocess.run(
        command, cwd=go_reader.parent, env=GO, capture_output=True, text=True, check=False, timeout=120
    )
    assert ACCOUNT in done.stdout, done.stderr


def verified(directory: Path) -> str:
    """What systemd has to say about the units in a directory; nothing is well."""
    units = sorted(str(unit) for unit in directory.iterdir())
    command = ["systemd-analyze", "verify", "--man=no", *units]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def test_units(tmp_path: Path) -> None:
    """The units have nothing that systemd finds wrong, and it would have found a mistyped key."""
    for unit in UNITS.iterdir():
        text = unit.read_text()
        # it looks whether programs are there
        for program in re.findall(r"/usr/local/bin/\S+", text):
            text = text.replace(program, str(SCRIPT))
        (tmp_path / unit.name).write_text(text)
    assert verified(tmp_path) == ""

    service = tmp_path / "aca-report.service"
    service.write_text(service.read_text().replace("DynamicUser", "DynamicUsers"))
    assert "Unknown key" in verified(tmp_path)
