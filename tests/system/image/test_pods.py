"""The chart's Deployment, two replicas, run by podman with a real OpenBao, the look-alike and tokens of 15 seconds.

An application reads and calls all the time. Whatever happens to the pods, it must never be refused. While Vault itself
is down nothing can be read or written there: a token that expires meanwhile is counted apart.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from joserfc import jwt
from joserfc.jwk import ECKey

from aca_tokend.core.secret import Secret
from aca_tokend.demo.reader import Reader, read_vault
from aca_tokend.demo.stage import Passwords, Stage, wait_until
from tests.blocks import blocks
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, secrets_of
from tests.readers.agents import bao_program
from tests.system.image.node import Node
from tests.system.image.podman import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.image.node import Pod
    from tests.system.image.podman import Podman

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("podman")]

ISSUER = "https://kubernetes.default.svc.cluster.local"
SUBJECT = "system:serviceaccount:aca-tokend:aca-tokend"
CATCHING_UP_SECONDS = 10.0  # after Vault is back: how late a token may be published that expired while it was down


@dataclass
class Application(Reader):
    """A reader that remembers when each token that was refused had expired."""

    refusals: list[float] = field(default_factory=list)

    def _call(self, authorization: str) -> int:
        status = super()._call(authorization)
        if status == 401:
            self.refusals.append(dt.datetime.fromisoformat(str(self.document["expires_at"])).timestamp())
        return status

    def wait_for_new_tokens(self, count: int) -> None:
        """Waits until it has read so many further tokens, and calls with the last one were accepted."""
        tokens = self.tokens + count
        wait_until(lambda: self.tokens >= tokens, f"{count} further tokens for {self.name}")
        accepted = self.accepted
        wait_until(lambda: self.accepted > accepted, f"an accepted call of {self.name}")


class Scene:
    """The servers, the pods and the application."""

    def __init__(self, podman: Podman, stage: Stage) -> None:
        self.stage = stage
        self.key = ECKey.generate_key("P-256")
        self.values = tutorial()
        self.values["image"]["repository"] = "localhost/aca-tokend"
        config = self.values["config"]
        config["acaengine"]["main"]["url"] = stage.lookalike.url
        config["vault"]["main"]["address"] = stage.bao.address
        config["vault"]["main"]["auth"]["method"] = "jwt"  # the same token; there is no API server to ask about it
        self.tokens: list[dict[str, Any]] = config["tokens"]
        client_secret = stage.passwords.client_secret.reveal()
        stage.lookalike.levers(
            clients={self.tokens[0]["client_id"]: {"secret": client_secret, "scopes": ["public"]}},
        )
        stage.add_accounts([self.tokens[0]["username"]])
        self.secrets = {"bookings": {"password": stage.passwords.password.reveal(), "client-secret": client_secret}}
        self.node = Node(podman, stage.directory, self.secrets, self.token_for)
        self.vault_was_down: list[tuple[float, float]] = []
        self._tell_vault()

    def add_token(self, name: str) -> None:
        """One more token in the values, like the first."""
        account = f"svc-{name}"
        self.stage.add_accounts([account])
        place = {"to": "vault", "mount": "secret", "path": f"aca/{name}"}
        self.tokens.append(self.tokens[0] | {"name": name, "username": account, "publish": [place]})

    def token_for(self, audience: str) -> str:
        """A token of the pods' service account, as the cluster projects one."""
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": SUBJECT, "aud": [audience], "iat": now, "exp": now + 3600}
        return str(jwt.encode({"alg": "ES256"}, claims, self.key))

    def change_password(self, password: str) -> None:
        """Another password for all accounts, at ACAEngine and in the Secret."""
        self.secrets["bookings"] |= {"password": password}
        self.stage.lookalike.levers(accounts={token["username"]: {"password": password} for token in self.tokens})

    def application(self, account: str = "bookings") -> Application:
        """An application that begins to read."""
        stage = self.stage
        read = read_vault(stage.bao.address, stage.bao.root_token, "secret", f"aca/{account}")
        application = Application(account, read, stage.lookalike.port)
        stage._reading(application)
        wait_until(lambda: application.accepted > 0, f"a token for {account}")
        return application

    @contextmanager
    def vault_down(self) -> Iterator[None]:
        """Vault is down for a while, and comes back with what it held."""
        began = time.time()
        self.stage.bao.stop()
        try:
            yield
        finally:
            self.stage.bao.restart()
            self.vault_was_down.append((began, time.time() + CATCHING_UP_SECONDS))

    def refused_by_us(self, application: Application) -> list[float]:
        """The refusals that no outage of Vault explains."""
        return [at for at in application.refusals if not any(a <= at <= b for a, b in self.vault_was_down)]

    def _tell_vault(self) -> None:
        """Makes policy and role by the project's own script."""
        keys = self.stage.directory / "cluster.pem"
        keys.write_bytes(self.key.as_pem(private=False))
        done = subprocess.run(
            ["/bin/sh", str(ROOT / "deploy" / "vault" / "setup.sh"), "jwt"],
            cwd=self.stage.directory,
            env={
                "PATH": f"{Path(bao_program()).parent}:{os.environ['PATH']}",
                "HOME": str(self.stage.directory),
                "BAO_ADDR": self.stage.bao.address,
                "BAO_TOKEN": self.stage.bao.root_token.reveal(),
                "JWT_KEYS_FILE": str(keys),
                "JWT_ISSUER": ISSUER,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def tutorial() -> dict[str, Any]:
    """The values of docs/kubernetes.md."""
    (block,) = [block for block in blocks(ROOT / "docs" / "kubernetes.md") if block.language == "yaml"]
    return dict(yaml.safe_load(block.content))


@pytest.fixture
def scene(podman: Podman, tmp_path: Path) -> Iterator[Scene]:
    """Two pods at work. In the end nothing of them is left."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=15.0, raft=True, passwords=passwords) as stage:
        tmp_path.chmod(0o755)
        scene = Scene(podman, stage)
        try:
            scene.node.install(scene.values)
            yield scene
        finally:
            for pod in scene.node.pods:
                print(f"\n{pod.name}:\n{pod.text[-8000:]}")  # shown if the test fails
            podman.end()


def assert_no_secret_shows(scene: Scene, pod: Pod) -> None:
    """No secret is in the rendered objects, in what podman knows of a pod, or in its log."""
    seen = {"the manifests": json.dumps(scene.node.objects), "inspect": json.dumps(pod.state), "the log": pod.text}
    for where, text in seen.items():
        for secret in secrets_of(scene.stage):
            assert secret not in text, f"a secret is in {where}"


def test_tutorial(scene: Scene) -> None:
    """With the values of kubernetes.md a token is published and rotated; `status`, the doctor and Vault tell of it."""
    application = scene.application()
    first, second = scene.node.pods
    for pod in scene.node.pods:
        assert pod.events("token_rotated") or pod.events("token_adopted")
    status = first.run("aca-tokend", "status", "--url", first.address)
    assert status.returncode == 0, status.stdout
    assert "bookings" in status.stdout
    doctor = second.run("aca-tokend", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert doctor.stdout.splitlines()[-1].startswith("well: 0 failed"), doctor.stdout
    application.wait_for_new_tokens(1)
    assert scene.refused_by_us(application) == []
    for pod in scene.node.pods:
        assert pod.healthy
        assert_no_secret_shows(scene, pod)


def test_changed_objects(scene: Scene) -> None:
    """A changed ConfigMap and a changed Secret are taken up by both pods without a restart."""
    node, application = scene.node, scene.application()
    containers = [pod.state["Id"] for pod in node.pods]
    scene.add_token("rooms")
    assert not node.apply(scene.values), "the pods would be replaced"
    node.sync()
    for pod in node.pods:
        pod.wait_for("config_reloaded")
    rooms = scene.application("rooms")
    for reader in (application, rooms):  # after both the next attempt is some seconds away
        reader.wait_for_new_tokens(1)
    scene.change_password("canary-new-password-5e1d")
    node.sync()
    application.wait_for_new_tokens(1)
    rooms.wait_for_new_tokens(1)
    assert [(pod.state["Id"], pod.state["RestartCount"]) for pod in node.pods] == [(name, 0) for name in containers]
    assert scene.refused_by_us(application) == scene.refused_by_us(rooms) == []
    for pod in node.pods:
        assert pod.healthy
        assert not pod.events("token_suspended")
        assert_no_secret_shows(scene, pod)


def test_rolling_update_and_drain(scene: Scene) -> None:
    """All pods are replaced by a rolling update and then by a drain: no reader is refused, and each pod ends well."""
    node, application = scene.node, scene.application()
    scene.values["podAnnotations"] = {"example.com/update": "1"}
    assert node.apply(scene.values), "the pods would not be replaced"
    for pod in tuple(node.pods):
        node.replace(pod)
    application.wait_for_new_tokens(1)
    for pod in tuple(node.pods):
        node.evict(pod)
    application.wait_for_new_tokens(2)
    assert [pod.name for pod in node.pods] == ["aca-tokend-5", "aca-tokend-6"]
    assert scene.refused_by_us(application) == []


def test_a_killed_pod_and_a_vault_restart(scene: Scene) -> None:
    """A pod that is killed is started again, Vault is away when a rotation is due: no reader is refused for that."""
    node, application = scene.node, scene.application()
    killed = node.pods[0]
    application.wait_for_new_tokens(1)
    killed.kill()
    wait_until(lambda: killed.ready, "readiness of the pod that was killed")
    application.wait_for_new_tokens(1)
    assert scene.refused_by_us(application) == []
    failed = {pod: len(pod.events("rotation_failed")) for pod in node.pods}
    with scene.vault_down():
        wait_until(
            lambda: any(len(pod.events("rotation_failed")) > count for pod, count in failed.items()),
            "a rotation that failed because of Vault",
        )
        assert all(pod.healthy for pod in node.pods)
    application.wait_for_new_tokens(2)
    assert scene.refused_by_us(application) == []
    assert [pod.state["RestartCount"] for pod in node.pods] == [1, 0]
    for pod in node.pods:
        assert_no_secret_shows(scene, pod)
