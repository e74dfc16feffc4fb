"""Commands and signals, with real processes: what they get, how they end, and what is told of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import CommandHook, SignalHook
from aca_tokend.core.errors import HookError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import wait_until
from aca_tokend.sinks.hooks import OUTPUT_BYTES, Command, Signal, build, cleaned
from tests.leases import leased, program_is_waited_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
NOBODY = 65534
CANARY = Secret("canary-token-71c4")
SLEEP = ["sleep", "300"]
# A process with a helper of its own whose commands leave processes behind, in sessions of their own.
ORPHANS = """
import subprocess
helper = subprocess.Popen(["sleep", "300"])
import os, sys, threading, time
from pathlib import Path
from aca_tokend.core.config import CommandHook
from aca_tokend.process import adopt_orphans
from aca_tokend.sinks.hooks import Command

def run(script):
    return Command(CommandHook(command=("sh", "-c", script), timeout=60.0)).run([])

def ended(pid):
    return not Path("/proc", pid).exists()

begun, end, apart = (Path(sys.argv[1], name) for name in ("begun", "end", "apart"))
leave = (
    f"rm -f {apart}; setsid sh -c 'touch {apart}; exec sleep 300' >/dev/null 2>&1 & echo $!;"
    f"until test -e {apart}; do sleep 0.01; done; sleep 300 >/dev/null 2>&1 &"
)
adopt_orphans()
print("ended:", ended(run(leave)))
longer = threading.Thread(target=run, args=(f"touch {begun}; until test -e {end}; do sleep 0.05; done",))
longer.start()
while not begun.exists():
    time.sleep(0.01)
left = run(leave)
print("while another command runs:", ended(left))
end.touch()
longer.join()
print("after it:", ended(left))
print("what was there before:", helper.poll() is not None)
helper.kill()
helper.wait()
try:
    print("a zombie", os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("no zombie")
"""


def run(*command: str, timeout: float = 30.0) -> str:
    """What a command says."""
    return build(CommandHook(command=command, timeout=timeout)).run([CANARY])


def fail(*command: str, timeout: float = 30.0) -> HookError:
    """How a command fails."""
    with pytest.raises(HookError) as caught:
        run(*command, timeout=timeout)
    return caught.value


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()]


# ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_command_runs_without_a_shell() -> None:
    """Arguments reach the program as they are written: nothing is expanded, split or run."""
    assert run("printf", "%s|", "$HOME", "a b", "`id`", "; exit 3") == "$HOME|a b|`id`|; exit 3|"


def test_command_sees_nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command gets PATH, HOME and LANG, no input, no open file of ours, the root directory, a group of its own."""
    monkeypatch.setenv("BOOKINGS_CLIENT_SECRET", CANARY.reveal())
    monkeypatch.setenv("HOME", "/somewhere")
    ours = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(ours, True)
    told = "env; echo; cat; ls /proc/self/fd; pwd; tr '\\0' ' ' </proc/self/cmdline; ps -o pgid= -o sid= $$"
    try:
        said = run("sh", "-c", told)
    finally:
        os.close(ours)

    environment, _, rest = said.partition("\n\n")
    names = {line.partition("=")[0] for line in environment.splitlines()}
    assert names - {"_", "PWD", "SHLVL", "OLDPWD"} <= {"PATH", "HOME", "LANG"}
    assert "HOME=/somewhere" in environment
    assert CANARY.reveal() not in said
    assert str(ours) not in rest.splitlines()[:5], "its descriptors"
    assert "/" in rest.splitlines()
    assert str(os.getpgid(0)) not in rest.splitlines()[-1].split()


def test_command_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the daemon has no PATH, programs are looked for where systems have them."""
    monkeypatch.delenv("PATH")
    assert run("echo", "here") == "here"


@pytest.mark.parametrize(
    ("command", "reason", "problem"),
    [
        (("sh", "-c", "exit 3"), Reason.COMMAND_FAILED, "command sh ended with status 3"),
        (("sh", "-c", "kill -SEGV $$"), Reason.COMMAND_FAILED, "command sh was ended by SIGSEGV"),
        (("no-such-program-1",), Reason.COMMAND_MISSING, "command no-such-program-1 is not there"),
        (("/etc/passwd/x",), Reason.COMMAND_MISSING, "command x is not there"),
        (("/etc",), Reason.COMMAND_NOT_EXECUTABLE, "command etc could not be started: Permission denied"),
        (("/etc/hostname",), Reason.COMMAND_NOT_EXECUTABLE, "command hostname could not be started"),
        (("echo", "x" * 3_000_000), Reason.IO_ERROR, "command echo could not be started: Argument list too long"),
    ],
)
def test_failing_command(command: tuple[str, ...], reason: Reason, problem: str) -> None:
    """Each way to fail has its reason, and a message that names the program and nothing else of the command."""
    error = fail(*command)
    assert error.reason is reason
    assert error.message.startswith(problem)
    assert "xxx" not in error.message


def test_file_that_is_no_program(tmp_path: Path) -> None:
    """A file that may be executed but is none the system can execute is told so."""
    program = tmp_path / "program"
    program.write_bytes(b"\x00\x01\x02")
    program.chmod(0o755)
    assert fail(str(program)).reason is Reason.COMMAND_NOT_EXECUTABLE


def test_hanging_command_is_ended(tmp_path: Path) -> None:
    """A command that does not end is ended with all it started, and what it said so far is told."""
    file = tmp_path / "pids"
    error = fail("sh", "-c", f"echo begun; {' '.join(SLEEP)} & echo $! $$ > {file}; wait", timeout=0.5)

    assert error.reason is Reason.COMMAND_TIMEOUT
    assert error.message == "command sh did not end within 0.5 s"
    assert error.output == "begun"
    wait_until(lambda: not any(map(alive, pids(file))), "the end of both")


def test_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """A command that does not end when asked to is made to, with all it started."""
    file = tmp_path / "pids"
    loop = (
        f"trap '' TERM; (trap '' TERM; while :; do sleep 300; done) & echo $! $$ > {file}; while :; do sleep 300; done"
    )
    error = fail("sh", "-c", loop, timeout=0.5)

    assert error.reason is Reason.COMMAND_TIMEOUT
    wait_until(lambda: not any(map(alive, pids(file))), "the end of both")


def test_command_that_ends_when_asked_to() -> None:
    """SIGTERM comes first, so that a command can put its things in order; it has failed all the same."""
    error = fail("sh", "-c", "trap 'echo in order; exit 0' TERM; sleep 300 & wait", timeout=0.5)
    assert (error.reason, error.output) == (Reason.COMMAND_TIMEOUT, "in order")


def test_child_left_behind_holds_nobody_up(tmp_path: Path) -> None:
    """A command that ends and leaves a child with its output open has ended: the child is ended too."""
    file = tmp_path / "pids"
    assert run("sh", "-c", f"echo done; {' '.join(SLEEP)} & echo $! > {file}") == "done"
    wait_until(lambda: not any(map(alive, pids(file))), "the end of the child")


def test_child_in_a_group_of_its_own_holds_nobody_up(tmp_path: Path) -> None:
    """A daemon that a command starts for good is waited for by nobody, though it has the output open and uses it."""
    file = tmp_path / "pids"
    script = f"(setsid sh -c 'trap \"\" PIPE; echo more; echo $$ > {file}; while :; do echo more; done 2>/dev/null') & "
    try:
        assert "more" in run("sh", "-c", script + f"until [ -s {file} ]; do :; done")
        assert all(map(alive, pids(file)))
    finally:
        for pid in pids(file):
            os.kill(pid, signal.SIGKILL)


def test_failure_is_told_where_ends_of_programs_were_ignored() -> None:
    """Started by a program that ignores how its children end, the daemon still knows how its own do."""
    program = """
import signal
from aca_tokend.bell import Bell, handle_signals
from aca_tokend.core.config import CommandHook
from aca_tokend.core.errors import HookError
from aca_tokend.sinks.hooks import Command

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
handle_signals(Bell())
try:
    Command(CommandHook(command=("false",))).run(())
except HookError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "command false ended with status 1\n"


def test_closed_output_says_nothing_about_the_end() -> None:
    """A command that closes its output and works on is waited for."""
    assert fail("sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 4").message == "command sh ended with status 4"


def test_output_is_bounded() -> None:
    """Of 100 MB the last whole lines are kept, and no more than that is ever held."""
    tracemalloc.start()
    try:
        said = run("sh", "-c", "head -c 100000000 /dev/zero | tr '\\0' x; echo; seq 10000; exit 0", timeout=60.0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000
    assert len(said) <= OUTPUT_BYTES
    assert said.splitlines()[-1] == "10000"
    assert said.splitlines()[0].isdigit()


def test_output_in_one_endless_line_is_not_shown() -> None:
    """Where not even one whole line fits, nothing is shown: a part of a secret would not be known for one."""
    assert run("sh", "-c", "head -c 10000 /dev/zero | tr '\\0' 'y'") == ""


def test_secrets_in_output_are_hidden() -> None:
    """A token in the output is hidden, wherever it stands; so is what looks like another."""
    jwt = "eyJhbGciOiJSUzI1NiJ9." + "a1b2c3d4" * 20 + "." + "Zz9_-" * 20
    error = fail("sh", "-c", f"echo x{CANARY.reveal()}x; echo 'Authorization: Bearer short'; echo {jwt}; exit 1")
    assert CANARY.reveal() not in error.output
    assert "short" not in error.output
    assert "a1b2c3d4" not in error.output
    assert error.output.splitlines()[0] == "x<secret>x"


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (b"a\x1b[31mred\r\x07\n", "a\\x1b[31mred\\r\\x07"),
        (b"\xff\xfe\n", "\\xff\\xfe"),
        ("grün\u202e\n".encode(), "grün\\u202e"),
        (b"  \n\n", ""),
        (b"/usr/lib/systemd/system/nginx.service\n", "/usr/lib/systemd/system/nginx.service"),
        (b"-" * 40, "-" * 40),
        (b"z" * 5000 + b"\nlast " + b"w" * 4080, "last " + "w" * 4080),
        (b"canary-" * 1000 + b"\n" + b"a\n" * 3, "a\na\na"),
    ],
)
def test_cleaned(output: bytes, shown: str) -> None:
    """What people see has no control characters, and is otherwise what was said."""
    assert cleaned(output, [CANARY]) == shown


def test_longer_secret_is_hidden_first() -> None:
    """Where one secret begins with another, nothing of the longer one is left."""
    assert cleaned(b"abc-def", [Secret("abc"), Secret("abc-def")]) == "<secret>"


def test_close_ends_what_runs(tmp_path: Path) -> None:
    """Closing from another thread ends a command that runs, with its children, and lets no other start."""
    file = tmp_path / "pids"
    command = Command(CommandHook(command=("sh", "-c", f"{' '.join(SLEEP)} & echo $! $$ > {file}; wait"), timeout=60.0))
    caught: list[HookError] = []

    def follow() -> None:
        with pytest.raises(HookError) as error:
            command.run([])
        caught.append(error.value)

    thread = threading.Thread(target=follow)
    thread.start()
    wait_until(lambda: file.exists() and len(file.read_text().split()) == 2, "both")
    command.close()
    thread.join(60.0)

    assert caught[0].message == "command sh was ended by SIGKILL"
    wait_until(lambda: not any(map(alive, pids(file))), "the end of both")
    with pytest.raises(HookError, match="was not started: the daemon stops"):
        command.run([])
    command.close()


def test_program_that_cannot_be_opened_holds_up_nobody(tmp_path: Path) -> None:
    """While the file of a program cannot be opened, closing waits for nothing; opened at last, it is ended."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{' '.join(SLEEP)}\n")
    program.chmod(0o755)
    command, caught = Command(CommandHook(command=(str(program),), timeout=0.5)), list[HookError]()

    def follow() -> None:
        with pytest.raises(HookError) as error:
            command.run([])
        caught.append(error.value)

    thread = threading.Thread(target=follow)
    with leased(program):
        thread.start()
        wait_until(program_is_waited_for, "a start that hangs")
        command.close()
        assert program_is_waited_for()
        assert thread.is_alive()
    thread.join(60.0)

    assert [error.message for error in caught] == ["command program was ended by SIGKILL"]


def test_time_to_open_a_program_counts(tmp_path: Path) -> None:
    """A program that is opened after its timeout has failed, and gets no time to run."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with leased(program) as holder:
        threading.Timer(1.0, holder.kill).start()
        assert fail(str(program), timeout=0.5).message == "command program did not end within 0.5 s"


def test_whatever_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    """In the daemon what left the process group ends with its command; what is not of a command is left alone."""
    command = [sys.executable, "-c", ORPHANS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "ended: True",
        "while another command runs: False",
        "after it: True",
        "what was there before: False",
        "no zombie",
    ]


def test_no_descriptor_and_no_process_is_left() -> None:
    """Runs leave no open file and no ended process behind, however they end."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for _ in range(20):
        run("true")
        fail("false")
        fail("no-such-program-1")
    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# ── signals ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def target() -> Iterator[subprocess.Popen[bytes]]:
    """A process that a signal ends."""
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def written(tmp_path: Path, content: object) -> Path:
    """A pid file."""
    file = tmp_path / "program.pid"
    file.write_text(f"{content}\n")
    file.chmod(0o644)
    return file


def send(file: Path, name: Any = "HUP") -> None:  # noqa: ANN401 -- one of the literals
    build(SignalHook(signal=name, pid_file=str(file))).run([CANARY])


def refused(file: Path) -> HookError:
    with pytest.raises(HookError) as caught:
        send(file)
    return caught.value


@pytest.mark.parametrize("name", ["HUP", "USR1", "USR2", "TERM"])
def test_signal_is_sent(tmp_path: Path, target: subprocess.Popen[bytes], name: str) -> None:
    """The process that the file names gets the signal."""
    send(written(tmp_path, target.pid), name)
    assert target.wait(60.0) == -signal.Signals[f"SIG{name}"]


def test_label_of_a_signal(tmp_path: Path) -> None:
    """People are told the signal."""
    assert Signal(SignalHook(signal="HUP", pid_file=str(tmp_path / "x"))).label == "SIGHUP"


def test_recycled_number_is_not_signalled(tmp_path: Path, target: subprocess.Popen[bytes]) -> None:
    """A process younger than the pid file is another one that got its number: it is left alone."""
    file = written(tmp_path, target.pid)
    hour_ago = time.time() - 3600
    os.utime(file, (hour_ago, hour_ago))

    error = refused(file)

    assert error.reason is Reason.PID_FILE_STALE
    assert error.message == f"pid file {file} is older than process {target.pid}"
    assert target.poll() is None


def test_process_that_ended(tmp_path: Path) -> None:
    """A process that ended is missing, also while its parent has not noticed yet."""
    process = subprocess.Popen([shutil.which("true") or "true"])
    file = written(tmp_path, process.pid)
    wait_until(lambda: not alive(process.pid), "its end")
    assert refused(file).reason is Reason.PROCESS_MISSING
    process.wait()
    assert refused(file).reason is Reason.PROCESS_MISSING


@pytest.mark.parametrize("content", ["", "abc", "-5", "0", "1", "12x", "99999999999", "1.5", "12 13", "\0" * 100])
def test_pid_file_without_a_usable_number(tmp_path: Path, content: str) -> None:
    """What is no number of a process, or one that is never meant, is refused."""
    error = refused(written(tmp_path, content))
    assert error.reason in {Reason.PID_FILE_INVALID, Reason.PROCESS_MISSING}
    assert error.reason is Reason.PID_FILE_INVALID or content == "99999999999"


def test_own_number_is_refused(tmp_path: Path) -> None:
    """The daemon never signals itself."""
    assert refused(written(tmp_path, os.getpid())).reason is Reason.PID_FILE_INVALID


def test_pid_file_that_is_not_there(tmp_path: Path, target: subprocess.Popen[bytes]) -> None:
    """Without a pid file, or a folder for it, nobody is signalled."""
    assert refused(tmp_path / "none").reason is Reason.PID_FILE_MISSING
    assert refused(written(tmp_path, target.pid) / "none").reason is Reason.PID_FILE_MISSING


def test_pid_file_that_is_no_file(tmp_path: Path) -> None:
    """A directory or a pipe in its place is refused, and holds nobody up."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert refused(pipe).reason is Reason.PID_FILE_INVALID
    assert refused(tmp_path).reason is Reason.PID_FILE_INVALID


def test_pid_file_that_everybody_may_write(tmp_path: Path, target: subprocess.Popen[bytes]) -> None:
    """Whoever can write the file could have any process signalled."""
    file = written(tmp_path, target.pid)
    file.chmod(0o666)
    assert refused(file).reason is Reason.PID_FILE_INVALID
    assert target.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_pid_file_of_a_third_user(tmp_path: Path, target: subprocess.Popen[bytes]) -> None:
    """A file of somebody who is neither root, nor the daemon, nor the process names somebody else's process."""
    file = written(tmp_path, target.pid)
    os.chown(file, 12345, -1)
    assert refused(file).reason is Reason.PID_FILE_INVALID
    assert target.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to become somebody else")
def test_process_of_another_user(target: subprocess.Popen[bytes]) -> None:
    """Without the right to signal the process the error says so."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        told = _as_nobody(written(Path(folder), target.pid))
    assert told == Reason.SIGNAL_NOT_PERMITTED
    assert target.poll() is None


def _as_nobody(file: Path) -> str:
    """The reason for which somebody without rights fails to send a signal."""
    code = (
        "import os\nfrom aca_tokend.sinks.hooks import Signal\nfrom aca_tokend.core.config import SignalHook\n"
        "from aca_tokend.core.errors import HookError\n"
        f"os.setuid({NOBODY})\n"
        f"try: Signal(SignalHook(signal='HUP', pid_file={str(file)!r})).run([])\n"
        "except HookError as error: print(error.reason)"
    )
    return (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout.decode().strip()
    )


@pytest.mark.parametrize("left", [0, 1, 2])
def test_signal_without_descriptors(tmp_path: Path, target: subprocess.Popen[bytes], left: int) -> None:
    """A daemon that can open no more files says so: it neither ends, nor takes the process for another."""
    code = (
        "import os, resource\nfrom aca_tokend.core.config import SignalHook\n"
        "from aca_tokend.sinks.hooks import Signal\n"
        "from aca_tokend.core.errors import HookError\n"
        f"hook = Signal(SignalHook(signal='HUP', pid_file={str(written(tmp_path, target.pid))!r}))\n"
        f"free = os.dup(0)\nos.close(free)\nresource.setrlimit(resource.RLIMIT_NOFILE, (free + {left},) * 2)\n"
        "try: hook.run([])\n"
        "except HookError as error: print(error.reason)\n"
        "else: print('sent')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)
    assert done.stdout.strip() == (Reason.RESOURCE_EXHAUSTED if left < 2 else "sent")


def test_program_is_python() -> None:
    """What is started is found by its whole path too."""
    assert run(sys.executable, "-c", "print('whole path')") == "whole path"
