"""The Kubernetes manifests of docs/readers: valid to the last key, and what they start runs.

There is no cluster here. Core kinds are held to the schemas of Kubernetes by kubernetes-validate; the kinds of the two
operators to models of our own, which know the fields that the pages use and refuse all others. Their sources:

- external-secrets/external-secrets: apis/externalsecrets/v1/{externalsecret,secretstore,secretstore_vault}_types.go
  and apis/meta/v1/types.go
- hashicorp/vault-secrets-operator: config/crd/bases/secrets.hashicorp.com_{vaultconnections,vaultauths,
  vaultstaticsecrets}.yaml
"""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Literal

import kubernetes_validate
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from typer.testing import CliRunner

from aca_tokend.cli import app
from aca_tokend.core.token import FIELDS
from aca_tokend.demo.reader import read_file
from aca_tokend.demo.stage import CLIENT_ID, wait_until
from tests.readers.agents import READERS, snippet, start_agent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aca_tokend.demo.stage import Stage

KUBERNETES = ("1.29", "1.33", "1.37")  # the first in which a sidecar is on by default, and later ones
SIDECARS = ("kubernetes-sidecar/aca-tokend.yaml", "kubernetes-sidecar/agent.yaml")


def objects(name: str) -> list[dict[str, Any]]:
    """The objects of a manifest."""
    return list(yaml.safe_load_all((READERS / name).read_text(encoding="utf-8")))


def only(name: str, kind: str) -> dict[str, Any]:
    """The one object of a kind in a manifest."""
    (found,) = [item for item in objects(name) if item["kind"] == kind]
    return found


class Strict(BaseModel):
    """An object of which every key is known."""

    model_config = ConfigDict(extra="forbid", strict=True)


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")]


class Metadata(Strict):
    """Of any object."""

    name: Name


class Named(Strict):
    """A reference by name."""

    name: Name


class StoreRef(Strict):
    """SecretStoreRef."""

    name: Name
    kind: Literal["SecretStore", "ClusterSecretStore"]


class StoreKubernetesAuth(Strict):
    """VaultKubernetesAuth."""

    mountPath: str  # noqa: N815 -- theirs
    role: str
    serviceAccountRef: Named  # noqa: N815 -- theirs


class StoreAuth(Strict):
    """VaultAuth of External Secrets."""

    kubernetes: StoreKubernetesAuth


class StoreVault(Strict):
    """VaultProvider."""

    server: str
    path: str
    version: Literal["v1", "v2"]
    auth: StoreAuth


class StoreProvider(Strict):
    """SecretStoreProvider."""

    vault: StoreVault


class StoreSpec(Strict):
    """SecretStoreSpec."""

    provider: StoreProvider


class SecretStore(Strict):
    """SecretStore."""

    apiVersion: Literal["external-secrets.io/v1"]  # noqa: N815 -- theirs
    kind: Literal["SecretStore"]
    metadata: Metadata
    spec: StoreSpec


class TargetTemplate(Strict):
    """ExternalSecretTemplate."""

    data: dict[Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$")], str]


class Target(Strict):
    """ExternalSecretTarget."""

    name: Name
    creationPolicy: Literal["Owner", "Orphan", "Merge", "None"]  # noqa: N815 -- theirs
    deletionPolicy: Literal["Delete", "Merge", "Retain"]  # noqa: N815 -- theirs
    template: TargetTemplate


class Extract(Strict):
    """ExternalSecretDataRemoteRef, of which only the key is required."""

    key: str


class DataFrom(Strict):
    """ExternalSecretDataFromRemoteRef."""

    extract: Extract


class ExternalSecretSpec(Strict):
    """ExternalSecretSpec."""

    secretStoreRef: StoreRef  # noqa: N815 -- theirs
    refreshPolicy: Literal["CreatedOnce", "Periodic", "OnChange"]  # noqa: N815 -- theirs
    # a duration as Go writes it
    refreshInterval: Annotated[str, StringConstraints(pattern=r"^(\d+(\.\d+)?(ms|s|m|h))+$")]  # noqa: N815 -- theirs
    target: Target
    dataFrom: Annotated[list[DataFrom], Field(min_length=1)]  # noqa: N815 -- theirs


class ExternalSecret(Strict):
    """ExternalSecret."""

    apiVersion: Literal["external-secrets.io/v1"]  # noqa: N815 -- theirs
    kind: Literal["ExternalSecret"]
    metadata: Metadata
    spec: ExternalSecretSpec


class ConnectionSpec(Strict):
    """VaultConnectionSpec."""

    address: str


class VaultConnection(Strict):
    """VaultConnection."""

    apiVersion: Literal["secrets.hashicorp.com/v1beta1"]  # noqa: N815 -- theirs
    kind: Literal["VaultConnection"]
    metadata: Metadata
    spec: ConnectionSpec


class OperatorKubernetesAuth(Strict):
    """VaultAuthConfigKubernetes."""

    role: str
    serviceAccount: str  # noqa: N815 -- theirs


class AuthSpec(Strict):
    """VaultAuthSpec."""

    vaultConnectionRef: str  # noqa: N815 -- theirs
    method: Literal["kubernetes", "jwt", "appRole", "aws", "gcp"]
    mount: str
    kubernetes: OperatorKubernetesAuth


class VaultAuth(Strict):
    """VaultAuth of Vault Secrets Operator."""

    apiVersion: Literal["secrets.hashicorp.com/v1beta1"]  # noqa: N815 -- theirs
    kind: Literal["VaultAuth"]
    metadata: Metadata
    spec: AuthSpec


class Transformation(Strict):
    """Transformation."""

    excludeRaw: bool  # noqa: N815 -- theirs
    includes: list[str]


class Destination(Strict):
    """Destination."""

    name: Name
    create: bool
    transformation: Transformation


class StaticSecretSpec(Strict):
    """VaultStaticSecretSpec."""

    vaultAuthRef: str  # noqa: N815 -- theirs
    mount: str
    type: Literal["kv-v1", "kv-v2"]
    path: str
    refreshAfter: Annotated[str, StringConstraints(pattern=r"^([0-9]+(\.[0-9]+)?(s|m|h))$")]  # noqa: N815 -- theirs
    hmacSecretData: bool  # noqa: N815 -- theirs
    destination: Destination


class VaultStaticSecret(Strict):
    """VaultStaticSecret."""

    apiVersion: Literal["secrets.hashicorp.com/v1beta1"]  # noqa: N815 -- theirs
    kind: Literal["VaultStaticSecret"]
    metadata: Metadata
    spec: StaticSecretSpec


External = TypeAdapter[SecretStore | ExternalSecret](
    Annotated[SecretStore | ExternalSecret, Field(discriminator="kind")]
)
Operator = TypeAdapter[VaultConnection | VaultAuth | VaultStaticSecret](
    Annotated[VaultConnection | VaultAuth | VaultStaticSecret, Field(discriminator="kind")]
)


def test_external_secrets() -> None:
    """Every field is one of External Secrets, the references meet, and what is mapped is in a document."""
    store, secret = [External.validate_python(item) for item in objects("external-secrets/external-secret.yaml")]

    assert isinstance(store, SecretStore)
    assert isinstance(secret, ExternalSecret)
    assert secret.spec.secretStoreRef.name == store.metadata.name
    values = secret.spec.target.template.data
    assert values == {name: f"{{{{ .{name} }}}}" for name in values}
    assert set(values) <= set(FIELDS)


def test_vault_secrets_operator() -> None:
    """Every field is one of Vault Secrets Operator, the references meet, and what is mapped is in a document."""
    found = [Operator.validate_python(item) for item in objects("vault-secrets-operator/vault-static-secret.yaml")]

    connection, auth, secret = found
    assert isinstance(connection, VaultConnection)
    assert isinstance(auth, VaultAuth)
    assert isinstance(secret, VaultStaticSecret)
    assert auth.spec.vaultConnectionRef == connection.metadata.name
    assert secret.spec.vaultAuthRef == auth.metadata.name
    (pattern,) = secret.spec.destination.transformation.includes
    assert set(pattern.strip("^$()").split("|")) <= set(FIELDS)


def test_models_are_strict() -> None:
    """A mistyped key of an operator's kind is noticed."""
    item = objects("external-secrets/external-secret.yaml")[1]
    item["spec"]["refreshIntervall"] = item["spec"].pop("refreshInterval")
    with pytest.raises(ValidationError, match="refreshIntervall"):
        External.validate_python(item)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", SIDECARS)
def test_core_kinds(name: str, version: str) -> None:
    """The sidecars' manifests have no key that Kubernetes does not know."""
    for item in objects(name):
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("name", SIDECARS)
def test_restricted(name: str) -> None:
    """The pods meet the restricted Pod Security Standard, with a read-only root and the token in memory alone."""
    pod = only(name, "Deployment")["spec"]["template"]["spec"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["initContainers"], *pod["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context.get("runAsUser", pod["securityContext"]["runAsUser"]) > 0
    (token,) = [volume for volume in pod["volumes"] if volume["name"] == "token"]
    assert token["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize("name", SIDECARS)
def test_volumes(name: str) -> None:
    """Every mount has its volume, nothing is mounted by subPath, and the application reads only."""
    pod = only(name, "Deployment")["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}

    mounts = [mount for part in [*pod["initContainers"], *pod["containers"]] for mount in part["volumeMounts"]]
    assert {mount["name"] for mount in mounts} == volumes
    assert not any("subPath" in mount for mount in mounts)
    (application,) = pod["containers"]
    (mount,) = application["volumeMounts"]
    assert mount["readOnly"] is True
    assert application["env"] == [{"name": "TOKEN_FILE", "value": f"{mount['mountPath']}/bookings.json"}]


def changed(text: str, changes: Mapping[str, str]) -> str:
    """A file of a ConfigMap with the names of the page exchanged for those of a test; each must be in it."""
    for old, new in changes.items():
        assert old in text, f"there is no {old}"
        text = text.replace(old, new)
    return text


def probed(sidecar: Mapping[str, Any], directory: Path) -> bool:
    """Whether the startup probe of a sidecar succeeds, with this directory as the shared volume."""
    command = [word.replace("/run/aca", str(directory)) for word in sidecar["startupProbe"]["exec"]["command"]]
    return subprocess.run(command, check=False).returncode == 0


def test_daemon_as_sidecar(stage: Stage) -> None:
    """The configuration in the manifest is valid as it stands, and publishes tokens that are never refused."""
    data = only("kubernetes-sidecar/aca-tokend.yaml", "ConfigMap")["data"]["config.toml"]
    config = stage.directory / "config.toml"
    config.write_text(data)
    checked = CliRunner().invoke(app, ["check", "--config", str(config)])
    assert checked.exit_code == 0, checked.output

    stage.add_accounts(["svc-bookings"])
    token_file = stage.directory / "run" / "bookings.json"
    token_file.parent.mkdir()
    changes = {
        "0.0.0.0:9464": "127.0.0.1:0",
        "https://aca.example.com": stage.lookalike.url,
        "/run/secrets/aca/password": str(stage.directory / "svc-bookings.password"),
        "/run/secrets/aca/client-secret": str(stage.directory / "client-secret"),
        "authority-ID": "authority-1",
        "d1be3a40ba9afbc1bb3e1bb0a4d1aa58": CLIENT_ID,
        "/run/aca/bookings.json": str(token_file),
    }
    config.write_text(changed(data, changes) + '\n[rotation]\nmin_interval = "1s"\n')
    (sidecar,) = only("kubernetes-sidecar/aca-tokend.yaml", "Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert sidecar["args"] == ["run", "--config", "/etc/aca-tokend/config.toml"]
    assert not probed(sidecar, token_file.parent)
    daemon = stage.daemon(config)
    wait_until(lambda: probed(sidecar, token_file.parent), "the startup probe")
    assert daemon.get(sidecar["livenessProbe"]["httpGet"]["path"])[0] == 200

    reader = stage.reader("application", read_file(token_file))
    wait_until(lambda: reader.tokens >= 3, "two rotations")
    assert reader.refused == 0, reader.last_refusal
    assert reader.unread == 0


def projected_token(stage: Stage) -> Path:
    """A token of a service account as Kubernetes projects it, and an OpenBao that takes it for the role."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    bao = stage.bao.client()
    bao.sys.enable_auth_method("jwt")
    bao.sys.create_or_update_policy("bookings-reader", snippet("agent/policy.hcl", {}))
    bao.auth.jwt.configure(jwt_validation_pubkeys=[public.decode()])
    subject = "system:serviceaccount:default:bookings"
    bao.auth.jwt.create_role(
        "bookings",
        role_type="jwt",
        user_claim="sub",
        bound_audiences=["openbao"],
        bound_subject=subject,
        allowed_redirect_uris=[],
        token_policies=["bookings-reader"],
    )
    now = int(time.time())
    claims = {"sub": subject, "aud": "openbao", "iat": now, "nbf": now, "exp": now + 600}
    file = stage.directory / "projected-token"
    file.write_text(jwt.encode({"alg": "ES256"}, claims, ECKey.import_key(key)))
    return file


def test_agent_as_sidecar(stage: Stage) -> None:
    """The agent of the manifest logs in with the projected token and renders tokens that are never refused."""
    daemon = stage.daemon(stage.config(["bookings"]))
    token_file = stage.directory / "run" / "bookings.json"
    changes = {
        "https://vault.example.com:8200": stage.bao.address,
        "/var/run/secrets/bao/token": str(projected_token(stage)),
        "/run/aca/bookings.json": str(token_file),
        'static_secret_render_interval = "1m"': 'static_secret_render_interval = "1s"',
    }
    config = stage.directory / "agent.hcl"
    data = only("kubernetes-sidecar/agent.yaml", "ConfigMap")["data"]["agent.hcl"]
    config.write_text(changed(data, changes))
    (sidecar,) = only("kubernetes-sidecar/agent.yaml", "Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert sidecar["command"] == ["bao", "agent", "-config=/etc/agent/agent.hcl"]
    daemon.wait_for("token_rotated")
    with ExitStack() as stack:
        agent = start_agent(config)
        stack.callback(agent.stop)
        wait_until(lambda: probed(sidecar, token_file.parent), "the startup probe")
        reader = stage.reader("application", read_file(token_file))
        wait_until(lambda: reader.tokens >= 3, "two rotations")
        assert reader.refused == 0, reader.last_refusal
        assert agent.running
