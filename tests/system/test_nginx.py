"""docs/readers/nginx.md: a proxy that adds the token, with Debian's nginx."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections import Counter
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import certifi
import pytest

from aca_tokend.demo.child import Child, free_port
from aca_tokend.demo.reader import API_PATH
from aca_tokend.demo.stage import Settings, wait_until
from tests.readers.agents import let_in, snippet, start_agent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aca_tokend.demo.stage import DaemonProcess, Stage

# What a package brings along: a main configuration that includes the file of the page. All paths are its own.
MAIN = """
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/aca.conf;
}}
"""


class Proxy:
    """An nginx with the snippet of the page, in a directory of its own."""

    def __init__(self, stage: Stage, directory: Path) -> None:
        self.port = free_port()
        self.include = directory / "authorization.conf"
        nginx = shutil.which("nginx", path="/usr/sbin")
        assert nginx is not None, "no nginx: install the Debian package nginx"
        changes = {
            "127.0.0.1:8081": f"127.0.0.1:{self.port}",
            "https://aca.example.com": stage.lookalike.url,
            "/etc/ssl/certs/ca-certificates.crt": certifi.where(),
            "/run/aca-proxy/authorization.conf": str(self.include),
        }
        (directory / "aca.conf").write_text(snippet("nginx/aca.conf", changes))
        (directory / "main.conf").write_text(MAIN.format(directory=directory))
        self.command = [nginx, "-p", str(directory), "-c", str(directory / "main.conf")]
        self.statuses: Counter[int] = Counter()
        self.log = directory / "nginx.log"

    def start(self) -> Child:
        """Starts it, and waits until it answers."""
        child = Child([*self.command, "-g", "daemon off;"], log=self.log, tied=True)
        try:
            wait_until(lambda: not child.running or self._status() is not None, "an answer of nginx")
        except BaseException:
            child.kill()
            raise
        assert child.running, child.last_words
        return child

    def called(self) -> bool:
        """One request of an application, whose own header must not matter; True, so that a condition can begin so."""
        self.statuses[self._status() or 0] += 1
        return True

    def _status(self) -> int | None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            try:
                connection.request("GET", API_PATH, headers={"Authorization": "Bearer of-the-client"})
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return None


@pytest.fixture
def proxy(stage: Stage, tmp_path: Path) -> Proxy:
    """What is ready to start."""
    directory = tmp_path / "nginx"
    directory.mkdir()
    return Proxy(stage, directory)


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """What ends with the test, the last one first."""
    with ExitStack() as stack:
        yield stack


def never_refused(proxy: Proxy, daemon: DaemonProcess) -> None:
    """Sends requests through nginx all through three rotations, and a while after the last."""
    seen = len(daemon.events("token_rotated"))
    wait_until(lambda: proxy.called() and len(daemon.events("token_rotated")) >= seen + 3, "three rotations")
    enough = proxy.statuses.total() + 20
    wait_until(lambda: proxy.called() and proxy.statuses.total() >= enough, "requests with the last token")
    assert proxy.statuses == {200: proxy.statuses.total()}
    token = proxy.include.read_text().partition("Bearer ")[2].partition('"')[0]
    assert token
    assert token not in daemon.text + proxy.log.read_text()


def test_include_of_an_agent(stage: Stage, proxy: Proxy, ends: ExitStack) -> None:
    """With an include that an agent renders, requests through nginx are never refused over three rotations.

    nginx does not start before there is a token.
    """
    checked = subprocess.run([*proxy.command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode != 0, "nginx starts without a token"
    assert str(proxy.include) in checked.stderr
    let_in(stage)
    daemon = stage.daemon(stage.config(["bookings"]))
    changes = {
        "https://vault.example.com:8200": stage.bao.address,
        "/etc/aca-proxy": str(stage.directory),
        "/run/aca-proxy/authorization.conf": str(proxy.include),
        '["nginx", "-s", "reload"]': json.dumps([*proxy.command, "-s", "reload"]),
        'static_secret_render_interval = "1m"': 'static_secret_render_interval = "1s"',
    }
    config = stage.directory / "agent.hcl"
    config.write_text(snippet("nginx/agent.hcl", changes))
    daemon.wait_for("token_rotated")
    agent = start_agent(config)
    ends.callback(agent.stop)
    # the first reload finds no nginx; that is logged, and the agent goes on
    wait_until(lambda: "failed to execute command" in config.with_suffix(".log").read_text(), "the first reload")
    ends.callback(proxy.start().stop)

    never_refused(proxy, daemon)
    assert agent.running


def test_include_of_the_daemon(stage: Stage, proxy: Proxy, ends: ExitStack) -> None:
    """With an include and a hook of the daemon, requests through nginx are never refused over three rotations."""
    changes = {
        "/run/aca-proxy/authorization.conf": str(proxy.include),
        '["nginx", "-s", "reload"]': json.dumps([*proxy.command, "-s", "reload"]),
    }
    config = stage.config(["bookings"], Settings(files=False))
    config.write_text(config.read_text() + snippet("nginx/publish.toml", changes))
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    wait_until(proxy.include.exists, "the include")
    ends.callback(proxy.start().stop)

    never_refused(proxy, daemon)
    assert (proxy.include.stat().st_mode & 0o777) == 0o600
