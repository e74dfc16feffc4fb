"""A real Prometheus, a real Alertmanager and a webhook that takes what they tell, on free ports of 127.0.0.1.

Time is made short by one rule, `hurried`: a minute of the shipped rules lasts a second here. With a scrape and an
evaluation each second it is as if Prometheus did both once a minute.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import urllib.parse
import urllib.request
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

from aca_tokend.demo.child import Child, on_a_free_port
from aca_tokend.demo.stage import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.demo.stage import DaemonProcess

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "aca-tokend.rules.yaml"
HURRY = 60
ANSWER_SECONDS = 30.0
JOB = "aca-tokend"

_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"(\d+)(ms|[smhdw])")
# Where rules have durations: `for: 10m`, `keep_firing_for: 5m`, `interval: 1m`, `[5m]`, `[1h:1m]`, `offset 5m`.
_PLACE = re.compile(r"^\s*(?:- )?(?:for|keep_firing_for|interval): .*$|\[[\w:]+\]|\boffset \w+", re.MULTILINE)

PROMETHEUS = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
  scrape_protocols: [{protocol}]
rule_files: [rules.yaml]
alerting:
  alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{alertmanager}"]}}]}}]
scrape_configs:
  - job_name: {job}
    file_sd_configs: [{{files: [targets.json], refresh_interval: 1s}}]
"""
ALERTMANAGER = """
route: {{receiver: test, group_by: ["..."], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}
receivers: [{{name: test, webhook_configs: [{{url: "http://127.0.0.1:{webhook}/", send_resolved: true}}]}}]
"""


def hurried(rules: str) -> str:
    """The rules with every duration in them divided by `HURRY`. A number that is no duration stays as it is."""
    return _PLACE.sub(lambda place: _DURATION.sub(_divided, place[0]), rules)


def _divided(duration: re.Match[str]) -> str:
    return f"{int(duration[1]) * _MILLISECONDS[duration[2]] // HURRY}ms"


class Alert(NamedTuple):
    """One alert as the webhook was told of it."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    firing: bool


class Webhook:
    """Takes what Alertmanager tells, and keeps it in the order in which it came."""

    def __init__(self) -> None:
        self._told: list[Alert] = []
        self._telling = threading.Lock()
        told, telling = self._told, self._telling

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with telling:
                    told.extend(_alert(alert) for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook")
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def told(self) -> list[Alert]:
        """All that came so far."""
        with self._telling:
            return list(self._told)

    def firing(self) -> list[Alert]:
        """The alerts that came and have not been resolved since, each as it was told of last."""
        last = {tuple(sorted(alert.labels.items())): alert for alert in self.told()}
        return [alert for alert in last.values() if alert.firing]


def _alert(told: Mapping[str, Any]) -> Alert:
    return Alert(told["labels"]["alertname"], told["labels"], told["annotations"], told["status"] == "firing")


class Monitoring:
    """Prometheus and Alertmanager with the given rules, and the webhook at the end of the chain.

    `protocol` is the one format that Prometheus asks for.
    """

    def __init__(self, directory: Path, rules: str, protocol: str = "OpenMetricsText1.0.0") -> None:
        self._directory = directory
        self._protocol = protocol
        self._targets: dict[str, str] = {}
        directory.mkdir()
        (directory / "rules.yaml").write_text(rules)
        with ExitStack() as stack:
            self.webhook = stack.enter_context(Webhook())
            alertmanager = on_a_free_port(self._alertmanager, None)
            stack.callback(alertmanager[0].stop)
            prometheus = on_a_free_port(lambda port: self._prometheus(port, alertmanager[1]), None)
            stack.callback(prometheus[0].stop)
            self.port = prometheus[1]
            # what fires before it knows of Alertmanager is dropped, and told of only a minute later
            wait_until(
                lambda: bool(self._api("alertmanagers")["activeAlertmanagers"]), "Prometheus finding Alertmanager"
            )
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def watch(self, **daemons: DaemonProcess) -> None:
        """Has Prometheus scrape these daemons too, each as the instance of the given name, whatever its port."""
        self._targets |= {instance: f"127.0.0.1:{daemon.admin_port}" for instance, daemon in daemons.items()}
        groups = [{"targets": [target], "labels": {"instance": instance}} for instance, target in self._targets.items()]
        fresh = self._directory / "targets.new"
        fresh.write_text(json.dumps(groups))
        fresh.rename(self._directory / "targets.json")

    def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """What an expression gives now: labels and value of each series."""
        found = self._api("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def rules(self) -> list[Mapping[str, Any]]:
        """Every rule with its health and its last error."""
        return [rule for group in self._api("rules")["groups"] for rule in group["rules"]]

    def kinds(self, instance: str) -> Mapping[str, str]:
        """The kind of each metric, such as counter, by the name that the page of an instance has for it."""
        found = self._api("targets/metadata", match_target=f'{{instance="{instance}"}}')
        return {each["metric"]: each["type"] for each in found}

    def _api(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 -- JSON
        query = urllib.parse.urlencode(parameters)
        return json.loads(_get(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"))["data"]

    def _alertmanager(self, port: int) -> tuple[Child, int]:
        config = self._directory / "alertmanager.yaml"
        config.write_text(ALERTMANAGER.format(webhook=self.webhook.port))
        return self._server(
            "prometheus-alertmanager",
            port,
            f"--config.file={config}",
            f"--storage.path={self._directory / 'alertmanager'}",
            "--cluster.listen-address=",
        )

    def _prometheus(self, port: int, alertmanager: int) -> tuple[Child, int]:
        config = self._directory / "prometheus.yaml"
        config.write_text(PROMETHEUS.format(alertmanager=alertmanager, job=JOB, protocol=self._protocol))
        return self._server(
            "prometheus", port, f"--config.file={config}", f"--storage.tsdb.path={self._directory / 'prometheus'}"
        )

    def _server(self, name: str, port: int, *arguments: str) -> tuple[Child, int]:
        """Starts one of the two and waits until it is ready."""
        command = [program(name), f"--web.listen-address=127.0.0.1:{port}", *arguments]
        child = Child(command, log=self._directory / f"{name}.log", tied=True)

        def ready() -> bool:
            if not child.running:
                child.give_up(f"{name} ended")
            try:
                _get(f"http://127.0.0.1:{port}/-/ready")
            except OSError:
                return False
            return True

        try:
            wait_until(ready, f"{name} on port {port}")
        except BaseException:
            child.stop()
            raise
        return child, port


def _get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=ANSWER_SECONDS) as response:
        return str(response.read().decode())


def program(name: str) -> str:
    """Where one of the programs of Debian's prometheus and prometheus-alertmanager is."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"no {name}: install the Debian package of this name")
    return found
