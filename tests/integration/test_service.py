"""The daemon as probes and a service manager see it: health, readiness, notifications, the watchdog, the listener."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.demo.stage import DaemonProcess, Settings, Stage, wait_until
from tests.certificates import make
from tests.integration import mortal
from tests.integration.conftest import assert_nothing_leaked, open_files
from tests.unit.test_notify import Manager

if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE = Path(__file__).parent / "inside"
CROWD = 500
LIMIT = 60.0
ROTATION = 'min_interval = "1s"\nassumed_lifetime = "60s"\nbackoff = { initial = "200ms", cap = "1s" }'


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """What systemd would be."""
    manager = Manager(f"@aca-tokend-{tmp_path.name}-{os.getpid()}")
    yield manager
    manager.socket.close()


def until(manager: Manager, text: str) -> list[str]:
    """The lines that come until one begins so, with that one."""
    lines: list[str] = []
    while not any(line.startswith(text) for line in lines):
        lines += manager.next()
    return lines


# ── probes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_failing_servers_are_no_reason_for_a_restart(stage: Stage) -> None:
    """With endpoint and Vault down the daemon is healthy throughout, and ready once each token has honestly failed."""
    config = stage.config(["a", "b"], Settings(rotation=ROTATION))
    stage.lookalike.go_down()
    stage.bao.stop()
    daemon = stage.daemon(config)

    wait_until(lambda: daemon.get("/-/ready")[0] == 200, "all have been tried")
    for token in ("a", "b"):
        daemon.wait_for("rotation_failed", token=token)
    assert daemon.get("/-/healthy") == (200, "healthy\n")
    assert daemon.get("/-/ready?verbose") == (200, "[+]tokens ok\nready\n")
    assert daemon.get("/-/healthy?verbose")[1].splitlines() == [
        "[+]process ok",
        "[+]scheduler ok",
        "[+]attempts ok",
        "healthy",
    ]
    assert_nothing_leaked(stage, daemon)


def test_not_ready_while_a_token_waits_for_its_first_attempt(stage: Stage) -> None:
    """Until a token was looked at `/-/ready` counts it, and `?verbose` names it; a silent Vault is not unhealthy."""
    config = stage.config(["a", "b", "c"], Settings(files=False, vault='timeout = "60s"'))
    os.kill(stage.bao.pid, signal.SIGSTOP)
    try:
        daemon = stage.daemon(config)
        assert daemon.get("/-/ready") == (503, "tokens: 3 of 3 not looked at yet\n")
        assert daemon.get("/-/ready?verbose") == (
            503,
            "[-]tokens failed: 3 of 3 not looked at yet: a, b, c\nnot ready\n",
        )
        assert daemon.get("/-/healthy")[0] == 200
    finally:
        os.kill(stage.bao.pid, signal.SIGCONT)
    wait_until(lambda: daemon.get("/-/ready") == (200, "ready\n"), "all were looked at")


# ── the service manager ───────────────────────────────────────────────────────────────────────────────────────────────


def test_service_manager_is_told(stage: Stage, manager: Manager) -> None:
    """A service manager hears of start, tokens, each reload and the end; what a hook runs is not told its socket."""
    config = stage.config(["a", "b"])
    seen = stage.directory / "environment"
    hook = f'after = {{ command = ["sh", "-c", "env > {seen}.new && mv {seen}.new {seen}"] }}\n'
    config.write_text(config.read_text() + hook)
    daemon = stage.daemon(config, environment={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000000"})

    until(manager, "READY=1")
    assert daemon.get("/-/healthy")[0] == 200, "it serves as soon as it says that it is ready"
    assert any(
        "2 tokens: 2 ready, 0 failing, 0 suspended; next expiry 20" in line
        for line in until(manager, "STATUS=2 tokens: 2 ready")
    )
    wait_until(seen.exists, "the hook ran")
    assert {"NOTIFY_SOCKET", "WATCHDOG_USEC"}.isdisjoint(
        line.partition("=")[0] for line in seen.read_text().splitlines()
    )

    for text in (config.read_text(), "not TOML"):
        config.write_text(text)
        daemon.process.send_signal(signal.SIGHUP)
        lines = until(manager, "RELOADING=1")
        assert lines[lines.index("RELOADING=1") + 1].startswith("MONOTONIC_USEC=")
        until(manager, "READY=1")
    daemon.wait_for("config_rejected")
    manager.waiting()  # more reloads may have been told of than there is room for its end behind them
    assert daemon.terminate() == 0
    until(manager, "STOPPING=1")
    assert_nothing_leaked(stage, daemon)


def test_configuration_that_hangs_starves_no_watchdog(stage: Stage, manager: Manager) -> None:
    """While reading the configuration hangs, the watchdog is fed, rotations go on, and SIGTERM ends the daemon."""
    config, flag = stage.config(["a"]), stage.directory / "hangs"
    hanging = {"PYTHONPATH": str(INSIDE), "HANGING_FOLDER": str(config), "HANGING_FLAG": str(flag)}
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000", **hanging}
    daemon = stage.daemon(config, environment=environment)
    until(manager, "READY=1")
    flag.touch()
    config.touch()

    # the first reload comes by itself: the files were written a moment ago
    rotations, reloads = len(daemon.events("token_rotated")), [""]
    while len(daemon.events("token_rotated")) < rotations + 2 or reloads[-1] != "RELOADING=1":
        reloads += [line for line in until(manager, "WATCHDOG=1") if line in {"RELOADING=1", "READY=1"}]
    assert daemon.get("/-/healthy")[0] == 200
    assert daemon.terminate() == 0
    flag.unlink()


def test_configuration_that_is_no_file_is_rejected(stage: Stage) -> None:
    """A pipe among the included files keeps nobody waiting: it is told, changes nothing, and SIGTERM works."""
    included = stage.directory / "conf.d"
    included.mkdir()
    config = stage.config(["a"])
    config.write_text(f'include = ["{included.name}/*.toml"]\n{config.read_text()}')
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    os.mkfifo(included / "pipe.toml")

    rejected = daemon.wait_for("config_rejected")

    assert "is not a regular file" in str(rejected)
    daemon.wait_for("token_rotated", len(daemon.events("token_rotated")) + 1)
    assert daemon.terminate() == 0


def test_dead_scheduler_starves_the_watchdog(stage: Stage, manager: Manager) -> None:
    """When the thread that begins attempts is gone, `/-/healthy` says so, and the watchdog is fed no more."""
    config = stage.config(["a"])
    log = stage.directory / "mortal.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, mortal.__file__, str(config)],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"},
        )
    daemon = DaemonProcess(process, log, 0)
    try:
        until(manager, "WATCHDOG=1")
        until(manager, "STATUS=1 token: 1 ready")
        process.send_signal(signal.SIGUSR1)
        expected = (503, "scheduler: its thread has ended, and no attempt begins any more\n")
        wait_until(lambda: daemon.get("/-/healthy") == expected, "it is noticed")
        manager.waiting()
        # nobody rotates the token any more: until that is told no food comes but what was on its way
        assert until(manager, "STATUS=1 token: 0 ready").count("WATCHDOG=1") <= 1
    finally:
        daemon.kill()


# ── the listener ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Room for a crowd in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_crowd_delays_neither_rotations_nor_probes(stage: Stage) -> None:
    """With 500 slow clients and few descriptors its tokens are rotated, and its probes answered."""
    stage.lookalike.levers(lifetime=12.0)
    daemon = stage.daemon(stage.config(["a"]))
    reader = stage.vault_reader("a")
    daemon.wait_for("token_rotated")
    port = daemon.admin_port
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (128, 4096))
    words = (
        b"",
        b"G",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT)) for _ in range(CROWD)]
        rotations = len(daemon.events("token_rotated"))

        def drip() -> bool:
            for number, client in enumerate(clients):
                with contextlib.suppress(OSError):
                    client.sendall(words[number % len(words)])
            assert daemon.get("/-/healthy")[0] == 200
            return len(daemon.events("token_rotated")) > rotations

        wait_until(drip, "a rotation while the crowd is there")
        assert open_files(daemon.process.pid) < 128
    reader.stop()
    assert reader.accepted > 0
    assert reader.refused == 0
    assert not daemon.events("rotation_failed")
    assert_nothing_leaked(stage, daemon)


class Mounted:
    """Three sets of certificate, key and client CA, of which one is mounted as Kubernetes does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sets = [folder / f"..{number}" for number in range(3)]
        self.clients = []
        for place in self.sets:
            place.mkdir(parents=True)
            authority = make(place, "ca")
            make(place, "tls", authority)
            self.clients.append(make(place, "client", authority).files)
        self.swap(0)
        self.keys = ""
        for key, name in {"tls_cert": "tls.pem", "tls_key": "tls-key.pem", "tls_client_ca": "ca.pem"}.items():
            (folder / name).symlink_to(f"..data/{name}")
            self.keys += f'{key} = "{folder}/{name}"\n'

    def swap(self, number: int) -> None:
        """Mounts another set, all of it at once."""
        (self.folder / "..data_tmp").symlink_to(f"..{number}")
        (self.folder / "..data_tmp").rename(self.folder / "..data")

    def serves(self, port: int, number: int) -> bool:
        """Whether a client of this set is served by a server of it."""
        context = ssl.create_default_context(cafile=self.sets[number] / "ca.pem")
        context.load_cert_chain(*self.clients[number])
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=LIMIT, context=context)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/-/healthy")
                return connection.getresponse().status == 200
            except (ssl.SSLError, ConnectionError):
                return False


def test_certificates_are_taken_up_while_it_runs(stage: Stage, tmp_path: Path) -> None:
    """Certificate and client CA that are swapped hold for the next connection; broken ones change nothing."""
    mounted = Mounted(tmp_path / "tls")
    config = stage.config(["a"])
    listen = 'listen = "127.0.0.1:0"\n'
    config.write_text(config.read_text().replace(listen, listen + mounted.keys))
    daemon = stage.daemon(config)
    port = daemon.admin_port
    assert mounted.serves(port, 0)

    # amid a swap the files of both may have been read, which is told too, and read again at once
    mounted.swap(1)
    daemon.wait_for("admin_tls_reloaded")
    wait_until(lambda: mounted.serves(port, 1), "the second set is served")
    assert not mounted.serves(port, 0)

    # a key that is another's
    (mounted.sets[2] / "tls-key.pem").write_bytes((mounted.sets[0] / "tls-key.pem").read_bytes())
    mounted.swap(2)
    rejected = daemon.wait_for("admin_tls_rejected")
    assert rejected["message"].startswith("admin.tls_cert: cannot use these files: ")
    assert mounted.serves(port, 1)

    mounted.swap(0)
    wait_until(lambda: mounted.serves(port, 0), "the first set is served again")
    for key in mounted.folder.glob("..*/*-key.pem"):
        assert key.read_text().splitlines()[1] not in daemon.text
