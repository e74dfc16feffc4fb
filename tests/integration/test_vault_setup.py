"""What deploy/vault makes of a real OpenBao: daemons log in by each method and publish, a reader reads, nothing leaks.

The Terraform text beside the script is evaluated by HashiCorp's own library and carried out on a second server by a few
lines of ours: there is no Terraform in any package index. What the two servers then say of themselves must be the same.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hvac
import pytest
import tfparse

from aca_tokend.config.files import load
from aca_tokend.core.secret import Secret
from aca_tokend.core.vault_policy import policies
from aca_tokend.demo.openbao import OpenBao, _binary
from aca_tokend.demo.stage import Passwords, Stage
from tests.blocks import blocks_for
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, assert_nothing_leaked
from tests.logins import REVIEWER_JWT, Logins, Reviewer
from tests.unit.scripted_server import Authority, ScriptedServer, response

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.xdist_group("vault-setup")

VAULT = Path(__file__).parents[2] / "deploy" / "vault"
METHODS = ("kubernetes", "jwt", "approle")
CLUSTER = "https://kubernetes.default.svc"
POD_FILES = {"/run/secrets/tokens/vault": "vault.jwt", "/run/secrets/aca-tokend/vault/": ""}


class Cluster(Reviewer):
    """The TokenReview API, and the keys of the cluster's issuer."""

    def __init__(self, bao: Logins) -> None:
        super().__init__(bao)
        self.url = ""

    def answer(self, request: bytes) -> bytes:
        """The answer to one request."""
        page: dict[str, Any]
        if request.startswith(b"GET /keys "):
            page = {"keys": [self._bao.key.as_dict(private=False)]}
        elif request.startswith(b"GET "):
            page = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        else:
            return super().answer(request)
        return response(200, json.dumps(page).encode(), ("Connection: close",))


class Setting:
    """A server that knows nothing of aca-tokend before `output` was written, and an administrator's terminal."""

    def __init__(self, bao: Logins, cluster: Cluster, directory: Path) -> None:
        self.bao = bao
        self.cluster = cluster
        self.directory = directory
        self.output = ""
        self.files = {
            "KUBERNETES_HOST": cluster.url,
            "KUBERNETES_CA_FILE": str(bao.files / "kubernetes-ca.pem"),
            "KUBERNETES_REVIEWER_FILE": str(bao.files / "reviewer.jwt"),
            "JWT_JWKS_URL": f"{cluster.url}/keys",
            "JWT_CA_FILE": str(bao.files / "kubernetes-ca.pem"),
            "JWT_ISSUER": CLUSTER,
            "SERVICE_ACCOUNT": "aca/aca-tokend",
        }
        # the program, which notes its arguments: every process of the machine can see them
        self.arguments = directory / "arguments.log"
        real = _binary()
        for name in ("bao", "vault"):
            (directory / name).mkdir()
            program = directory / name / name
            program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{self.arguments}"\nexec "{real}" "$@"\n')
            program.chmod(0o755)

    def run(self, *methods: str, program: str = "bao", **environment: str) -> subprocess.CompletedProcess[str]:
        """The script, as it is called."""
        prefix = program.upper()
        known = {
            "PATH": f"{self.directory / program}:/usr/bin:/bin",
            "HOME": str(self.directory),
            f"{prefix}_ADDR": self.bao.address,
            f"{prefix}_TOKEN": self.bao.root_token.reveal(),
        }
        return subprocess.run(
            ["/bin/sh", str(VAULT / "setup.sh"), *methods],
            cwd=self.directory,
            env=known | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def made(self, *methods: str, **environment: str) -> str:
        """The script, with the files of this setting, must succeed; what it wrote to both outputs."""
        result = self.run(*methods, **self.files | {"READERS": "bookings rooms"} | environment)
        assert result.returncode == 0, result.stderr
        return result.stderr + result.stdout


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """One server for all these tests, on which the script was run once."""
    directory = tmp_path_factory.mktemp("setup")
    with Logins.begin(tmp_path_factory.mktemp("logins")) as bao:
        bao.client().sys.delete_policy("aca-tokend")
        cluster = Cluster(bao)
        authority = Authority(bao.files, "kubernetes ca")
        with ScriptedServer(cluster.talk, authority.context("127.0.0.1")) as api:
            cluster.url = api.url
            setting = Setting(bao, cluster, directory)
            setting.output = setting.made(*METHODS)
            yield setting


def said_of(bao: OpenBao, mounts: Mapping[str, str]) -> dict[str, Any]:
    """All that a server says of the policies and of the log-ins at these mounts, without what differs by itself."""
    client = bao.client()
    names = [name for name in client.sys.list_acl_policies()["data"]["keys"] if name.startswith("aca-")]
    told: dict[str, Any] = {name: client.sys.read_acl_policy(name)["data"]["policy"].split() for name in names}
    for method, mount in mounts.items():
        told[f"{method} mount"] = client.read(f"sys/auth/{mount}")["data"]["type"]
        told[f"{method} roles"] = client.list(f"auth/{mount}/role")["data"]["keys"]
        told[f"{method} role"] = client.read(f"auth/{mount}/role/aca-tokend")["data"]
        if method != "approle":
            told[f"{method} config"] = client.read(f"auth/{mount}/config")["data"]
    return told


def tables(output: str) -> dict[str, dict[str, Any]]:
    """The configuration that was printed for each log-in, by its method."""
    parts = re.split(r"^# for the log-in by (\w+)\n", output, flags=re.MULTILINE)
    return {name: tomllib.loads(text)["vault"]["main"] for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def assert_silent(setting: Setting, *outputs: str) -> None:
    """Nothing secret was printed or was an argument."""
    secrets = [REVIEWER_JWT, setting.bao.root_token.reveal()]
    secrets += [path.read_text().strip() for path in setting.directory.rglob("secret-id")]
    assert len(secrets) > 2
    for text in (*outputs, setting.arguments.read_text()):
        assert not [secret for secret in secrets if secret in text]


def test_daemons_publish_and_readers_read(setting: Setting, tmp_path: Path) -> None:
    """With what the script printed a daemon logs in by each method, publishes and holds no more than it needs.

    A reader with its policy reads its token, and nothing else.
    """
    printed = tables(setting.output)
    assert list(printed) == list(METHODS)
    setting.bao.write("vault.jwt", setting.bao.service_account_token())
    for name in ("role-id", "secret-id"):
        path = setting.directory / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        shutil.copy(path, setting.bao.files / name)
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=600.0, passwords=passwords) as stage:
        for method, table in printed.items():
            config = stage.config([f"{method}-bookings"])
            text = json.dumps(table["auth"]).replace('"file": ', '"file" = ').replace('": ', '" = ')
            for shown, real in POD_FILES.items():
                text = text.replace(shown, f"{setting.bao.files}/{real}")
            lines = {"auth": f"auth = {text}", "address": f'address = "{table["address"]}"'}
            written = [lines.get(line.partition(" ")[0], line) for line in config.read_text().splitlines()]
            config.write_text("\n".join(written).replace(f"aca/{method}-bookings", f"aca/{method}/bookings"))

            daemon = stage.daemon(config, "--once", log=f"{method}.log")

            assert daemon.process.wait(120) == 0, daemon.text
            assert daemon.wait_for("vault_logged_in")["method"] == method
            assert len(daemon.events("token_rotated")) == 1
            assert_nothing_leaked(stage, daemon)
            assert_silent(setting, daemon.text)
            needed = policies(load(config))[0]
            assert allowed(setting.bao, "aca-tokend", needed), method
    assert setting.cluster.reviewed
    assert_silent(setting, setting.output)

    made = setting.made("approle", READERS="approle/bookings", KV_PREFIX="aca")
    reader = hvac.Client(url=setting.bao.address, token=token_of(setting.bao, "aca-reader-approle/bookings"))
    reader.adapter.session.trust_env = False
    read: Any = reader.secrets.kv.v2.read_secret_version
    held = read("aca/approle/bookings", mount_point="secret", raise_on_deleted_version=True)
    assert held["data"]["data"]["token_type"] == "Bearer"
    for other in ("aca/approle/bookings.attempts", "aca/jwt/bookings"):
        with pytest.raises(hvac.exceptions.Forbidden):
            read(other, mount_point="secret", raise_on_deleted_version=True)
    assert_silent(setting, made)
    setting.bao.client().sys.delete_policy("aca-reader-approle/bookings")


def token_of(bao: OpenBao, policy: str) -> str:
    """A token that has one policy beside the one that every token has."""
    return str(bao.client().auth.token.create(policies=[policy], ttl="1h")["auth"]["client_token"])


def allowed(bao: OpenBao, policy: str, needed: str) -> bool:
    """Whether a policy allows all that another one, as `aca-tokend policy` prints it, lists line by line."""
    lines = re.findall(r'^(?:# )?path "([^"]+)"\s*{ capabilities = \[([^\]]*)\] }', needed, re.MULTILINE)
    assert len(lines) >= 3
    client = bao.client()
    paths = [path for path, _ in lines]
    told = client.sys.get_capabilities(token=token_of(bao, policy), paths=paths)["data"]
    return all(set(re.findall(r"\w+", wanted)) <= set(told[path]) for path, wanted in lines)


def test_again(setting: Setting) -> None:
    """A second run changes nothing: one secret id, and every role, policy and configuration as it was."""
    mounts = {method: method for method in METHODS}
    before, secret_id = said_of(setting.bao, mounts), (setting.directory / "secret-id").read_bytes()
    accessors = setting.bao.client().list("auth/approle/role/aca-tokend/secret-id")["data"]["keys"]

    output = setting.made(*METHODS)

    assert said_of(setting.bao, mounts) == before
    assert (setting.directory / "secret-id").read_bytes() == secret_id
    assert setting.bao.client().list("auth/approle/role/aca-tokend/secret-id")["data"]["keys"] == accessors
    assert "the secret id in secret-id is good, and stays" in output
    assert_silent(setting, output)


def test_what_others_use_stays(setting: Setting) -> None:
    """The configuration of a mount that is there already is not touched, and a secret id that is dead is replaced."""
    client = setting.bao.client()
    client.secrets.kv.v2.create_or_update_secret("others", {"x": "y"}, mount_point="secret")
    before = client.read("auth/jwt/config")["data"]
    (setting.directory / "secret-id").write_text("canary-dead-secret-id\n")

    output = setting.made("approle", "jwt", "kubernetes", JWT_ISSUER="https://elsewhere.example.com")

    assert client.read("auth/jwt/config")["data"] == before
    assert "auth/jwt/config is there already, and stays as it is" in output
    assert "auth/kubernetes/config is there already, and stays as it is" in output
    assert "wrote a new secret id to secret-id" in output
    assert client.secrets.kv.v2.read_secret_version("others", raise_on_deleted_version=True)["data"]["data"]["x"] == "y"


def test_a_vault_inside(setting: Setting) -> None:
    """Without the address of a cluster the Vault is to use its own service account; one elsewhere says it has none."""
    result = setting.run("kubernetes", KUBERNETES_MOUNT="team/inside")

    assert "open /var/run/secrets/kubernetes.io/serviceaccount/ca.crt: no such file" in result.stderr
    call = "write auth/team/inside/config kubernetes_host=https://kubernetes.default.svc"
    assert call in setting.arguments.read_text().splitlines()
    assert result.returncode != 0
    assert result.stdout == ""


@pytest.mark.parametrize("source", ["JWT_DISCOVERY_URL", "JWT_JWKS_URL", "JWT_KEYS_FILE"])
def test_keys_of_the_issuer(setting: Setting, source: str) -> None:
    """By each way of telling whose tokens are good one is let in, and one for another audience is not."""
    bao, url = setting.bao, setting.cluster.url
    mount = f"team/{source.lower().replace('_', '-')}"
    given = {
        "JWT_DISCOVERY_URL": {"JWT_DISCOVERY_URL": url, "JWT_CA_FILE": setting.files["JWT_CA_FILE"]},
        "JWT_JWKS_URL": {key: setting.files[key] for key in ("JWT_JWKS_URL", "JWT_CA_FILE", "JWT_ISSUER")},
        "JWT_KEYS_FILE": {"JWT_KEYS_FILE": str(bao.files / "provider.pem"), "JWT_ISSUER": CLUSTER},
    }[source]
    result = setting.run("jwt", JWT_MOUNT=mount, SERVICE_ACCOUNT="aca/aca-tokend", **given)
    assert result.returncode == 0, result.stderr
    assert tables(result.stdout)["jwt"]["auth"]["mount"] == mount
    issuer = url if source == "JWT_DISCOVERY_URL" else CLUSTER
    claims = {"iss": issuer, "sub": "system:serviceaccount:aca:aca-tokend"}

    client = bao.client()
    entered = client.auth.jwt.jwt_login("aca-tokend", bao.signed(**claims), path=mount, use_token=False)
    assert sorted(entered["auth"]["policies"]) == ["aca-tokend", "default"]
    for wrong in ({"aud": "elsewhere"}, {"sub": "system:serviceaccount:aca:default"}, {"iss": "https://x.example.com"}):
        with pytest.raises(hvac.exceptions.VaultError):
            client.auth.jwt.jwt_login("aca-tokend", bao.signed(**claims | wrong), path=mount, use_token=False)


def test_vaults_own_program(setting: Setting) -> None:
    """Where only `vault` is there, it is called; a printed policy takes the place of the wide one."""
    policy = setting.directory / "policy.hcl"
    policy.write_text('path "secret/data/aca/rooms" { capabilities = ["read"] }\n')

    result = setting.run(
        "approle", program="vault", POLICY_FILE=str(policy), ROLE="narrow", APPROLE_MOUNT="team/approle"
    )

    assert result.returncode == 0, result.stderr
    assert setting.bao.client().sys.read_acl_policy("narrow")["data"]["policy"] == policy.read_text()
    assert tables(result.stdout)["approle"]["address"] == setting.bao.address
    assert_silent(setting, result.stderr + result.stdout)


REFUSED: dict[str, tuple[str, dict[str, str], str]] = {
    "no log-in": ("", {}, "name at least one log-in: kubernetes, jwt, approle"),
    "an unknown one": ("ldap", {}, "no log-in by ldap: name kubernetes, jwt or approle"),
    "no program": (
        "approle",
        {"PATH": "/usr/bin:/bin"},
        "neither bao nor vault is on PATH: install one, or set CLI to its path",
    ),
    "no namespace": ("approle", {"SERVICE_ACCOUNT": "aca"}, "SERVICE_ACCOUNT is aca: write it as namespace/name"),
    "no reviewer": (
        "kubernetes",
        {"KUBERNETES_HOST": "https://10.0.0.1"},
        "KUBERNETES_HOST needs KUBERNETES_CA_FILE and KUBERNETES_REVIEWER_FILE beside it",
    ),
    "no source of keys": (
        "jwt",
        {},
        "set one of JWT_DISCOVERY_URL, JWT_JWKS_URL and JWT_KEYS_FILE: 0 are set",
    ),
    "two sources of keys": (
        "jwt",
        {"JWT_JWKS_URL": "https://x.example.com/keys", "JWT_KEYS_FILE": "/dev/null"},
        "set one of JWT_DISCOVERY_URL, JWT_JWKS_URL and JWT_KEYS_FILE: 2 are set",
    ),
    "no issuer": ("jwt", {"JWT_KEYS_FILE": "/dev/null"}, "set JWT_ISSUER to the iss of the tokens"),
    "no such file": ("approle", {"POLICY_FILE": "/absent.hcl"}, "/absent.hcl cannot be read"),
    "not logged in": (
        "approle",
        {"BAO_TOKEN": "canary-wrong"},
        "log in first, by bao login or by a token in the environment",
    ),
    "a mount of another type": (
        "approle",
        {"APPROLE_MOUNT": "token"},
        "auth token/ is of the type token, not approle: set another path",
    ),
    "a KV of version 1": (
        "approle",
        {"KV_MOUNT": "old"},
        "secrets old/ is not KV version 2, which the readers' policies are for",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(setting: Setting, case: str) -> None:
    """What is wrong is said with what to do, and no policy, role or mount was made by then."""
    client = setting.bao.client()
    if case == "a KV of version 1" and "old/" not in client.sys.list_mounted_secrets_engines()["data"]:
        client.sys.enable_secrets_engine("kv", path="old", options={"version": "1"})
    before = sorted(client.sys.list_auth_methods()["data"])
    methods, environment, message = REFUSED[case]

    result = setting.run(*methods.split(), **{"ROLE": "refused"} | environment)

    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == f"setup.sh: {message}"
    assert result.stdout == ""
    assert "canary" not in result.stderr
    assert sorted(client.sys.list_auth_methods()["data"]) == before


def test_the_page_as_it_stands(setting: Setting, tmp_path: Path) -> None:
    """The commands of docs/vault-setup.md do what they say on a server that knows nothing yet.

    It runs in no cluster, so what the first of them leave out is in the environment.
    """
    pairs = {
        "https://kubernetes.example.com:6443/openid/v1/jwks": f"{setting.cluster.url}/keys",
        "https://kubernetes.example.com:6443": setting.cluster.url,
    }
    (tmp_path / "deploy").symlink_to(VAULT.parent)
    for name in ("kubernetes-ca.pem", "reviewer.jwt"):
        shutil.copy(setting.bao.files / name, tmp_path)
    with Stage(tmp_path, lifetime=600.0) as stage:
        stage.config(["bookings"])
        environment = {
            "PATH": f"{Path(_binary()).parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "BAO_ADDR": stage.bao.address,
            "BAO_TOKEN": stage.bao.root_token.reveal(),
            **{name: value for name, value in setting.files.items() if name.startswith("KUBERNETES_")},
        }
        for block in blocks_for("tests/integration/test_vault_setup.py::test_the_page_as_it_stands"):
            script = block.content
            for shown, real in pairs.items():
                script = script.replace(shown, real)
            result = subprocess.run(
                ["/bin/sh", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr
            policy = stage.bao.client().sys.read_acl_policy("aca-tokend")["data"]["policy"]
            assert ("aca/bookings.attempts" in policy) == ("POLICY_FILE" in script)
            for table in tables((tmp_path / "vault.toml").read_text()).values():
                assert table["address"] == stage.bao.address
        client = stage.bao.client()
        assert {"aca-tokend", "aca-reader-bookings", "aca-reader-rooms"} <= set(
            client.sys.list_policies()["data"]["keys"]
        )
        for mount in ("kubernetes", "kubernetes-prod", "jwt", "approle"):
            assert client.read(f"auth/{mount}/role/aca-tokend") is not None, mount
        assert (tmp_path / "role-id").stat().st_mode & 0o077 == 0


def evaluated(directory: Path, variables: Mapping[str, object]) -> dict[str, list[dict[str, Any]]]:
    """The resources that the Terraform text describes with these variables."""
    module = directory / "module"
    shutil.copytree(VAULT / "terraform", module)
    (module / "terraform.tfvars").write_text("".join(f"{name} = {hcl(value)}\n" for name, value in variables.items()))
    told: dict[str, list[dict[str, Any]]] = tfparse.load_from_path(
        str(module), stop_on_hcl_error=True, vars_paths=["terraform.tfvars"]
    )
    for kind in ("variable", "vault_kubernetes_auth_backend_config"):
        for found in told[kind]:
            rule = found.get("validation") or found.get("lifecycle", {}).get("precondition")
            assert rule is None or rule["condition"] is True, found
    return told


def hcl(value: object) -> str:
    """A value as it stands in a file of variables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {hcl(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


# The attributes that hashicorp/vault 5.6 knows of each resource, of those that a module such as this one would use.
KNOWN = {
    "vault_policy": {"name", "policy"},
    "vault_auth_backend": {"type", "path"},
    "vault_kubernetes_auth_backend_config": {
        *("backend", "kubernetes_host", "kubernetes_ca_cert", "token_reviewer_jwt", "disable_local_ca_jwt"),
    },
    "vault_kubernetes_auth_backend_role": {
        *("backend", "role_name", "audience", "bound_service_account_names", "bound_service_account_namespaces"),
        *("token_policies", "token_ttl", "token_max_ttl"),
    },
    "vault_jwt_auth_backend": {
        *("type", "path", "bound_issuer", "oidc_discovery_url", "oidc_discovery_ca_pem", "jwks_url", "jwks_ca_pem"),
        "jwt_validation_pubkeys",
    },
    "vault_jwt_auth_backend_role": {
        *("backend", "role_name", "role_type", "user_claim", "bound_subject", "bound_audiences"),
        *("token_policies", "token_ttl", "token_max_ttl"),
    },
    "vault_approle_auth_backend_role": {"backend", "role_name", "token_policies", "token_ttl", "token_max_ttl"},
}
OF_TERRAFORM = {"id", "count", "for_each", "lifecycle", "__tfmeta"}
# what they are in the API: beside what goes there as it is, the path
PLACES = {
    "vault_policy": "sys/policies/acl/{name}",
    "vault_auth_backend": "sys/auth/{path}",
    "vault_kubernetes_auth_backend_config": "auth/{backend}/config",
    "vault_kubernetes_auth_backend_role": "auth/{backend}/role/{role_name}",
    "vault_jwt_auth_backend_role": "auth/{backend}/role/{role_name}",
    "vault_approle_auth_backend_role": "auth/{backend}/role/{role_name}",
}


def carry_out(bao: OpenBao, told: Mapping[str, list[dict[str, Any]]]) -> None:
    """Does on a server what the resources describe."""
    client = bao.client()

    def write(place: str, data: Mapping[str, Any]) -> None:
        client.write_data(place, data={key: value for key, value in data.items() if value is not None})

    for kind, known in KNOWN.items():
        for found in told[kind]:
            given = {key: value for key, value in found.items() if key not in OF_TERRAFORM}
            assert given.keys() <= known, kind
            if kind == "vault_jwt_auth_backend":  # which is two things in the API
                write(f"sys/auth/{given['path']}", {"type": given.pop("type")})
                write(f"auth/{given.pop('path')}/config", given)
            else:
                place = PLACES[kind].format(**given)
                write(place, {key: value for key, value in given.items() if "{" + key + "}" not in PLACES[kind]})


def test_terraform(setting: Setting, tmp_path: Path) -> None:
    """The Terraform text makes of a server what the script makes of one."""
    mounts = {method: method for method in METHODS}
    ca = Path(setting.files["KUBERNETES_CA_FILE"]).read_text()
    variables = {
        "methods": list(METHODS),
        "readers": ["bookings", "rooms"],
        "service_account": {"namespace": "aca", "name": "aca-tokend"},
        "kubernetes": {"host": setting.cluster.url, "ca": ca},
        "kubernetes_reviewer_jwt": REVIEWER_JWT,
        "jwt": {"jwks_url": f"{setting.cluster.url}/keys", "ca": ca, "issuer": CLUSTER},
    }

    told = evaluated(tmp_path, variables)

    with OpenBao.dev(log=tmp_path / "openbao.log") as other:
        carry_out(other, told)
        assert said_of(other, mounts) == said_of(setting.bao, mounts)
    assert "secret_id" not in json.dumps(told).replace("-field=secret_id", "")


def test_the_module_of_the_page(tmp_path: Path) -> None:
    """The call of the module that docs/vault-setup.md shows gives what it names."""
    (block,) = blocks_for("tests/integration/test_vault_setup.py::test_the_module_of_the_page")
    (tmp_path / "main.tf").write_text(block.content)
    shutil.copytree(VAULT / "terraform", tmp_path / "deploy" / "vault" / "terraform")

    told = tfparse.load_from_path(str(tmp_path), stop_on_hcl_error=True)

    names = sorted(found["name"] for found in told["vault_policy"])
    assert names == ["aca-reader-bookings", "aca-reader-rooms", "aca-tokend"]
    assert [found["role_name"] for found in told["vault_kubernetes_auth_backend_role"]] == ["aca-tokend"]


def test_terraform_for_a_vault_inside(tmp_path: Path) -> None:
    """With nothing but the log-in named it is the cluster that the Vault runs in, and no other log-in is made."""
    told = evaluated(tmp_path, {"methods": ["kubernetes"]})

    (config,) = told["vault_kubernetes_auth_backend_config"]
    assert (config["kubernetes_host"], config["disable_local_ca_jwt"]) == (CLUSTER, False)
    assert config["kubernetes_ca_cert"] is config["token_reviewer_jwt"] is None
    assert [found["type"] for found in told["vault_auth_backend"]] == ["kubernetes"]
    assert "vault_jwt_auth_backend" not in told
    assert "vault_approle_auth_backend_role" not in told
