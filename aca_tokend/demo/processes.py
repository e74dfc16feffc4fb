"""The helper programs as context managers: the ACAEngine look-alike and a real OpenBao server.

Both listen on 127.0.0.1 alone, keep their port for all their life, and never outlive the process they were started
from. Errors are `HelperError`; no secret is in any of them, nor among the arguments or in the environment of a child.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import ssl
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from aca_tokend.demo.child import Child, HelperError, on_a_free_port
from aca_tokend.demo.levers import Levers
from aca_tokend.demo.openbao import OpenBao
from aca_tokend.demo.records import Counts, SeenRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["HelperError", "LookAlike", "OpenBao"]

HTTP_TIMEOUT_SECONDS = 30.0


class LookAlike:
    """A running ACAEngine look-alike and its levers, which `levers.py` tells of."""

    def __init__(self, child: Child, port: int, *, tls: bool) -> None:
        self._child = child
        self._tls = tls
        self.port = port

    @classmethod
    def start(
        cls,
        levers: Mapping[str, object] | None = None,
        *,
        tls: tuple[Path, Path] | None = None,
        port: int | None = None,
        log: Path | None = None,
    ) -> LookAlike:
        """Starts one with levers already set. `tls` is a certificate and its key; `log` takes what goes wrong in it."""
        if importlib.util.find_spec("authlib") is None:
            message = "the look-alike needs Authlib; install the extra aca-tokend[demo]"
            raise HelperError(message)
        command = [sys.executable, "-P", "-m", "aca_tokend.demo.lookalike"]
        if tls is not None:
            command += ["--tls-cert", str(tls[0]), "--tls-key", str(tls[1])]

        def attempt(port: int) -> LookAlike:
            child = Child([*command, "--listen", f"127.0.0.1:{port}"], log=log)
            child.write_line(json.dumps(levers or {}))
            if not child.read_line():
                child.give_up("the look-alike did not start")
            return cls(child, port, tls=tls is not None)

        return on_a_free_port(attempt, port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it answers, such as `http://127.0.0.1:20123`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id; a SIGSTOP to it makes a server that accepts connections and is silent."""
        return self._child.pid

    def levers(self, **changes: object) -> None:
        """Moves levers, all at once; those not named stay where they are."""
        self._call("POST", "/_levers", json.dumps(changes))

    def present_levers(self) -> Levers:
        """The levers as they stand, with every secret masked."""
        return Levers.model_validate_json(self._call("GET", "/_levers"))

    def fail(self, kind: str, **details: object) -> None:
        """Sets one fault in place of all others; the details are the fields of `Fault`."""
        self.levers(faults=[{"kind": kind, **details}])

    def heal(self) -> None:
        """Takes all faults away. Connections that hang already go on hanging."""
        self.levers(faults=[])

    def log_out(self, username: str) -> None:
        """Logs an account out, which kills every token issued to it until the end of this second."""
        self._call("POST", f"/_log_out?username={quote(username, safe='')}")

    def reset(self) -> None:
        """Everything as at the start: its levers, no tokens, no counts; hanging connections are closed."""
        self._call("POST", "/_reset")

    def counts(self) -> Counts:
        """What happened since the start or the last reset."""
        return Counts.model_validate_json(self._call("GET", "/_counts"))

    def requests(self, last: int = 100) -> list[SeenRequest]:
        """The last requests, oldest first, without the values of their forms, queries and headers."""
        return [SeenRequest.model_validate(seen) for seen in json.loads(self._call("GET", f"/_requests?last={last}"))]

    def go_down(self) -> None:
        """Refuses connections from now on and closes those there are; the tokens stay valid."""
        self._tell("down")

    def come_up(self) -> None:
        """Accepts connections again, on the same port."""
        self._tell("up")

    def stop(self) -> None:
        """Ends it."""
        self._child.stop()

    def kill(self) -> None:
        """Ends it by SIGKILL."""
        self._child.kill()

    def _tell(self, word: str) -> None:
        self._child.write_line(word)
        if not self._child.read_line():
            self._child.give_up(f"the look-alike did not go {word}")

    def _call(self, method: str, path: str, body: str | None = None) -> bytes:
        """One request to the levers. Its certificate is not checked: it may be a wrong one on purpose."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HTTP_TIMEOUT_SECONDS)
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=HTTP_TIMEOUT_SECONDS, context=context
            )
        with closing(connection):
            try:
                connection.request(method, path, body)
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                message = f"the look-alike does not answer {path}"
                raise HelperError(message) from error
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            message = f"the look-alike refused {path}: {answer.decode()}"
            raise HelperError(message)
        return answer
