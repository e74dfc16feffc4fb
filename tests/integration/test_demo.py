"""The demo as a process: it ends by itself or when asked, tells how it went, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.demo.stage import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PROGRAM = "from aca_tokend.__main__ import main; main()"
# Many times what it takes: the machine may be slow.
PATIENCE_SECONDS = 120.0
FIRST_TOKENS = "first tokens published after"
SUMMARY = re.compile(r"ran for (\d+) s: (\d+) rotations, ([\d,]+) reads, 0 refused, (\d+) different tokens seen")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def _hear_hang_ups() -> None:
    """Undoes what `nohup` around the tests would hand down."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Demo:
    """A running demo, all of whose files are in `directory`."""

    def __init__(self, base: Path, *arguments: str, program: str = PROGRAM, terminal: bool = False) -> None:
        self.directory = base / "tmp"
        self.directory.mkdir()
        self._output, self._errors = base / "output", base / "errors"
        self._output.touch()
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment |= {"TMPDIR": str(self.directory), "PYTHONUTF8": "1", "TERM": "xterm-256color"}
        ours, its = os.openpty() if terminal else (None, os.open(self._output, os.O_WRONLY))
        if ours is not None:
            fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, "demo", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=its,
                stderr=errors,
                env=environment,
                start_new_session=True,
                preexec_fn=_hear_hang_ups,  # noqa: PLW1509 -- no thread of this test runs yet
            )
        os.close(its)
        self._drain = threading.Thread(target=self._copy, args=(ours,))
        if ours is not None:
            self._drain.start()

    def _copy(self, terminal: int) -> None:
        """Takes what the terminal shows, so that it never waits for us."""
        with self._output.open("wb", buffering=0) as output:
            try:
                while shown := os.read(terminal, 65_536):
                    output.write(shown)
            except OSError:  # how Linux says that nobody writes to it any more
                os.close(terminal)

    @property
    def output(self) -> str:
        """What it wrote to its standard output."""
        return self._output.read_text()

    @property
    def errors(self) -> str:
        """What it wrote to its standard error."""
        return self._errors.read_text()

    def wait_for(self, text: str) -> None:
        """Waits until it says this."""
        wait_until(lambda: text in self.output or self.process.poll() is not None, f"{text!r}")
        assert text in self.output, self.errors

    def wait(self) -> int:
        """Waits for its end, and returns its exit code."""
        code = self.process.wait(PATIENCE_SECONDS)
        if self._drain.ident is not None:
            self._drain.join(PATIENCE_SECONDS)
        return code

    def helpers(self) -> Mapping[str, int]:
        """The process ids of what it started, by what they are."""
        found: dict[str, int] = {}
        for pid in _children(self.process.pid):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            words = {"aca_tokend.demo.lookalike": "look-alike", "server": "OpenBao", "run": "daemon"}
            found |= {name: pid for word, name in words.items() if word in arguments}
        assert set(found) == {"look-alike", "OpenBao", "daemon"}
        return found


def _status(pid: int) -> list[str]:
    """What the kernel says of a process after its name: its state, its parent and more; nothing where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _children(parent: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if _status(pid)[1:2] == [str(parent)]]


def lives(pid: int) -> bool:
    """Whether a process runs."""
    return _status(pid)[:1] not in ([], ["Z"])


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts demos, and ends those that a failed test left behind."""
    started: list[Demo] = []

    def start(*arguments: str, **options: object) -> Demo:
        started.append(Demo(tmp_path, *arguments, **options))  # type: ignore[arg-type]  # as Demo has them
        return started[-1]

    yield start
    for demo in started:
        demo.process.kill()
        demo.wait()


def assert_nothing_is_left(demo: Demo, helpers: Mapping[str, int]) -> None:
    """Neither a process nor a file."""
    assert [name for name, pid in helpers.items() if lives(pid)] == []
    assert list(demo.directory.iterdir()) == []


def test_it_ends_by_itself_and_tells_how_it_went(demo: Callable[..., Demo]) -> None:
    """After its time it exits 0 with a summary: rotations were seen, no read was refused, and nothing is left."""
    shown = demo("--for", "12s")
    shown.wait_for(FIRST_TOKENS)
    helpers = shown.helpers()
    (work,) = shown.directory.iterdir()
    assert work.stat().st_mode & 0o777 == 0o700
    secrets = [path.read_text().strip() for path in (*work.glob("*.password"), work / "client-secret")]
    secrets += [
        (work / "vault-token").read_text().strip(),
        json.loads((work / "published/signage.json").read_text())["access_token"],
    ]

    assert shown.wait() == 0, shown.errors

    summary = SUMMARY.search(shown.output)
    assert summary is not None, shown.output
    assert int(summary[1]) >= 12
    assert int(summary[2]) >= 1
    assert int(summary[4]) >= 4, "three first tokens, and one for each rotation"
    for step in ("starting the ACAEngine look-alike ...", "starting OpenBao ...", "starting the daemon ..."):
        assert step in shown.output
    assert "bookings got its first token, valid for 10 s" in shown.output
    assert " rotated, valid for 10 s" in shown.output
    assert re.search(r"metrics: http://127\.0\.0\.1:\d+/metrics\n", shown.output)
    assert f"file: {work}/published/bookings.json\n" in shown.output
    assert shown.errors == ""
    assert [secret for secret in secrets if secret in shown.output] == []
    assert_nothing_is_left(shown, helpers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(demo: Callable[..., Demo], number: signal.Signals) -> None:
    """Without a duration it runs until Ctrl-C, SIGTERM or a hang-up, sums up, exits 0, and leaves nothing."""
    shown = demo()
    shown.wait_for("got its first token")
    helpers = shown.helpers()

    shown.process.send_signal(number)

    assert shown.wait() == 0, shown.errors
    assert SUMMARY.search(shown.output)
    assert shown.errors == ""
    assert_nothing_is_left(shown, helpers)


def test_a_signal_while_it_starts_ends_it(demo: Callable[..., Demo]) -> None:
    """Ctrl-C before anything is to be seen, pressed twice, ends what was started already."""
    shown = demo()
    shown.wait_for("starting OpenBao")

    shown.process.send_signal(signal.SIGINT)
    shown.process.send_signal(signal.SIGINT)

    assert shown.wait() == 0, shown.errors
    assert "nothing is left running" in shown.output
    assert_nothing_is_left(shown, {})


def test_nothing_outlives_it(demo: Callable[..., Demo]) -> None:
    """Even SIGKILL, which it cannot see, leaves no process."""
    shown = demo()
    shown.wait_for(FIRST_TOKENS)
    helpers = shown.helpers()

    shown.process.kill()

    wait_until(lambda: not any(map(lives, helpers.values())), "the end of what it started")


@pytest.mark.parametrize(
    ("part", "name"),
    [("daemon", "the daemon (exit code -9)"), ("OpenBao", "OpenBao"), ("look-alike", "the ACAEngine look-alike")],
)
def test_a_part_that_ends_is_named(demo: Callable[..., Demo], part: str, name: str) -> None:
    """If a part ends by itself, the demo says which, exits 1 and leaves nothing."""
    shown = demo()
    shown.wait_for("got its first token")
    helpers = shown.helpers()

    os.kill(helpers[part], signal.SIGKILL)

    assert shown.wait() == 1
    assert shown.errors.startswith(f"{name} ended during the demo")
    assert "Traceback" not in shown.errors
    assert_nothing_is_left(shown, helpers)


def test_a_demo_without_a_rotation_is_no_success(demo: Callable[..., Demo]) -> None:
    """One that is too short for a rotation exits 1 and says so."""
    shown = demo("--for", "1s")

    assert shown.wait() == 1
    assert "no rotation was seen" in shown.errors
    assert_nothing_is_left(shown, {})


def test_the_picture_on_a_terminal(demo: Callable[..., Demo]) -> None:
    """On a terminal of 80 columns a picture is drawn again and again, and Ctrl-C gives the cursor back."""
    shown = demo(terminal=True)
    shown.wait_for("got its first token")
    helpers = shown.helpers()
    shown.wait_for("3 s, Ctrl-C ends it")

    shown.process.send_signal(signal.SIGINT)

    assert shown.wait() == 0, shown.errors
    rows = [CONTROL.sub("", row) for row in re.split(r"[\r\n]+", shown.output)]
    assert max(map(len, rows)) <= 80
    assert any("now ●  rotation point ┃" in row for row in rows)
    assert {row.split()[0] for row in rows if " fresh " in row} == {"bookings", "signage", "sensors"}
    assert shown.output.rindex("\x1b[?25h") > shown.output.rindex("\x1b[?25l"), "the cursor is shown again"
    assert SUMMARY.search(shown.output)
    assert_nothing_is_left(shown, helpers)


@pytest.mark.parametrize(
    ("duration", "problem"),
    [
        ("30", "'30' is a duration without a unit"),
        ("-30s", "'-30s' is a negative duration"),
        ("soon", "'soon' is not a duration"),
        ("", "'' is not a duration"),
        ("0s", "'0s' is no time at all"),
    ],
)
def test_a_duration_that_is_none(demo: Callable[..., Demo], duration: str, problem: str) -> None:
    """A wrong duration is explained in one line, nothing is started, and the exit code is 2."""
    shown = demo(f"--for={duration}")

    assert shown.wait() == 2
    assert shown.errors == f"--for: {problem}; write for instance 30s or 2m\n"
    assert shown.output == ""


@pytest.mark.parametrize(
    ("hide", "name"),
    [
        ("sys.modules['authlib'] = None", "Authlib"),
        ("sys.executable = '/nowhere/python'; os.environ['PATH'] = '/nowhere'", "OpenBao's program `bao`"),
    ],
)
def test_an_extra_that_is_not_installed(demo: Callable[..., Demo], hide: str, name: str) -> None:
    """Without the extra `demo` it says what is missing and how to install it, and exits 1."""
    shown = demo(program=f"import os, sys; {hide}; {PROGRAM}")

    assert shown.wait() == 1
    assert shown.errors == f"the demo needs {name}: pip install 'aca-tokend[demo]'\n"
    assert_nothing_is_left(shown, {})
