"""What the benchmark runs against: OpenBao with raft storage, fsync as always, and a token endpoint at the speed of C.

The look-alike would be what is measured, so nginx answers each grant with another token, of the lifetime that
is part of its path.
"""

from __future__ import annotations

import shutil
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from aca_tokend.demo.child import Child, HelperError, on_a_free_port, wait_until
from aca_tokend.demo.openbao import OpenBao

if TYPE_CHECKING:
    from pathlib import Path

# $request_id is 32 random hexadecimal digits: a token of 64 as in the seed of ACAEngine, another for each request.
NGINX = """
daemon off;
worker_processes 1;
error_log {directory}/nginx.log error;
pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 100000000;
  server {{
    listen 127.0.0.1:{port};
    default_type application/json;
    location ~ ^/(?<lifetime>[0-9]+)/token$ {{
      return 200 '{{"access_token":"$request_id$request_id","token_type":"Bearer","expires_in":$lifetime}}';
    }}
  }}
}}
"""
CONFIG = """
[admin]
listen = "127.0.0.1:0"
[acaengine.main]
url = "http://127.0.0.1:{port}"
token_path = "/{lifetime}/token"
[vault.main]
address = "{address}"
auth = {{ method = "token", token = {{ file = "{directory}/vault-token" }} }}
[rotation]
min_interval = "1s"
"""
ENTRY = """
[[tokens]]
name = "{name}"
authority = "authority-1"
username = "svc-{name}"
password = {{ file = "{directory}/password" }}
client_id = "5f4dcc3b5aa765d61d8327deb882cf99"
client_secret = {{ file = "{directory}/client-secret" }}
scope = "public"
"""
KV = """
[[tokens.publish]]
to = "vault"
mount = "secret"
path = "{path}"
"""
FILE = """
[[tokens.publish]]
to = "file"
path = "{path}"
"""


class Servers:
    """Both servers, up until the end of the context, and configurations for them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._runs = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.bao = stack.enter_context(OpenBao.raft(self.directory / "openbao"))
            self.port = on_a_free_port(self._nginx, None)
            stack.callback(self._child.stop)
            for name in ("password", "client-secret"):
                self._secret(name, "not-a-secret")
            self._secret("vault-token", self.bao.root_token.reveal())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _nginx(self, port: int) -> int:
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if binary is None:
            message = "the benchmark needs nginx and wrk: apt-get install --no-install-recommends nginx wrk"
            raise HelperError(message)
        config = self.directory / "nginx.conf"
        config.write_text(NGINX.format(directory=self.directory, port=port))
        self._child = Child([binary, "-p", str(self.directory), "-c", str(config)], log=self.directory / "nginx.err")

        def answers() -> bool:
            if not self._child.running:
                self._child.give_up("nginx ended")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers, "nginx that answers")
        return port

    def _secret(self, name: str, value: str) -> None:
        path = self.directory / name
        path.touch(0o600)
        path.write_text(value)

    def fresh_prefix(self) -> str:
        """A folder of KV secrets that nobody has written to."""
        self._runs += 1
        return f"run-{self._runs}"

    def config(self, prefix: str, count: int, lifetime: int, *, file: Path | None = None) -> Path:
        """A configuration of so many tokens, published below `prefix`, or of one published to `file`."""
        text = CONFIG.format(port=self.port, lifetime=lifetime, address=self.bao.address, directory=self.directory)
        for number in range(count):
            text += ENTRY.format(name=f"t{number}", directory=self.directory)
            text += FILE.format(path=file) if file else KV.format(path=f"{prefix}/t{number}")
        path = self.directory / f"{prefix}.toml"
        path.write_text(text)
        return path

    def token_url(self, lifetime: int) -> str:
        """Where tokens of this lifetime are granted."""
        return f"http://127.0.0.1:{self.port}/{lifetime}/token"
