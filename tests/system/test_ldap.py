"""The log-in by LDAP of docs/vault-logins.md, with Debian's slapd and an OpenBao that has the method built in."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.login import LoggedIn, LoginFailed, Renewed
from aca_tokend.core.outcome import Reason
from aca_tokend.demo.child import Child, free_port, wait_until
from tests.integration.test_vault_logins import kept
from tests.logins import PASSWORD, Logins, commands

if TYPE_CHECKING:
    from collections.abc import Iterator

# OpenBao 2.7 has the method as a plugin only, which no package has: `make test-system` installs the one before it here.
BAO = Path(__file__).parents[2] / ".venv" / "openbao-2.6" / "bin" / "bao"
CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/slapd.pid
database mdb
suffix "dc=example,dc=org"
directory {directory}/db
"""
PEOPLE = f"""
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups

dn: uid=svc-aca-tokend,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: svc-aca-tokend
cn: aca-tokend
sn: aca-tokend
userPassword: {PASSWORD}
"""


class Directory:
    """A small directory with one user."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        (directory / "db").mkdir()
        config, people = directory / "slapd.conf", directory / "people.ldif"
        config.write_text(CONFIG.format(directory=directory))
        people.write_text(PEOPLE)
        command = [_program("slapadd"), "-f", str(config), "-l", str(people)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        arguments = ["-d", "0", "-f", str(self._directory / "slapd.conf"), "-h", f"ldap://127.0.0.1:{self.port}"]
        self._child = Child([_program("slapd"), *arguments], log=self._directory / "slapd.log", tied=True)
        wait_until(self._answers, "the directory")

    def stop(self) -> None:
        """Ends it."""
        self._child.stop()

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"no {name}: install the Debian package slapd")
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    """A running directory."""
    (tmp_path / "slapd").mkdir()
    running = Directory(tmp_path / "slapd")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def bao(tmp_path: Path, directory: Directory) -> Iterator[Logins]:
    """A server that asks it, set up by the commands of the docs."""
    (tmp_path / "bao").mkdir()
    with Logins.begin(tmp_path / "bao", BAO) as bao:
        script = (
            commands("ldap")
            .replace("=1h", "=4s")
            .replace("ldaps://directory.example.com", f"ldap://127.0.0.1:{directory.port}")
        )
        bao.run(script)
        yield bao


def test_ldap(bao: Logins, directory: Directory) -> None:
    """A user of the directory gets a token, which is renewed; a wrong password is tried twice, an outage is none."""
    auth = {"method": "ldap", "username": "svc-aca-tokend", "password": {"file": str(bao.files / "vault-password")}}
    table = {"address": bao.address, "timeout": 20.0, "auth": auth}
    with kept(table) as ours:
        assert ours.works()
        assert "aca-tokend" in ours.session.own_token().policies
        ours.wait_for(Renewed)

    directory.stop()
    with kept(table) as ours:
        error = ours.failure()
        assert error.reason is Reason.UNAVAILABLE
        assert "Vault cannot reach the directory" in error.message
        wait_until(lambda: ours.count(LoginFailed) >= 4, "attempts that go on")
        directory.start()
        wait_until(lambda: ours.count(LoggedIn) == 1, "the log-in after the outage")

    bao.write("vault-password", "canary-wrong")
    with kept(table) as ours:
        wait_until(lambda: ours.failure() is not None and ours.count(LoginFailed) == 2, "the second refusal")
        assert "is not sent again before it changes" in ours.failure().message
        bao.write("vault-password", PASSWORD)
        wait_until(lambda: ours.count(LoggedIn) == 1, "the log-in with the right password")
        assert ours.count(LoginFailed) == 2
