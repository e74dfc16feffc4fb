"""The servers and daemons that the rehearsal happens to, and all that can be done to them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import hvac

from aca_tokend import terminal
from aca_tokend.core.secret import Secret
from aca_tokend.demo.processes import LookAlike, OpenBao
from aca_tokend.demo.stage import DaemonProcess
from tests.system.cast import COMMON, FURTHER, TOKENS, Token

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = Secret("canary-p&ss+w%rd=ü-5d02")
NEW_PASSWORD = Secret("canary-new-p&ss+w%rd=ü-91ee")
CLIENT_SECRET = Secret("canary-client-secret-c4a7")
NEW_CLIENT_SECRET = Secret("canary-new-client-secret-0b3f")

# A quarter of the life is over at the rotation point. So what heals in 13 seconds, 30 % of the outage tolerance, alarms
# nobody, however busy the machine is, and what does not heal has expired within 60.
LIFETIME_SECONDS = 60.0
POLICY = """
path "secret/data/aca/*" { capabilities = ["create", "read", "update"] }
"""
MISTYPED = '\nshow_usernames = "no"\n'
DISK = "mount -t tmpfs -o size=128k tmpfs {directory}/disk && exec {command}"


class Scene:
    """The servers and three daemons: one with a token for each fault, one to be misconfigured and one to be killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.daemons: dict[str, DaemonProcess] = {}
        self._at_main: dict[str, str] = {}
        with ExitStack() as stack:
            self.main, self.down, self.clock = (
                stack.enter_context(LookAlike.start({"lifetime": LIFETIME_SECONDS}, log=directory / f"{name}.log"))
                for name in ("main", "down", "clock")
            )
            self.bao, self.sealed = (
                stack.enter_context(OpenBao.dev(log=directory / f"{name}.log")) for name in ("bao", "bao-sealed")
            )
            self._prepare_vaults()
            for folder in ("disk", "place", "places"):
                (directory / folder).mkdir()
            for token in TOKENS:
                self._prepare_account(token)
            stack.callback(self._kill_daemons)
            for name in dict.fromkeys(token.daemon for token in TOKENS):
                self.write_config(name)
                self.start(name)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str) -> None:
        """Starts a daemon; `tokens` gets a small file system of its own, which nobody else sees."""
        command = [
            sys.executable,
            "-m",
            "aca_tokend",
            "run",
            "--log-format",
            "json",
            "--config",
            str(self.config(name)),
        ]
        if name == "tokens":
            script = DISK.format(directory=self.directory, command=shlex.join(command))
            command = ["unshare", "--mount", "--map-root-user", "/bin/sh", "-c", script]
        clean = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        log = self.directory / f"daemon-{name}.log"
        with log.open("ab") as stream:
            begin = stream.tell()
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=clean, start_new_session=True
            )
        self.daemons[name] = DaemonProcess(process, log, begin)

    def config(self, daemon: str) -> Path:
        """The configuration of a daemon."""
        return self.directory / f"{daemon}.toml"

    def secrets(self) -> Iterator[str]:
        """Everything that must be seen nowhere."""
        for secret in (PASSWORD, NEW_PASSWORD, CLIENT_SECRET, NEW_CLIENT_SECRET):
            yield secret.reveal()
        for name in ("root-token", "policy-token", "secret-id", "sealed-token"):
            yield (self.directory / name).read_text().strip()
        for published in (self.directory / "places").glob("*.json"):
            yield json.loads(published.read_text())["access_token"]

    def at_main(self, name: str, kind: str = "") -> None:
        """Lets a fault happen to every grant of one token at the endpoint `main`, or no longer."""
        self._at_main[f"svc-{name}"] = kind
        faults = [{"kind": kind, "username": username} for username, kind in self._at_main.items() if kind]
        self.main.levers(faults=faults)

    def change_password(self, name: str) -> None:
        """Somebody changes the password of an account, on the server alone."""
        self.main.levers(accounts={f"svc-{name}": {"password": NEW_PASSWORD.reveal()}})

    def change_client_secret(self, name: str) -> None:
        """An application gets a new secret, on the server alone."""
        self.main.levers(clients={f"client-{name}": {"secret": NEW_CLIENT_SECRET.reveal()}})

    def write_secret(self, name: str, value: Secret) -> None:
        """Puts a secret into its file, as an operator would."""
        fresh = self.directory / f".{name}.new"
        fresh.touch(mode=0o600)
        fresh.write_text(value.reveal() + "\n")
        fresh.rename(self.directory / name)

    def status(self, name: str) -> str:
        """What `aca-tokend status` says of a token, or of the daemon of that name."""
        token = next(token for token in TOKENS if token.name == name)
        address = terminal.address(None, f"http://127.0.0.1:{self.daemons[token.daemon].admin_port}", ("", ""))
        with contextlib.redirect_stdout(io.StringIO()) as said:
            try:
                terminal.show(address, name if token.daemon == "tokens" else None, as_json=False)
            except terminal.AskError as error:
                return error.message
        return said.getvalue()

    def disable_the_grant(self) -> None:
        """The server no longer grants `grant-disabled` a token by password."""
        self.at_main("grant-disabled", "unsupported_grant_type")

    def allow_the_grant(self) -> None:
        """The server grants it tokens again, and somebody calls `aca-tokend resume`."""
        self.at_main("grant-disabled")
        config = str(self.config("tokens"))
        command = [sys.executable, "-m", "aca_tokend", "resume", "grant-disabled", "--config", config]
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    def lose_the_log_in(self) -> None:
        """Somebody destroys the secret id, and revokes the token that was got with it."""
        client = self.bao.client()
        secret_id = (self.directory / "secret-id").read_text().strip()
        client.auth.approle.destroy_secret_id("login-lost", secret_id=secret_id)
        for accessor in client.list("auth/token/accessors")["data"]["keys"]:
            with contextlib.suppress(hvac.exceptions.VaultError):  # it has expired since
                if client.lookup_token(accessor, accessor=True)["data"]["path"] == "auth/approle/login":
                    client.auth.token.revoke_accessor(accessor)

    def give_a_secret_id(self) -> None:
        """Puts a new secret id where the configuration refers to it."""
        answer = self.bao.client().auth.approle.generate_secret_id("login-lost")
        self.write_secret("secret-id", Secret(answer["data"]["secret_id"]))

    def lose_the_policy(self) -> None:
        """Somebody deletes the policy of the token of the Vault `policy-lost`."""
        self.bao.client().sys.delete_policy("policy-lost")

    def give_the_policy(self) -> None:
        """Writes the policy that the token of the Vault `policy-lost` needs."""
        self.bao.client().sys.create_or_update_policy("policy-lost", POLICY)

    def fill_the_disk(self) -> None:
        """Writes until nothing more fits."""
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free_the_disk(self) -> None:
        """Takes away what fills it."""
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return Path(f"/proc/{self.daemons['tokens'].process.pid}/root{self.directory}/disk/filler")

    def misconfigure(self) -> None:
        """Somebody mistypes a key."""
        with self.config("reload-bad").open("a") as file:
            file.write(MISTYPED)

    def rename_token(self, name: str, fresh: str) -> None:
        """Takes a token out of the configuration of the daemon of its name and puts one of another name there."""
        self._prepare_account(Token(name, fresh))
        path = self.config(name)
        path.write_text(path.read_text().replace(name, fresh))

    def write_config(self, daemon: str) -> None:
        """Writes the configuration of a daemon, as it should be."""
        names = {"main": self.main.url, "down": self.down.url, "clock": self.clock.url}
        head = (COMMON + FURTHER if daemon == "tokens" else COMMON).format(
            directory=self.directory, bao=self.bao.address, sealed=self.sealed.address, **names
        )
        tokens = [token.toml(self.directory) for token in TOKENS if token.daemon == daemon]
        self.config(daemon).write_text("".join([head, *tokens]))

    def _prepare_account(self, token: Token) -> None:
        server = {"endpoint-down": self.down, "clock-wrong": self.clock}.get(token.endpoint, self.main)
        server.levers(
            accounts={f"svc-{token.name}": {"password": PASSWORD.reveal()}},
            clients={f"client-{token.name}": {"secret": CLIENT_SECRET.reveal()}},
        )
        self.write_secret(f"{token.name}.password", PASSWORD)
        self.write_secret(f"{token.name}.client-secret", CLIENT_SECRET)

    def _prepare_vaults(self) -> None:
        client = self.bao.client()
        self.write_secret("root-token", self.bao.root_token)
        self.write_secret("sealed-token", self.sealed.root_token)
        self.give_the_policy()
        answer = client.auth.token.create_orphan(policies=["policy-lost"], period="1h")
        self.write_secret("policy-token", Secret(answer["auth"]["client_token"]))
        client.sys.enable_auth_method("approle")
        client.sys.create_or_update_policy("login-lost", POLICY)
        client.auth.approle.create_or_update_approle("login-lost", token_policies=["login-lost"], token_ttl="30s")
        answer = client.auth.approle.read_role_id("login-lost")
        self.write_secret("role-id", Secret(answer["data"]["role_id"]))
        self.give_a_secret_id()

    def _kill_daemons(self) -> None:
        for daemon in self.daemons.values():
            daemon.kill()
