"""What stands in for a node of a cluster: podman runs the pods of a rendered Deployment, this does what is around them.

It differs from a cluster in this:

- podman makes one pod of a Deployment, so each pod is a Deployment with a name of its own;
- ConfigMaps, Secrets and service account tokens are directories of this machine, laid out and replaced as the kubelet
  does it (`..data`), for podman copies a ConfigMap once and knows no projected tokens;
- probes are asked from here, as the kubelet asks them: podman would run curl in the container, which has none;
- pods share the network of this machine, so each listens on a port that is free, and no NetworkPolicy holds.

All else in the Deployment is podman's to do: user, groups, root file system, capabilities, limits, grace, restarts.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import yaml

from aca_tokend.demo.stage import wait_until
from tests.system.image.podman import ROOT, USER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.system.image.podman import Podman

HELM = ROOT / ".venv" / "helm" / "4" / "helm"
LISTEN = "0.0.0.0:9464"  # the chart's


def rendered(values: Mapping[str, Any], directory: Path) -> list[dict[str, Any]]:
    """The objects that the chart makes of these values, for the release `aca-tokend`."""
    file = directory / "values.yaml"
    file.write_text(yaml.safe_dump(dict(values)))
    command = [str(HELM), "template", "aca-tokend", str(ROOT / "charts" / "aca-tokend"), "--namespace=aca-tokend"]
    done = subprocess.run([*command, f"--values={file}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def of_kind(objects: list[dict[str, Any]], kind: str, name: str = "aca-tokend") -> dict[str, Any]:
    """The one object of a kind with a name."""
    (found,) = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


class Volume:
    """A directory as the kubelet keeps it for a pod: each key is a link through `..data`, which is swapped whole."""

    def __init__(self, path: Path, mode: int) -> None:
        self.path = path
        self._mode = mode
        self._versions = itertools.count()
        self._content: Mapping[str, str] = {}
        path.mkdir(parents=True)
        path.chmod(0o755)

    def put(self, content: Mapping[str, str]) -> None:
        """Replaces all keys at once, where one of them is to change."""
        if content == self._content:
            return
        self._content = dict(content)
        version = self.path / f"..version-{next(self._versions)}"
        version.mkdir(mode=0o755)
        for key, value in content.items():
            (version / key).write_text(value)
            (version / key).chmod(self._mode)
            os.chown(version / key, 0, USER)  # fsGroup
        data, fresh = self.path / "..data", self.path / "..data_tmp"
        old = data.readlink() if data.is_symlink() else None
        fresh.symlink_to(version.name)
        fresh.rename(data)
        for key in content:
            if not (self.path / key).is_symlink():
                (self.path / key).symlink_to(f"..data/{key}")
        if old is not None:
            for file in (self.path / old).iterdir():
                file.unlink()
            (self.path / old).rmdir()


class Pod:
    """A pod of the Deployment."""

    def __init__(self, node: Node, number: int) -> None:
        self.name = f"aca-tokend-{number}"
        self._node = node
        self._podman = node.podman
        self._volumes: dict[str, tuple[Volume, Callable[[], Mapping[str, str]]]] = {}
        self._container = f"{self.name}-pod-aca-tokend"
        node.podman("kube", "play", "--network=host", "-", stdin=yaml.safe_dump(self._manifest()))

    def sync(self) -> None:
        """Brings changed objects to its volumes, as the kubelet does within a minute or two."""
        for volume, content in self._volumes.values():
            volume.put(content())

    @property
    def ready(self) -> bool:
        """Whether the readiness probe succeeds."""
        return self._probe("readinessProbe")

    @property
    def healthy(self) -> bool:
        """Whether the liveness probe succeeds."""
        return self._probe("livenessProbe")

    @property
    def address(self) -> str:
        """Where its admin listener answers; "" before it does."""
        started = self.events("daemon_started")
        return f"http://{started[-1]['admin']}" if started else ""

    @property
    def text(self) -> str:
        """All that it wrote."""
        done = self._podman.run("logs", self._container)
        return done.stdout + done.stderr

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log of one event."""
        lines = [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, event: str) -> None:
        """Waits until an event was logged."""
        wait_until(lambda: bool(self.events(event)), f"{event} in {self.name}")

    @property
    def state(self) -> dict[str, Any]:
        """What podman tells of its container."""
        return self._podman.inspect(self._container)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in its container."""
        return self._podman.run("exec", self._container, *command, check=False)

    def stop(self) -> None:
        """Ends it as a deletion does: SIGTERM, and time until the grace is over. It must end well by itself."""
        self._podman("stop", self._container)
        state = self.state["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False), self.text[-4000:]
        self._node.pods.remove(self)

    def kill(self) -> None:
        """Ends its process as the machine does when memory is short, and waits until it was started again."""
        before = self.state
        os.kill(before["State"]["Pid"], signal.SIGKILL)
        wait_until(lambda: self.state["RestartCount"] > before["RestartCount"], "a restart of the container")

    def _probe(self, name: str) -> bool:
        path = self._node.container[name]["httpGet"]["path"]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        if not self.address:
            return False
        try:
            with opener.open(f"{self.address}{path}", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _manifest(self) -> dict[str, Any]:
        deployment = copy.deepcopy(self._node.deployment)
        deployment["metadata"]["name"] = self.name
        deployment["spec"]["replicas"] = 1
        spec = deployment["spec"]["template"]["spec"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            del spec["containers"][0][name]
        for volume in spec["volumes"]:
            name = volume.pop("name")
            made = Volume(self._node.directory / self.name / name, _mode(volume))
            content = self._content(volume)
            made.put(content())
            self._volumes[name] = made, content
            volume.clear()
            volume |= {"name": name, "hostPath": {"path": str(made.path), "type": "Directory"}}
        return deployment

    def _content(self, volume: Mapping[str, Any]) -> Callable[[], Mapping[str, str]]:
        match volume:
            case {"configMap": {"name": name}}:
                return lambda: self._config(name)
            case {"secret": {"secretName": name}}:
                return lambda: self._node.secrets[name]
            case {"projected": {"sources": sources}}:
                tokens = [source["serviceAccountToken"] for source in sources]
                return lambda: {token["path"]: self._node.token_for(token["audience"]) for token in tokens}
        raise AssertionError(volume)

    def _config(self, name: str) -> Mapping[str, str]:
        data = of_kind(self._node.objects, "ConfigMap", name)["data"]
        assert LISTEN in data["config.toml"]
        return {"config.toml": data["config.toml"].replace(LISTEN, "127.0.0.1:0")}


def _mode(volume: Mapping[str, Any]) -> int:
    (source,) = volume.values()
    return int(source.get("defaultMode", 0o644))


class Node:
    """The pods of a release, the objects that it consists of, and the Secrets that somebody else made."""

    def __init__(
        self, podman: Podman, directory: Path, secrets: dict[str, dict[str, str]], token_for: Callable[[str], str]
    ) -> None:
        self.podman = podman
        self.directory = directory
        self.secrets = secrets
        self.token_for = token_for
        self.objects: list[dict[str, Any]] = []
        self.pods: list[Pod] = []
        self._numbers = itertools.count(1)

    @property
    def deployment(self) -> dict[str, Any]:
        """The Deployment as it was rendered."""
        return of_kind(self.objects, "Deployment")

    @property
    def container(self) -> dict[str, Any]:
        """Its one container."""
        (container,) = self.deployment["spec"]["template"]["spec"]["containers"]
        return dict(container)

    def apply(self, values: Mapping[str, Any]) -> bool:
        """Renders the chart anew; whether a cluster would replace the pods, as their template is another."""
        before = self.objects
        self.objects = rendered(values, self.directory)
        return not before or of_kind(before, "Deployment")["spec"] != self.deployment["spec"]

    def sync(self) -> None:
        """Brings changed objects to all pods."""
        for pod in self.pods:
            pod.sync()

    def install(self, values: Mapping[str, Any]) -> None:
        """Renders the chart and starts as many pods as it says."""
        self.apply(values)
        for _ in range(self.deployment["spec"]["replicas"]):
            self.start()
        for pod in self.pods:
            wait_until(lambda pod=pod: pod.ready, f"readiness of {pod.name}")  # type: ignore[misc]

    def start(self) -> Pod:
        """Starts one more pod."""
        pod = Pod(self, next(self._numbers))
        self.pods.append(pod)
        return pod

    def replace(self, old: Pod) -> Pod:
        """Replaces a pod as a rolling update does (maxSurge 1, maxUnavailable 0): it goes once another is ready."""
        new = self.start()
        wait_until(lambda: new.ready, f"readiness of {new.name}")
        old.stop()
        return new

    def evict(self, old: Pod) -> Pod:
        """Replaces a pod as the drain of its node does: the old one goes, then another is started."""
        old.stop()
        new = self.start()
        wait_until(lambda: new.ready, f"readiness of {new.name}")
        return new
