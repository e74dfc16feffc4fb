"""What the demo and the integration tests set up: a look-alike, an OpenBao, a configuration, the daemon as a process.

Everything lives in one directory and ends with `close`. The daemon gets its secrets from files, as it would in a pod.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from aca_tokend.core.secret import Secret
from aca_tokend.demo.child import TIED
from aca_tokend.demo.processes import HelperError, LookAlike, OpenBao
from aca_tokend.demo.reader import Reader, read_file, read_vault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

WAIT_SECONDS = 60.0
CLIENT_ID = "5f4dcc3b5aa765d61d8327deb882cf99"


HEAD = """
[admin]
listen = "127.0.0.1:0"
[log]
level = "debug"
[acaengine.main]
url = "{url}"
{endpoint}
[vault.main]
address = "{address}"
{vault}
auth = {{ {auth} }}
[rotation]
{rotation}
"""
ENTRY = """
[[tokens]]
name = "{account}"
authority = "authority-1"
username = "{account}"
password = {{ file = "{directory}/{account}.password" }}
client_id = "{client_id}"
client_secret = {{ file = "{directory}/client-secret" }}
scope = "public"
[[tokens.publish]]
to = "vault"
mount = "secret"
path = "aca/{account}"
"""
FILE = """
[[tokens.publish]]
to = "file"
path = "{path}"
mode = "0640"
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs between configurations, as lines of TOML.

    `suffix` makes another configuration of the same tokens, with files of its own: another replica. `auth` is the
    inside of `[vault.main.auth]`, the root token where it is empty.
    """

    rotation: str = 'min_interval = "1s"\nassumed_lifetime = "60s"'
    endpoint: str = 'timeout = "5s"'
    vault: str = 'timeout = "5s"'
    auth: str = ""
    files: bool = True
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Passwords:
    """The secrets of a stage. The tests put canaries here."""

    password: Secret = field(default_factory=lambda: Secret(f"p&+% é-{os.urandom(8).hex()}"))
    client_secret: Secret = field(default_factory=lambda: Secret(f"s-{os.urandom(8).hex()}"))


class Stage:
    """The servers, and what it takes to run daemons against them."""

    def __init__(
        self,
        directory: Path,
        *,
        lifetime: float,
        raft: bool = False,
        passwords: Passwords | None = None,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.directory = directory
        self.passwords = passwords or Passwords()
        with ExitStack() as stack:
            on_step("starting the ACAEngine look-alike")
            self.lookalike = stack.enter_context(LookAlike.start(log=directory / "lookalike.log"))
            on_step("starting OpenBao")
            bao = OpenBao.raft(directory / "openbao") if raft else OpenBao.dev(log=directory / "openbao.log")
            self.bao = stack.enter_context(bao)
            self.lookalike.levers(
                lifetime=lifetime,
                clients={CLIENT_ID: {"secret": self.passwords.client_secret.reveal(), "scopes": ["public"]}},
            )
            self.write_secret("client-secret", self.passwords.client_secret)
            self.write_secret("vault-token", self.bao.root_token)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the daemons, the readers and the servers, in this order."""
        self._stack.close()

    def write_secret(self, name: str, value: Secret) -> Path:
        """Writes a secret file as an operator would: readable by its owner alone, with a newline at its end."""
        path = self.directory / name
        fresh = self.directory / f".{name}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value.reveal() + "\n")
        fresh.rename(path)
        return path

    def add_accounts(self, names: Sequence[str]) -> None:
        """Makes the accounts known to the look-alike, all with one password, and writes their password files."""
        password = self.passwords.password
        self.lookalike.levers(accounts={name: {"password": password.reveal()} for name in names})
        for name in names:
            self.write_secret(f"{name}.password", password)

    def config(self, names: Sequence[str], settings: Settings | None = None) -> Path:
        """Writes a configuration with one token per account, each published to OpenBao and, if so set, to a file."""
        self.add_accounts(names)
        settings = settings or Settings()
        text = HEAD.format(
            url=self.lookalike.url,
            address=self.bao.address,
            auth=settings.auth or f'method = "token", token = {{ file = "{self.directory}/vault-token" }}',
            **{name: getattr(settings, name) for name in ("endpoint", "vault", "rotation")},
        )
        for account in names:
            text += ENTRY.format(account=account, directory=self.directory, client_id=CLIENT_ID)
            if settings.files:
                text += FILE.format(path=self.file_of(account, settings.suffix))
        path = self.directory / f"config{settings.suffix}.toml"
        path.write_text(text)
        return path

    def file_of(self, account: str, suffix: str = "") -> Path:
        """Where the token of an account is published as a file."""
        directory = self.directory / f"published{suffix}"
        directory.mkdir(exist_ok=True)
        return directory / f"{account}.json"

    def ended(self) -> tuple[str, Path] | None:
        """The server that ended by itself and its log, None while both run."""
        servers = (("the ACAEngine look-alike", self.lookalike.pid, "lookalike"), ("OpenBao", self.bao.pid, "openbao"))
        for name, pid, log in servers:
            # it is only looked at: its own object takes its exit status
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return name, self.directory / f"{log}.log"
        return None

    def daemon(
        self,
        config: Path,
        *arguments: str,
        log: str = "daemon.log",
        tied: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> DaemonProcess:
        """Starts a daemon; its log is appended to the file `log`. A `tied` one ends with the thread that calls this.

        `environment` is added to what every daemon gets.
        """
        daemon = DaemonProcess.start(config, self.directory / log, arguments, tied=tied, environment=environment)
        self._stack.callback(daemon.kill)
        return daemon

    def vault_reader(self, account: str, **options: Any) -> Reader:  # noqa: ANN401 -- the fields of Reader
        """A reader of the KV secret of an account, reading already."""
        read = read_vault(self.bao.address, self.bao.root_token, "secret", f"aca/{account}")
        return self.reader(f"vault {account}", read, **options)

    def file_reader(self, account: str, **options: Any) -> Reader:  # noqa: ANN401 -- the fields of Reader
        """A reader of the file of an account, reading already."""
        return self.reader(f"file {account}", read_file(self.file_of(account)), **options)

    def reader(self, name: str, read: Callable[[], Mapping[str, object]], **options: Any) -> Reader:  # noqa: ANN401 -- the fields of Reader
        """A reader that takes its documents from `read`, reading already."""
        return self._reading(Reader(name, read, self.lookalike.port, **options))

    def _reading(self, reader: Reader) -> Reader:
        reader.start()
        self._stack.callback(reader.stop)
        return reader


class DaemonProcess:
    """`aca-tokend run` as a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, begin: int) -> None:
        self.process = process
        self.log = log
        self._begin = begin

    @classmethod
    def start(
        cls,
        config: Path,
        log: Path,
        arguments: Sequence[str] = (),
        *,
        tied: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> DaemonProcess:
        """Starts it with a clean environment. A `tied` one ends with the thread that calls this."""
        command = [
            sys.executable,
            "-m",
            "aca_tokend",
            "run",
            "--config",
            str(config),
            "--log-format",
            "json",
            *arguments,
        ]
        if tied:
            command = [sys.executable, "-I", "-S", str(TIED), str(os.getpid()), *command]
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with log.open("ab") as stream:
            begin = stream.tell()
            process = subprocess.Popen(  # noqa: S603 -- our own program
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**clean, **(environment or {})},
                start_new_session=True,
            )
        return cls(process, log, begin)

    @property
    def text(self) -> str:
        """All that this process wrote."""
        with self.log.open("rb") as stream:
            stream.seek(self._begin)
            return stream.read().decode()

    def events(self, name: str | None = None) -> list[Mapping[str, Any]]:
        """The lines of its log, of one event or of all."""
        lines = [json.loads(line) for line in self.text.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if name is None or line["event"] == name]

    def wait_for(self, name: str, count: int = 1, **keys: object) -> Mapping[str, Any]:
        """Waits until an event was logged `count` times with these keys, and returns the last of them."""

        def found() -> list[Mapping[str, Any]]:
            return [event for event in self.events(name) if keys.items() <= event.items()]

        wait_until(lambda: len(found()) >= count or not self.running, f"{count} times {name} {keys}")
        events = found()
        if len(events) < count:
            message = f"the daemon ended before {count} times {name} {keys}:\n{self.text[-4000:]}"
            raise HelperError(message)
        return events[count - 1]

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @cached_property
    def admin_port(self) -> int:
        """The port of its admin listener."""
        return int(self.wait_for("daemon_started")["admin"].rpartition(":")[2])

    def get(self, path: str) -> tuple[int, str]:
        """A page of its admin listener: status and text."""
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=WAIT_SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series; 0 where there is none."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == f"aca_tokend_{name}" and all(label in series for label in wanted):
                return float(value)
        return 0.0

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_SECONDS)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        self.process.kill()
        self.process.wait()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Waits for a condition. Raises HelperError, which says `what` did not come about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            message = f"{what} did not come about within {seconds:g} seconds"
            raise HelperError(message)
        time.sleep(0.02)
