"""The third phase: the daemon as a process, and servers that answer its requests in bytes of their own.

Each token has an endpoint and a Vault of its own, and a reload every few seconds replaces the oldest of them: one that
is suspended, or told to come back in an hour, asks for nothing more. Beside them is a token that is granted well.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.demo.stage import DaemonProcess, wait_until
from tests.fuzz.mutation import CANARY
from tests.fuzz.sockets import GOOD, GRANT, KEEP, KV2, Server, draw_answer, well

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

LARGEST_MB = 200
LIFETIME_SECONDS = 10
# So many tokens at one time that are answered oddly, so many of which leave at each reload.
TOKENS, LEAVING = 24, 4
RELOAD_SECONDS = 2.0
LOOK_SECONDS = 0.25
# So many answers of the odd ones are as they should be.
GOOD_SHARE = 0.4
# In the place of the canary of the other phases: a request id of letters alone would be shown, and may be.
SHOWN_NOWHERE = CANARY.replace("N", "+", 1).encode()
# Also as it is sent in a form; then what the log has of a bug, or of a configuration that the daemon did not take.
WRONG = (SHOWN_NOWHERE, SHOWN_NOWHERE.replace(b"+", b"%2B"), b'"internal_error"', b'"config_rejected"')

HEAD = """
[admin]
listen = "127.0.0.1:0"
[log]
level = "debug"
[rotation]
min_interval = "100ms"
assumed_lifetime = "1s"
backoff = {{ initial = "100ms", cap = "500ms" }}
max_rejections = 10
retry_rejected = "1s"
[acaengine.well]
url = "{well}"
[[tokens]]
name = "well"
acaengine = "well"
authority = "a"
username = "well"
password = {{ file = "{secret}" }}
client_id = "well"
client_secret = {{ file = "{secret}" }}
publish = [{{ to = "file", path = "{folder}/well.json" }}]
"""
ENTRY = """
[acaengine.a{number}]
url = "{odd}"
timeout = "250ms"
[vault.v{number}]
address = ["{odd}", "http://localhost:{port}"]
namespace = "n{number}"
redirect_hosts = ["127.0.0.1"]
timeout = "250ms"
auth = {auth}
[[tokens]]
name = "t{number}"
acaengine = "a{number}"
authority = "a"
username = "u{number}"
password = {password}
client_id = "c{number}"
client_secret = {{ file = "{secret}" }}
verify = {{ path = "/user", every = "1s" }}
[[tokens.publish]]
to = "file"
path = "{folder}/t{number}.json"
[[tokens.publish]]
to = "vault"
vault_name = "v{number}"
mount = "secret"
path = "aca/b"
kv_version = {kv}
replace_foreign = true
"""


class _Well(Server):
    """Grants tokens that live a few seconds."""

    def reply(self, path: str) -> tuple[bytes, int]:  # noqa: ARG002 -- it is asked for nothing else
        """A new token."""
        self.asked += 1
        token = GOOD[GRANT] | {"access_token": f"{CANARY}{self.asked}", "expires_in": LIFETIME_SECONDS}
        return well(token).replace(CANARY.encode(), SHOWN_NOWHERE), KEEP


class _Odd(Server):
    """Answers in bytes that it draws, and now and then as it should: else nobody would ask for what comes after."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self.odd = ("", b"\0")  # its connections end soon after an answer that somebody waits for more of
        self.latest: deque[tuple[str, bytes]] = deque(maxlen=20)
        self._rng = rng
        self._drawing = threading.Lock()

    def reply(self, path: str) -> tuple[bytes, int]:
        """The next bytes."""
        with self._drawing:
            known = path if path in GOOD else KV2
            odd = self._rng.random() > GOOD_SHARE
            case = draw_answer(known, self.port, self._rng) if odd else bytes([KEEP]) + well(GOOD[known])
            case = case.replace(CANARY.encode(), SHOWN_NOWHERE)
            self.asked += odd
            self.latest.append((path, case))
        return case[1:], case[0] & 3


class Daemon:
    """A daemon, and the servers that it takes for its own."""

    def __init__(self, folder: Path, rng: Random) -> None:
        self._folder, self._secret, self._config = folder, folder / "secret", folder / "config.toml"
        self._secret.write_bytes(SHOWN_NOWHERE)
        self._secret.chmod(0o600)
        self._well, self._odd = _Well(), _Odd(rng)
        for server in (self._well, self._odd):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self._oldest, self._read, self._rest = 0, 0, b""
        self.tightest = float("inf")  # the shortest that the good token was still valid for when looked at, in seconds
        self.memory_mb = 0  # the most that the daemon has had
        self._write()
        self._process = DaemonProcess.start(self._config, folder / "daemon.log")

    def close(self) -> None:
        """Ends all of it."""
        self._process.kill()
        for server in (self._well, self._odd):
            server.shutdown()
            server.server_close()

    @property
    def answers(self) -> int:
        """How many odd answers were given."""
        return self._odd.asked

    @property
    def grants(self) -> int:
        """How often the good token was granted."""
        return self._well.asked

    def problem(self, more: Callable[[], bool]) -> str:
        """What is wrong with it, as long as there is to be more; empty where nothing is."""
        wait_until(self._published, "the good token")
        reload_at = time.monotonic() + RELOAD_SECONDS
        while more():
            try:
                problem = self._look()
            except OSError as error:  # it has just ended, or does not answer
                problem = f"{error!r}: {self._process.text[-2000:]}"
            if problem:
                return f"{problem}\nthe latest answers:\n" + "\n".join(f"{it!r:.3000}" for it in self._odd.latest)
            if time.monotonic() > reload_at:
                self._oldest += LEAVING
                self._write()
                self._process.process.send_signal(signal.SIGHUP)
                reload_at = time.monotonic() + RELOAD_SECONDS
            time.sleep(LOOK_SECONDS)
        return "" if self._process.terminate() == 0 else "it does not end as it should"

    def _published(self) -> bool:
        return (self._folder / "well.json").exists()

    def _write(self) -> None:
        """The configuration with the tokens from the oldest on."""
        odd = f"http://127.0.0.1:{self._odd.port}"
        settings = {"folder": self._folder, "secret": self._secret, "odd": odd, "port": self._odd.port}
        text = HEAD.format(well=f"http://127.0.0.1:{self._well.port}", **settings)
        secret = f'{{ file = "{self._secret}" }}'
        for number in range(self._oldest, self._oldest + TOKENS):
            auth = f'{{ method = "approle", role_id = "r", secret_id = {secret} }}'
            if number % 2:
                auth = f'{{ method = "token", token = {secret} }}'
            password = f'{{ vault = "secret/aca/p#access_token", vault_name = "v{number}" }}' if number % 4 else secret
            kv = 1 if number % 8 == 0 else 2
            text += ENTRY.format(number=number, auth=auth, password=password, kv=kv, **settings)
        new = self._folder / "config.new"
        new.write_text(text)
        new.replace(self._config)

    def _look(self) -> str:
        status = Path(f"/proc/{self._process.process.pid}/status").read_text()
        if (peak := re.search(r"VmHWM:\s+(\d+) kB", status)) is None:
            return f"it ended: {self._process.text[-2000:]}"
        self.memory_mb = int(peak[1]) // 1024
        if self.memory_mb > LARGEST_MB:
            return f"it takes {self.memory_mb} MB"
        with (self._folder / "well.json").open() as file:
            left = (datetime.fromisoformat(json.load(file)["expires_at"]) - datetime.now(UTC)).total_seconds()
        self.tightest = min(self.tightest, left)
        if left <= 0:
            return "the good token has expired"
        for place, text in self._shown():
            for wrong in WRONG:
                if wrong in text:
                    at = text.index(wrong)
                    return f"{place} has {text[max(0, at - 1000) : at + 1000]!r}"
        return ""

    def _shown(self) -> Iterator[tuple[str, bytes]]:
        """Whatever somebody may read of it: what was logged since the last look, and the pages."""
        with self._process.log.open("rb") as log:
            log.seek(self._read)
            logged = self._rest + log.read()
            self._read = log.tell()
        self._rest = logged[-len(max(WRONG, key=len)) :]
        yield "the log", logged
        for path in ("/", f"/tokens/t{self._oldest + LEAVING}", "/tokens/well", "/api/v1/status", "/metrics"):
            status, page = self._process.get(path)
            assert status in {200, 404}, f"{path} answers {status}"
            yield path, page.encode()
