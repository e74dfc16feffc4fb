"""The unit, started by systemd itself, and docs/host.md (host.md) done as it stands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import completion
import man
import pytest

from aca_tokend.demo.processes import LookAlike
from aca_tokend.demo.stage import wait_until
from tests.blocks import ROOT, blocks_for
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD
from tests.system.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = "tests/system/test_host.py"
UNITS = ROOT / "deploy" / "systemd"
USERNAME = "svc-bookings"
CLIENT_ID = "d1be3a40ba9afbc1bb3e1bb0a4d1aa58"
FILE = "/run/aca-tokend/bookings.json"
SECRETS = "/etc/aca-tokend/secrets"
SERVICE = "/etc/systemd/system/aca-tokend.service"


def page(test: str, language: str = "sh") -> list[str]:
    """The blocks of host.md that a test runs."""
    return [block.content for block in blocks_for(f"{HERE}::{test}") if block.language == language]


# ── the files, without a machine ──────────────────────────────────────────────────────────────────────────────────────


def analyzed(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze says; both outputs are one."""
    command = ["systemd-analyze", verb, *arguments]
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A copy of the units in which the program is one that there is."""
    copy = tmp_path / "units"
    shutil.copytree(UNITS, copy)
    service = copy / "aca-tokend.service"
    service.write_text(service.read_text().replace("/usr/local/bin/aca-tokend", "/usr/bin/true"))
    return copy


def test_units_are_verified(units: Path) -> None:
    """The units have nothing that systemd finds wrong, and it would have found a mistyped key."""
    names = [str(unit) for unit in sorted(units.iterdir()) if unit.suffix in {".service", ".path"}]
    assert len(names) == 3
    assert analyzed("verify", "--man=no", *names).stdout == ""
    service = units / "aca-tokend.service"
    service.write_text(service.read_text().replace("WatchdogSec", "WatchdogSecs"))
    assert "Unknown key" in analyzed("verify", "--man=no", str(service)).stdout


def test_exposure(units: Path) -> None:
    """The unit gets at most 1.5 of 10 from systemd, which would have refused one that keeps its capabilities."""
    shutil.rmtree(units / "aca-tokend.service.d")
    service = units / "aca-tokend.service"
    arguments = ("--offline=yes", "--no-pager", "--threshold=15")
    told = analyzed("security", *arguments, str(service))
    assert told.returncode == 0, told.stdout
    exposure = re.search(r"Overall exposure level for aca-tokend.service: ([0-9.]+)", told.stdout)
    assert exposure is not None
    assert f"gives it {exposure[1]} of 10" in (ROOT / "docs" / "host.md").read_text()
    service.write_text(service.read_text().replace("CapabilityBoundingSet=", ""))
    assert analyzed("security", *arguments, str(service)).returncode == 1


# ── on a machine of its own ───────────────────────────────────────────────────────────────────────────────────────────


class Host:
    """A machine and an ACAEngine look-alike that it reaches."""

    def __init__(self, machine: Machine, lookalike: LookAlike) -> None:
        self.machine = machine
        self.lookalike = lookalike

    def follow(self, *blocks: str, stdin: str = "") -> str:
        """Does what blocks of the page say, in the checkout, and returns what it says."""
        script = "".join(blocks).replace("https://aca.example.com", self.lookalike.url)
        # the pages of the daemon are on a port that is free
        script = script.replace("[acaengine.main]\n", '[admin]\nlisten = "127.0.0.1:0"\n\n[acaengine.main]\n')
        command = ["/bin/bash", "-euo", "pipefail", "-c", f"cd {ROOT}\n{script}"]
        return self.machine.run(*command, stdin=stdin)

    def install(self) -> None:
        """Steps 2 and 3 of the page, with tokens that are rotated quickly."""
        unit, config, secrets, *_ = page("test_the_page_as_it_stands")
        quick = '[rotation]\nmin_interval = "1s"\n\n[[tokens]]\n'
        self.follow(unit, config.replace("[[tokens]]\n", quick), secrets, stdin=self.typed)

    @property
    def typed(self) -> str:
        return f"{CANARY_PASSWORD}\n{CANARY_CLIENT_SECRET}\n"

    def drop_in(self, name: str, text: str) -> None:
        self.machine.write(f"{SERVICE}.d/{name}.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def show(self, name: str) -> str:
        return self.machine.run("systemctl", "show", "aca-tokend", "--value", f"--property={name}").strip()

    @property
    def journal(self) -> str:
        """All that the service has logged."""
        return self.machine.run("journalctl", "--no-pager", "--output=cat", "--unit=aca-tokend")

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.journal.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, name: str, count: int = 1) -> dict[str, Any]:
        """Waits until the service has logged an event so many times, and returns that one."""
        wait_until(lambda: len(self.events(name)) >= count, f"{count} times {name}")
        return self.events(name)[count - 1]

    @property
    def lives_long(self) -> bool:
        """Whether the last token is good for longer than any test."""
        last = datetime.fromisoformat(self.events("token_rotated")[-1]["expires_at"])
        return last - datetime.now(UTC) > timedelta(minutes=5)

    def read(self, user: str, file: str = FILE) -> subprocess.CompletedProcess[str]:
        return self.machine.call("runuser", "-u", user, "--", "cat", file)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A machine on which nothing is installed, and a look-alike that knows what Backoffice would show."""
    levers = {
        "lifetime": 8.0,
        "accounts": {USERNAME: {"password": CANARY_PASSWORD}},
        "clients": {CLIENT_ID: {"secret": CANARY_CLIENT_SECRET, "scopes": ["public"]}},
    }
    with LookAlike.start(levers, log=tmp_path / "lookalike.log") as lookalike, Machine(tmp_path / "machine") as machine:
        yield Host(machine, lookalike)
        journal = machine.run("journalctl", "--no-pager", "--output=export")
        for secret in (CANARY_PASSWORD, CANARY_CLIENT_SECRET):
            assert secret not in journal


def test_the_page_as_it_stands(host: Host) -> None:
    """The commands lead to a doctor that finds nothing and to a reader that is let in, and show no secret."""
    host.lookalike.levers(lifetime=600.0)
    host.machine.run("useradd", "--system", "signage")
    *steps, read = page("test_the_page_as_it_stands")
    said = host.follow(*steps, stdin=host.typed)
    assert f"{SECRETS.rpartition('/')[0]}/config.toml: well, 1 token\n" in said
    assert "\nwell: 0 failed, 0 warn, " in said
    # what was written a moment ago has it read the configuration once more
    assert re.search(r"Active: (active \(running\)|reloading)", said), said

    host.wait_for("token_rotated")
    answer = json.loads(host.follow(read).splitlines()[-1])
    assert answer == {"id": f"user-{USERNAME}", "name": USERNAME}
    host.machine.run("useradd", "--system", "stranger")
    assert host.read("stranger").returncode == 1
    for secret in (CANARY_PASSWORD, CANARY_CLIENT_SECRET, json.loads(host.read("signage").stdout)["access_token"]):
        assert secret not in said
        assert secret not in host.journal


def test_the_life_of_the_service(host: Host) -> None:
    """It rotates, tells its state, reloads and stops well; what it published stays, and the next start adopts it."""
    host.install()
    host.machine.run("systemctl", "start", "aca-tokend")
    host.wait_for("token_rotated", 2)
    wait_until(lambda: host.show("StatusText").startswith("1 token: 1 ready"), "its state")

    pid = host.show("MainPID")
    status = host.machine.run("cat", f"/proc/{pid}/status")
    for line in ("CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    assert re.search(r"^Max core file size +0 +0 ", host.machine.run("cat", f"/proc/{pid}/limits"), re.MULTILINE)
    around = host.machine.run("cat", f"/proc/{pid}/environ", f"/proc/{pid}/cmdline")
    assert "CREDENTIALS_DIRECTORY=/run/credentials/aca-tokend.service" in around
    for secret in (CANARY_PASSWORD, CANARY_CLIENT_SECRET):
        assert secret not in around + host.machine.run("systemctl", "show", "aca-tokend")

    reloads = len(host.events("config_reloaded"))
    host.machine.run("systemctl", "reload", "aca-tokend")
    host.wait_for("config_reloaded", reloads + 1)
    assert host.show("MainPID") == pid

    host.lookalike.levers(lifetime=600.0)
    wait_until(lambda: host.lives_long, "a token that lives long")
    grants = host.lookalike.counts().grants
    host.machine.run("systemctl", "restart", "aca-tokend")
    host.wait_for("token_adopted")
    host.machine.run("systemctl", "stop", "aca-tokend")
    assert (host.show("Result"), host.show("NRestarts")) == ("success", "0")
    assert [event["unfinished"] for event in host.events("daemon_stopped")] == [[], []]
    assert host.lookalike.counts().grants == grants
    assert host.machine.run("stat", "--format=%U %G %a", FILE, "/run/aca-tokend").splitlines() == [
        "aca-tokend aca-readers 640",
        "aca-tokend aca-readers 750",
    ]


def test_what_systemd_does_about_an_end(host: Host) -> None:
    """A daemon that is killed, or that hangs, begins anew; one with a wrong configuration waits for a person."""
    host.lookalike.levers(lifetime=600.0)
    host.install()
    host.drop_in("quick", "[Service]\nWatchdogSec=5s\nRestartSec=100ms\n")
    host.machine.run("systemctl", "start", "aca-tokend")
    host.wait_for("token_rotated")
    for signal in ("KILL", "STOP"):
        pid, restarts = host.show("MainPID"), int(host.show("NRestarts"))
        host.machine.run("kill", f"-{signal}", pid)
        adoptions = len(host.events("token_adopted"))
        host.wait_for("token_adopted", adoptions + 1)
        assert int(host.show("NRestarts")) > restarts
    assert "Watchdog timeout" in host.journal

    host.machine.run("sh", "-c", "echo wrong > /etc/aca-tokend/config.toml")
    host.wait_for("config_rejected")
    assert host.machine.call("systemctl", "restart", "aca-tokend").returncode != 0
    assert host.show("ActiveState") == "failed"
    assert "config.toml: line 1, column 6: is not valid TOML" in host.journal


def test_a_changed_password(host: Host) -> None:
    """A restart takes a changed secret up, and lets a token go on whose password was refused."""
    host.install()
    host.lookalike.levers(accounts={USERNAME: {"password": "another"}}, lifetime=600.0)
    host.machine.run("systemctl", "start", "aca-tokend")
    host.wait_for("token_suspended")
    host.machine.write(f"{SECRETS}/bookings-password", "another\n", 0o600)
    host.follow(*page("test_a_changed_password"))
    host.wait_for("token_rotated")


def test_encrypted_credential(host: Host) -> None:
    """A credential that is encrypted on the disk takes the place of a file."""
    host.lookalike.levers(lifetime=600.0)
    host.install()
    host.follow(*page("test_encrypted_credential"))
    host.wait_for("token_rotated")
    assert host.machine.run("ls", SECRETS).split() == ["client-secret"]
    assert host.machine.call("grep", "-r", CANARY_PASSWORD, "/etc/aca-tokend").returncode == 1


def test_a_group_of_its_own(host: Host) -> None:
    """A file can be for another group alone, whose members see nothing of the folder but that file."""
    host.lookalike.levers(lifetime=600.0)
    host.install()
    host.follow(*page("test_a_group_of_its_own"))
    for user, group in {"rooms": "bookings-readers", "signage": "aca-readers"}.items():
        host.machine.run("useradd", "--system", "--groups", group, user)
    publish = f'path = "{FILE}"'
    host.machine.run("sed", "-i", f's|{publish}|{publish}, group = "bookings-readers"|', "/etc/aca-tokend/config.toml")
    host.machine.run("systemctl", "start", "aca-tokend")
    host.wait_for("token_rotated")
    assert host.read("signage").returncode == 1
    assert json.loads(host.read("rooms").stdout)["username"] == USERNAME
    assert host.machine.call("runuser", "-u", "rooms", "--", "ls", "/run/aca-tokend").returncode != 0


def test_hooks(host: Host) -> None:
    """A path unit reloads a program of root's after a write, and with the drop-in the daemon itself can signal one."""
    host.install()
    for name in ("aca-nginx-reload.path", "aca-nginx-reload.service"):
        host.machine.write(
            f"/etc/systemd/system/{name}", (UNITS / name).read_text().replace("nginx-bookings.conf", "b")
        )
    # it counts what it is told, in place of nginx
    program = "trap 'echo signal >> /run/told' HUP; echo $$ > /run/nginx.pid; while :; do sleep 1 & wait; done"
    host.machine.write("/usr/local/bin/program", f"#!/bin/bash\n{program}\n", 0o755)
    host.machine.write(
        "/etc/systemd/system/nginx.service",
        "[Service]\nExecStart=/usr/local/bin/program\nExecReload=/bin/sh -c 'echo reload >> /run/told'\n",
    )
    signal = 'after = { signal = "HUP", pid_file = "/run/nginx.pid" }'
    sinks = f'path = "{FILE}", {signal} }}, {{ to = "file", path = "/run/aca-tokend/b"'
    host.machine.run("sed", "-i", f's|path = "{FILE}"|{sinks}|', "/etc/aca-tokend/config.toml")
    host.drop_in("signal", (UNITS / "aca-tokend.service.d" / "signal.conf").read_text())
    host.machine.run("systemctl", "start", "nginx")
    wait_until(lambda: host.machine.call("test", "-s", "/run/nginx.pid").returncode == 0, "the program")
    host.machine.run("systemctl", "start", "aca-tokend", "aca-nginx-reload.path")

    def told() -> set[str]:
        return set(host.machine.call("cat", "/run/told").stdout.splitlines())

    wait_until(lambda: told() == {"reload", "signal"}, "the program is told")
    assert host.events("hook_failed") == []
    assert host.show("CapabilityBoundingSet") == "cap_kill"


def test_addresses(host: Host) -> None:
    """With the drop-in it speaks to the addresses in it and to no other."""
    host.install()
    (drop_in,) = page("test_addresses", "ini")
    assert "IPAddressAllow=localhost " in drop_in
    host.drop_in("addresses", drop_in)
    host.machine.run("systemctl", "start", "aca-tokend")
    host.wait_for("token_rotated")
    host.drop_in("addresses", drop_in.replace("=localhost ", "="))
    host.machine.run("systemctl", "restart", "aca-tokend")
    assert host.wait_for("rotation_failed")["reason"] in {"connect_failed", "timeout"}


def test_manual(host: Host) -> None:
    """The links of the page lead to the man page and the completion."""
    for name, place in {"man": "man/man1/aca-tokend.1", "bash": "bash-completion/completions/aca-tokend"}.items():
        text = man.text() if name == "man" else completion.bash()
        host.machine.write(f"/opt/aca-tokend/share/{place}", text)
    host.follow(*page("test_manual"))
    assert host.machine.run("cat", "/usr/local/share/man/man1/aca-tokend.1") == man.text()
    assert host.machine.run("cat", "/usr/local/share/bash-completion/completions/aca-tokend") == completion.bash()


def test_remove(host: Host) -> None:
    """Nothing of the service is left, and readers keep their group."""
    host.install()
    host.machine.run("systemctl", "enable", "--now", "aca-tokend")
    host.follow(*page("test_remove"))
    assert host.machine.call("systemctl", "cat", "aca-tokend").returncode != 0
    assert host.machine.call("id", "aca-tokend").returncode != 0
    for place in ("/etc/aca-tokend", "/run/aca-tokend", f"{SERVICE}.d", "/etc/sysusers.d/aca-tokend.conf"):
        assert host.machine.call("test", "-e", place).returncode == 1
    host.machine.run("getent", "group", "aca-readers")
