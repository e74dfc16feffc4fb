"""Hooks at work: runs a command or sends a signal, once, and says how that went.

A command gets no shell, nothing of our environment but where programs are, no open file of ours and no secret. It ends
within its timeout, with all it started, and what it says is bounded. A signal goes to a process only where the pid file
is plainly its own. Nothing here decides when, or again. The thread of a run hangs where its program cannot be opened,
or nothing ends it: no lock is held then, and nobody waits.
"""

from __future__ import annotations

import errno
import os
import re
import selectors
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.core.config import CommandHook
from aca_tokend.core.errors import HookError, is_exhausted
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import HIDDEN
from aca_tokend.process import ending_orphans
from aca_tokend.regular_file import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aca_tokend.core.config import After, SignalHook
    from aca_tokend.core.secret import Secret

# All of our environment that a command sees; where there is no PATH, this one.
ENVIRONMENT = ("PATH", "HOME", "LANG")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# After its timeout a command is asked to end, and so long later made to.
GRACE_SECONDS = 2.0
# What a signal takes is reading a file and no more; its file system may hang.
SIGNAL_SECONDS = 10.0
# So much of the end of its output is kept, in whole lines.
OUTPUT_BYTES = 4096
_READ_BYTES = 65536
# What is left in a pipe after its command ended is no more than this.
_LAST_READS = 32
# A pid file holds a number and a newline.
_PID_FILE_BYTES = 64
# How much younger than its pid file's last change a process may seem: clocks count in steps.
_SLACK_SECONDS = 2.0
_NO_PID_FILE = {errno.ENXIO: "is no regular file", errno.EFBIG: "does not hold the number of a process"}
# Whatever else looks like a token, should it not be one that we know.
_LIKE_A_TOKEN = re.compile(r"(?i)(?<=bearer )\S+|(?=[a-z_~+=-]*[0-9])[a-z0-9_~+=-]{32,}")

if sys.version_info < (3, 11, 4):
    # its documented switch; until then all threads stood still while the program was opened (gh-104372)
    subprocess._USE_VFORK = False  # type: ignore[misc]  # noqa: SLF001


def build(after: After) -> Command | Signal:
    """The hook that `after` describes."""
    return Command(after) if isinstance(after, CommandHook) else Signal(after)


def cleaned(output: bytes, secrets: Iterable[Secret]) -> str:
    """The last whole lines of what a command said, fit for a log: no secret, no control characters."""
    if len(output) > OUTPUT_BYTES:
        # from the first whole line on: half a secret would not be known for one
        output = output[-OUTPUT_BYTES:].partition(b"\n")[2]
    text = output.decode("utf-8", "backslashreplace")
    for value in sorted((secret.reveal() for secret in secrets), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = _LIKE_A_TOKEN.sub(HIDDEN, text).strip()
    return "".join(it if it.isprintable() or it == "\n" else it.encode("unicode_escape").decode() for it in text)


class Command:
    """Runs a program. One run at a time."""

    def __init__(self, config: CommandHook) -> None:
        self._config = config
        self._lock = threading.Lock()  # held by nothing that can hang
        self._group: int | None = None  # of the command that runs; it cannot be another's while the lock is held
        self._closed = False

    @property
    def label(self) -> str:
        """The name of the program. Its arguments are nobody's business."""
        return self._config.command[0].rpartition("/")[2]

    @property
    def patience(self) -> float:
        """Its timeout, and what it gets to end after SIGTERM and SIGKILL."""
        return self._config.timeout + 2 * GRACE_SECONDS

    def close(self) -> None:
        """Ends a command that runs, and starts no other."""
        with self._lock:
            self._closed = True
            self._signal(signal.SIGKILL)

    def run(self, secrets: Iterable[Secret]) -> str:
        """Runs it to its end. Raises HookError."""
        if self._closed:
            raise self._error(Reason.COMMAND_FAILED, "was not started: the daemon stops")
        deadline = time.monotonic() + self._config.timeout
        with ending_orphans() as left:
            process = self._start()
            try:
                output, ended = self._follow(process, deadline)
            except OSError as error:  # no descriptor is left
                raise self._error(_reason(error), f"could not be followed: {error.strerror}") from error
            finally:
                self._end(process)
        said = cleaned(output, secrets)
        if left:
            said += f"\nleft behind, with another user's rights: {', '.join(map(str, left))}"
        if not ended:
            raise self._error(Reason.COMMAND_TIMEOUT, f"did not end within {self._config.timeout:g} s", said)
        if process.returncode > 0:
            raise self._error(Reason.COMMAND_FAILED, f"ended with status {process.returncode}", said)
        if process.returncode < 0:
            raise self._error(Reason.COMMAND_FAILED, f"was ended by {_signal_name(-process.returncode)}", said)
        return said

    def _error(self, reason: Reason, problem: str, output: str = "") -> HookError:
        error = HookError(reason, f"command {self.label} {problem}")
        error.output = output
        return error

    def _start(self) -> subprocess.Popen[bytes]:
        known = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        try:
            process = subprocess.Popen(  # noqa: S603 -- what the configuration says, without a shell
                self._config.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": DEFAULT_PATH, **known},
                start_new_session=True,
            )
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._error(Reason.COMMAND_MISSING, "is not there, or the interpreter it names") from error
        except OSError as error:
            refused = error.errno in {errno.EACCES, errno.EPERM, errno.ENOEXEC}
            reason = Reason.COMMAND_NOT_EXECUTABLE if refused else _reason(error)
            raise self._error(reason, f"could not be started: {error.strerror}") from error
        with self._lock:
            self._group = process.pid
            if self._closed:
                self._signal(signal.SIGKILL)
        return process

    def _follow(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bool]:
        """Reads until it ends or its time is over; then asks it to end. Returns its output and whether it ended."""
        assert process.stdout is not None  # noqa: S101 -- it is a pipe
        kept, pipe = bytearray(), process.stdout.fileno()
        os.set_blocking(pipe, False)
        # a descriptor that can be read once the process has ended
        with (
            os.fdopen(os.pidfd_open(process.pid), "rb", buffering=0) as process_end,
            selectors.DefaultSelector() as selector,
        ):
            selector.register(process_end, selectors.EVENT_READ)
            selector.register(pipe, selectors.EVENT_READ)
            ended = _read_until_exit(selector, kept, pipe, deadline)
            if not ended:
                with self._lock:
                    self._signal(signal.SIGTERM)
                _read_until_exit(selector, kept, pipe, time.monotonic() + GRACE_SECONDS)
        for _ in range(_LAST_READS):
            if not _read(pipe, kept):
                break
        return bytes(kept), ended

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Leaves nothing of it. Its number is free for another process only once it was waited for."""
        with self._lock:
            self._signal(signal.SIGKILL)
            self._group = None
        process.wait()  # one that the kernel does not let go is never over, so that no other is started
        assert process.stdout is not None  # noqa: S101 -- it is a pipe
        process.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        """To the whole group; the caller holds the lock."""
        if self._group is not None:
            # gone, or with another user's rights by now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, number)


def _reason(error: OSError) -> Reason:
    """EAGAIN: the system gives no further process."""
    exhausted = is_exhausted(error) or error.errno == errno.EAGAIN
    return Reason.RESOURCE_EXHAUSTED if exhausted else Reason.IO_ERROR


def _read_until_exit(selector: selectors.BaseSelector, kept: bytearray, pipe: int, deadline: float) -> bool:
    """Whether it ended in time. A pipe that is closed says nothing about that."""
    while (left := deadline - time.monotonic()) > 0:
        ready = {key.fd for key, _ in selector.select(left)}
        if pipe in ready and _read(pipe, kept) == b"":
            selector.unregister(pipe)
        if ready - {pipe}:
            return True
    return False


def _read(pipe: int, kept: bytearray) -> bytes | None:
    """Reads once and keeps the end; b"" at the end of the pipe, None where nothing is there now."""
    try:
        read = os.read(pipe, _READ_BYTES)
    except BlockingIOError:
        return None
    kept += read
    # a byte more than is shown, so that it is known that something is missing
    del kept[: -OUTPUT_BYTES - 1]
    return read


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Signal:
    """Sends a signal to the process that a file names."""

    def __init__(self, config: SignalHook) -> None:
        self._config = config
        self._signal = signal.Signals[f"SIG{config.signal}"]

    @property
    def label(self) -> str:
        """The signal."""
        return self._signal.name

    @property
    def patience(self) -> float:
        """It takes no time of its own."""
        return SIGNAL_SECONDS

    def close(self) -> None:
        """Sending takes no time."""

    def run(self, secrets: Iterable[Secret]) -> str:
        """Sends it. Raises HookError."""
        del secrets
        pid, status = self._read()
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError as error:
            raise self._error(Reason.PROCESS_MISSING, f"names process {pid}, which is not there") from error
        except OSError as error:
            if is_exhausted(error):  # which says nothing about the process
                raise self._unusable(error) from error
            raise self._error(Reason.PID_FILE_INVALID, f"names {pid}, which is no process") from error
        try:
            # it is this very process from here on, whatever becomes of its number
            self._check(pid, status)
            signal.pidfd_send_signal(process, self._signal)
        except ProcessLookupError as error:
            raise self._error(Reason.PROCESS_MISSING, f"names process {pid}, which has ended") from error
        except PermissionError as error:
            raise self._error(Reason.SIGNAL_NOT_PERMITTED, f"names process {pid}, which is another user's") from error
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            os.close(process)
        return ""

    def _error(self, reason: Reason, problem: str) -> HookError:
        return HookError(reason, f"pid file {self._config.pid_file} {problem}")

    def _unusable(self, error: OSError) -> HookError:
        reason = Reason.RESOURCE_EXHAUSTED if is_exhausted(error) else Reason.PID_FILE_INVALID
        return self._error(reason, f"cannot be used: {error.strerror}")

    def _read(self) -> tuple[int, os.stat_result]:
        """The number in the file, and the state of the file."""
        try:
            content, status = read_regular(self._config.pid_file, _PID_FILE_BYTES)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._error(Reason.PID_FILE_MISSING, "is not there") from error
        except PermissionError as error:
            raise self._error(Reason.PERMISSION_DENIED, "may not be read") from error
        except OSError as error:
            if error.errno in _NO_PID_FILE:
                raise self._error(Reason.PID_FILE_INVALID, _NO_PID_FILE[error.errno]) from error
            raise self._unusable(error) from error
        if status.st_mode & stat.S_IWOTH:
            raise self._error(Reason.PID_FILE_INVALID, "may be written by everybody, who could name any process")
        found = re.fullmatch(rb"\s*([1-9][0-9]{0,9})\s*", content)
        if found is None:
            raise self._error(Reason.PID_FILE_INVALID, "does not hold the number of a process")
        pid = int(found[1])
        if pid in {1, os.getpid()}:
            raise self._error(Reason.PID_FILE_INVALID, f"names process {pid}, which is never meant")
        return pid, status

    def _check(self, pid: int, status: os.stat_result) -> None:
        """Whether the file can be this process's own: nobody else wrote it, and not before the process was there."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            users = re.search(rb"^Uid:\s(.*)$", Path(f"/proc/{pid}/status").read_bytes(), re.MULTILINE)
        except FileNotFoundError as error:
            raise ProcessLookupError from error
        if fields[0] in {b"Z", b"X"}:  # ended, and not yet noticed by its parent
            raise ProcessLookupError
        owners = {0, os.geteuid(), *(int(user) for user in (users[1].split() if users else ()))}
        if status.st_uid not in owners:
            raise self._error(Reason.PID_FILE_INVALID, f"names process {pid}, and belongs to a third user")
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since the machine started, sleep included
        age_of_file = time.time() - status.st_mtime
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
        if age < age_of_file - _SLACK_SECONDS:
            raise self._error(Reason.PID_FILE_STALE, f"is older than process {pid}")
