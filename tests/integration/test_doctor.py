"""The doctor on real parts: well where all is well, and for each fault its own row with the fix."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aca_tokend.clock import SystemClock
from aca_tokend.config.files import load
from aca_tokend.core.secret import Secret
from aca_tokend.core.vault_policy import policies
from aca_tokend.demo.processes import LookAlike
from aca_tokend.demo.stage import CLIENT_ID, Passwords, Stage
from aca_tokend.doctor import main as doctor
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD
from tests.unit.scripted_server import ScriptedServer, tunnels_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRONG = Secret("canary-p&ss+w%rd=ü-wrong")
HEAD = """
[acaengine.main]
url = "{url}"
{endpoint}
[vault.main]
address = "{address}"
auth = {{ method = "token", token = {{ file = "{directory}/vault-token" }} }}
{vault}
"""
TOKEN = """
[[tokens]]
name = "{name}"
authority = "authority-1"
username = "{name}"
password = {{ file = "{directory}/{name}.password" }}
client_id = "{client_id}"
client_secret = {{ file = "{directory}/client-secret" }}
scope = "public"
{token}
"""
VAULT = '[[tokens.publish]]\nto = "vault"\nmount = "{mount}"\npath = "{path}"\nkv_version = {version}\n'
FILE = '[[tokens.publish]]\nto = "file"\npath = "{path}"\n'

Row = dict[str, Any]


class Clinic:
    """A look-alike and an OpenBao, and configurations to have examined."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.client = stage.bao.client()
        self.client.sys.enable_secrets_engine("kv", path="old", options={"version": "1"})

    def config(
        self,
        *names: str,
        publish: str = "",
        endpoint: str = "",
        vault: str = "",
        token: str = "",
        url: str = "",
        address: str = "",
    ) -> Path:
        """Writes a configuration of these tokens, each published to Vault where nothing else is said."""
        self.stage.add_accounts(names)
        directory = self.stage.directory
        text = HEAD.format(
            url=url or self.stage.lookalike.url,
            address=address or self.stage.bao.address,
            directory=directory,
            endpoint=endpoint,
            vault=vault,
        )
        for name in names:
            text += TOKEN.format(name=name, directory=directory, client_id=CLIENT_ID, token=token)
            text += publish or VAULT.format(mount="secret", path=f"aca/{name}", version=2)
        path = directory / f"{names[0]}.toml"
        path.write_text(text)
        return path

    def log_in_with(self, policy: str) -> None:
        """From now on the token in the file has this policy alone."""
        self.client.sys.create_or_update_acl_policy("doctor", policy)
        token: str = self.client.auth.token.create(policies=["doctor"], ttl="2h")["auth"]["client_token"]
        self.stage.write_secret("vault-token", Secret(token))

    @property
    def refused(self) -> int:
        """How many grants the server has refused."""
        return sum(self.stage.lookalike.counts().refused.values())

    @property
    def asked(self) -> int:
        """How many grants the server was asked for."""
        return self.stage.lookalike.counts().requests.get("/auth/oauth/token", 0)

    def secrets(self) -> set[str]:
        """What no output may show."""
        token = (self.stage.directory / "vault-token").read_text().strip()
        root = self.stage.bao.root_token.reveal()
        return {CANARY_PASSWORD, CANARY_CLIENT_SECRET, WRONG.reveal(), token, root}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """One of each for all these tests."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path_factory.mktemp("doctor"), lifetime=7200.0, passwords=passwords) as stage:
        yield Clinic(stage)


@pytest.fixture
def clinic(servers: Clinic) -> Iterator[Clinic]:
    """The servers, as they are for every test at its beginning."""
    stage = servers.stage
    stage.write_secret("client-secret", stage.passwords.client_secret)
    stage.write_secret("vault-token", stage.bao.root_token)
    yield servers
    stage.lookalike.levers(clock_offset=0.0, tenants=None, faults=[])


class Examined:
    """What the doctor said: its rows and its exit code, after both of its outputs were searched for secrets."""

    def __init__(self, clinic: Clinic, path: Path, capsys: pytest.CaptureFixture[str], *, grant: bool = False) -> None:
        self.code = doctor(load(path), SystemClock().monotonic(), grant=grant, as_json=True)
        captured = capsys.readouterr()
        self.report = json.loads(captured.out)
        for secret in clinic.secrets():
            assert secret not in captured.out + captured.err
        self.rows: list[Row] = self.report["checks"]

    def of(self, subject: str, check: str) -> Row:
        """The row that has this subject and check."""
        (row,) = [row for row in self.rows if subject in row["subjects"] and row["check"] == check]
        return row

    @property
    def failed(self) -> list[tuple[str, str]]:
        """First subject and check of everything that failed."""
        return [(row["subjects"][0], row["check"]) for row in self.rows if row["status"] == "failed"]


def call(path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`aca-tokend doctor` as a process of its own."""
    command = [sys.executable, "-m", "aca_tokend", "doctor", "--config", str(path), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={"COLUMNS": "100", **environment}, check=False, timeout=120
    )


# ── all is well ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_is_well(clinic: Clinic) -> None:
    """With the printed policy and all in place it exits 0, its output has no secret, and it publishes nothing."""
    path = clinic.config("well-1", "well-2", token='verify = { path = "/api/engine/v2/users/current" }')
    clinic.log_in_with(policies(load(path))[0])

    text, as_json = call(path, "--grant"), call(path, "--grant", "--json")

    assert text.returncode == as_json.returncode == 0, text.stdout + text.stderr
    report = json.loads(as_json.stdout)
    assert (report["well"], report["counts"]["failed"], report["counts"]["warn"]) == (True, 0, 0), as_json.stdout
    assert {row["check"] for row in report["checks"]} == {
        *("name", "connection", "authority", "clock"),
        *("seal", "state", "log-in", "our token", "kv version of secret", "policy", "target"),
        *("resolves", "grant", "verify"),
    }
    assert "granted for 2h" in text.stdout
    assert text.stdout.splitlines()[-1].startswith("well: 0 failed")
    for secret in clinic.secrets():
        for output in (text.stdout, text.stderr, as_json.stdout, as_json.stderr):
            assert secret not in output
    published = clinic.client.secrets.kv.v2.list_secrets("aca", mount_point="secret")["data"]["keys"]
    assert {"well-1", "well-2"}.isdisjoint(published), "the granted tokens are nowhere"
    assert "well-1.attempts" in published


def test_a_wrong_configuration(clinic: Clinic) -> None:
    """A configuration that is wrong exits 2 and examines nothing."""
    path = clinic.config("wrong-config", token="no_such_key = 1")
    ended = call(path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no_such_key" in ended.stderr


# ── accounts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_password(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused once for each call and counted, and after two it is told without being tried."""
    path = clinic.config("wrong-password", "right-password")
    clinic.stage.write_secret("wrong-password.password", WRONG)
    before = clinic.refused

    first = Examined(clinic, path, capsys, grant=True)
    row = first.of("wrong-password", "grant")
    assert first.code == 1
    assert first.failed == [("wrong-password", "grant")]
    assert "400 invalid_grant; 1 of 2 attempts are spent" in row["detail"]
    assert "username and password" in row["fix"]
    assert first.of("right-password", "grant")["status"] == "ok"
    assert clinic.refused == before + 1
    kv = clinic.client.secrets.kv.v2
    read = kv.read_secret_version("aca/wrong-password.attempts", mount_point="secret", raise_on_deleted_version=True)
    (attempts,) = read["data"]["data"].values()
    assert (attempts["spent"], attempts["reason"]) == (1, "invalid_grant")

    second = Examined(clinic, path, capsys, grant=True).of("wrong-password", "grant")
    assert "2 of 2 attempts are spent" in second["detail"]
    assert "aca-tokend resume wrong-password" in second["fix"]
    third = Examined(clinic, path, capsys, grant=True).of("wrong-password", "grant")
    assert third["status"] == "failed"
    assert "not tried" in third["detail"]
    assert clinic.refused == before + 2


def test_a_wrong_client_secret(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """A client is refused for one account, and then not tried for its hundred others."""
    names = [f"client-{number}" for number in range(100)]
    path = clinic.config(*names)
    clinic.stage.write_secret("client-secret", WRONG)
    before = clinic.asked

    examined = Examined(clinic, path, capsys, grant=True)

    assert clinic.asked == before + 1
    failed = [row for row in examined.rows if row["status"] == "failed"]
    skipped = [row for row in examined.rows if row["status"] == "skipped"]
    assert [len(row["subjects"]) for row in failed] == [1]
    assert "client_secret" in failed[0]["fix"]
    assert [len(row["subjects"]) for row in skipped] == [99]
    assert "its client was refused" in skipped[0]["detail"]


def test_accounts_are_tried_once(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """Two tokens of one account are one attempt."""
    path = clinic.config("account-1")
    again = path.read_text().partition("[[tokens]]")[2].replace('name = "account-1"', 'name = "account-2"', 1)
    path.write_text(path.read_text() + "[[tokens]]" + again.replace("aca/account-1", "aca/account-2"))
    before = clinic.asked

    examined = Examined(clinic, path, capsys, grant=True)

    assert examined.of("account-1", "grant")["subjects"] == ["account-1"]
    assert clinic.asked == before + 1


def test_a_lifetime_over_max(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """A token that is granted for longer than would be adopted is a warning that names both lifetimes."""
    longest = 'rotation = { assumed_lifetime = "30m", max_lifetime = "1h" }'
    row = Examined(clinic, clinic.config("long-1", token=longest), capsys, grant=True).of("long-1", "grant")

    assert row["status"] == "warn"
    assert row["detail"].startswith("granted for 2h, longer than max_lifetime, 1h: ")
    assert "raise max_lifetime" in row["fix"]


def test_without_grant_nothing_is_asked(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --grant no credential is sent anywhere."""
    before = clinic.asked
    examined = Examined(clinic, clinic.config("quiet"), capsys)
    assert examined.code == 0
    assert clinic.asked == before
    assert all(row["area"] != "account" for row in examined.rows)


def test_a_token_that_does_not_work(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the API refuses the granted token, that is a failure of its own."""
    clinic.stage.lookalike.fail("answer", on="api", status=401)
    path = clinic.config("unverified", token='verify = { path = "/api/engine/v2/users/current" }')
    examined = Examined(clinic, path, capsys, grant=True)
    assert examined.of("unverified", "grant")["status"] == "ok"
    assert examined.failed == [("unverified", "verify")]
    assert "verify.path" in examined.of("unverified", "verify")["fix"]


# ── endpoints ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_host(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """A Host that the server has no tenant for is told, and no grant is tried: it would be refused like a password."""
    clinic.stage.lookalike.levers(tenants=["aca.example.com"])
    before = clinic.asked
    examined = Examined(clinic, clinic.config("tenant"), capsys, grant=True)
    assert examined.failed == [("acaengine.main", "authority")]
    assert "404" in examined.of("acaengine.main", "authority")["detail"]
    assert "host" in examined.of("acaengine.main", "authority")["fix"]
    assert examined.of("tenant", "grant")["detail"] == "because authority of acaengine.main failed"
    assert clinic.asked == before


@pytest.mark.parametrize(("offset", "status", "code"), [(20.0, "warn", 0), (-300.0, "failed", 1)])
def test_a_skewed_clock(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], offset: float, status: str, code: int
) -> None:
    """The server's clock is compared with ours; the accounts are tried all the same."""
    clinic.stage.lookalike.levers(clock_offset=offset)
    examined = Examined(clinic, clinic.config("clock"), capsys, grant=True)
    row = examined.of("acaengine.main", "clock")
    assert (row["status"], examined.code) == (status, code)
    assert "NTP" in row["fix"]
    assert examined.of("clock", "grant")["status"] == "ok"


@pytest.mark.parametrize(
    ("url", "check", "fix"),
    [
        ("https://no..name.example.com", "name", "resolver"),
        ("http://127.0.0.1:9", "connection", "nothing answers"),
    ],
)
def test_an_endpoint_that_is_not_there(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], url: str, check: str, fix: str
) -> None:
    """The step at which it cannot be reached is told, and those after it are skipped."""
    examined = Examined(clinic, clinic.config("nowhere", url=url), capsys)
    assert examined.failed == [("acaengine.main", check)]
    assert fix in examined.of("acaengine.main", check)["fix"]
    assert examined.of("acaengine.main", "authority")["status"] == "skipped"


# ── certificates ──────────────────────────────────────────────────────────────────────────────────────────────────────


def issue(directory: Path, name: str, days: float) -> tuple[Path, Path]:
    """A certificate for this name by a CA of its own, which ends in so many days; the CA's is in ca.pem."""
    now, authority_key, key = datetime.now(UTC), *(ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Doctor CA")])

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey, ends: datetime) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        return (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(ends)
        )

    ca = certificate(issuer, authority_key.public_key(), now + timedelta(days=9)).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    leaf = certificate(x509.Name([]), key.public_key(), now + timedelta(days=days)).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True
    )
    directory.mkdir()
    (directory / "ca.pem").write_bytes(ca.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (directory / "cert.pem").write_bytes(
        leaf.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    private = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    (directory / "key.pem").write_bytes(pem)
    return directory / "cert.pem", directory / "key.pem"


@contextmanager
def served(directory: Path, name: str, days: float) -> Iterator[str]:
    """A look-alike with such a certificate; gives its URL under the name localhost."""
    with LookAlike.start(tls=issue(directory / "tls", name, days)) as lookalike:
        yield f"https://localhost:{lookalike.port}"


@pytest.mark.parametrize(
    ("certificate", "row"),
    [
        (("localhost", 60.0), ("ok", "for localhost by Doctor CA, 60 days left", "")),
        (("localhost", 5.0), ("warn", "5 days left", "renewed")),
        (("localhost", -1.0), ("failed", "certificate has expired", "renew the certificate")),
        (("aca.example.com", 60.0), ("failed", "ostname mismatch", "a name that stands on the certificate")),
    ],
    ids=["well", "ends-soon", "expired", "other-name"],
)
def test_certificates(
    clinic: Clinic,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    certificate: tuple[str, float],
    row: tuple[str, str, str],
) -> None:
    """The certificates of endpoint and Vault are told with name, issuer and days left, or why they do not hold."""
    status, said, fix = row
    with served(tmp_path, *certificate) as url:
        trust = f'ca_file = "{tmp_path}/tls/ca.pem"'
        # what answers in the place of the Vault is none, but it has a certificate
        path = clinic.config("tls", url=url, endpoint=trust, address=url, vault=trust)
        examined = Examined(clinic, path, capsys)
    for subject in ("acaengine.main", "vault.main"):
        found = examined.of(subject, "tls")
        assert found["status"] == status
        assert said in found["detail"]
        assert fix in found["fix"]
    assert ("vault.main", "seal") in examined.failed or status == "failed"


def test_through_a_proxy(clinic: Clinic, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With a proxy it is the proxy that is connected to, and the server's certificate is told through its tunnel."""
    with (
        served(tmp_path, "aca.example.com", 60.0) as url,
        ScriptedServer(tunnels_to(("127.0.0.1", int(url.rpartition(":")[2])))) as proxy,
    ):
        endpoint = f'proxy = "{proxy.url}"\nhost = "aca.example.com"\nca_file = "{tmp_path}/tls/ca.pem"'
        path = clinic.config("proxy", url="https://in-cluster.example:8443", endpoint=endpoint)
        examined = Examined(clinic, path, capsys)
    assert examined.code == 0
    assert f"port {proxy.url.rpartition(':')[2]} answers" in examined.of("acaengine.main", "connection")["detail"]
    assert "for aca.example.com by Doctor CA" in examined.of("acaengine.main", "tls")["detail"]
    assert examined.of("acaengine.main", "authority")["detail"] == "it knows the Host aca.example.com"


def test_an_unknown_issuer(clinic: Clinic, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A certificate of a CA that is not trusted leads to ca_file; one through a host header is for that name."""
    with served(tmp_path, "aca.example.com", 60.0) as url:
        unknown = Examined(clinic, clinic.config("tls-1", url=url), capsys).of("acaengine.main", "tls")
        trust = f'ca_file = "{tmp_path}/tls/ca.pem"\nhost = "aca.example.com"'
        known = Examined(clinic, clinic.config("tls-2", url=url, endpoint=trust), capsys).of("acaengine.main", "tls")
    assert (unknown["status"], known["status"]) == ("failed", "ok")
    assert "ca_file" in unknown["fix"]


# ── vaults ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_policy_that_lacks_something(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """Each path where something is not allowed is named, with the command that prints the policy."""
    path = clinic.config("lacks")
    policy = policies(load(path))[0].replace(
        'lacks"          { capabilities = ["create", "read", "update"]', 'lacks" { capabilities = ["read"]'
    )
    clinic.log_in_with(policy)
    examined = Examined(clinic, path, capsys)
    assert examined.failed == [("secret/data/aca/lacks", "policy")]
    row = examined.of("secret/data/aca/lacks", "policy")
    assert row["detail"] == "not allowed: create, update"
    assert "aca-tokend policy --vault main" in row["fix"]


def test_record_of_a_client(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """An earlier version's attempt record of a client is named once where it may be read, and else nothing is said."""
    path = clinic.config("client-record", "client-record-2")
    kept = "secret/aca/client-record.client-attempts"
    for name in ("client-record", "client-record-2"):
        clinic.client.secrets.kv.v2.create_or_update_secret(
            f"aca/{name}.client-attempts", {"x": {}}, mount_point="secret"
        )
    examined = Examined(clinic, path, capsys)
    rows = [row for row in examined.rows if row["check"] == "attempt record"]
    assert [(row["subjects"], row["status"]) for row in rows] == [([kept], "ok")]

    clinic.log_in_with(policies(load(path))[0])
    examined = Examined(clinic, path, capsys)
    assert [row for row in examined.rows if row["check"] == "attempt record"] == []
    assert (examined.report["counts"]["failed"], examined.report["counts"]["warn"]) == (0, 0)


def test_many_tokens_without_a_policy(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """Three hundred tokens that may nothing are a handful of rows."""
    path = clinic.config(*(f"many-{number}" for number in range(300)))
    clinic.log_in_with('path "nothing" { capabilities = ["read"] }')
    examined = Examined(clinic, path, capsys)
    assert examined.report["counts"]["failed"] > 600
    assert len(examined.rows) < 20


def test_a_token_that_is_none(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """A log-in that Vault refuses is told once, and what needs it is skipped."""
    clinic.stage.write_secret("vault-token", Secret("canary-no-token"))
    examined = Examined(clinic, clinic.config("no-log-in"), capsys, grant=True)
    assert examined.failed == [("vault.main", "log-in")]
    assert examined.of("vault.main", "log-in")["fix"]
    assert examined.of("vault.main", "policy")["detail"] == "because log-in of vault.main failed"
    assert examined.of("no-log-in", "grant")["status"] == "skipped"


def test_its_own_token_is_revoked(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """The token that it logged in for is gone once it is done."""
    client = clinic.client
    client.sys.enable_auth_method("approle")
    client.write_data("auth/approle/role/doctor", data={"token_policies": "examined", "token_ttl": "1h"})
    client.sys.create_or_update_acl_policy(
        "examined", 'path "secret/*" { capabilities = ["create", "read", "update"] }'
    )
    role_id = client.read("auth/approle/role/doctor/role-id")["data"]["role_id"]
    secret_id = client.write_data("auth/approle/role/doctor/secret-id", data={})["data"]["secret_id"]
    clinic.stage.write_secret("vault-token", Secret(secret_id))
    path = clinic.config("revoked")
    text = path.read_text().replace('method = "token", token', f'method = "approle", role_id = "{role_id}", secret_id')
    path.write_text(text)

    assert Examined(clinic, path, capsys).code == 0

    living = client.list("auth/token/accessors")["data"]["keys"]
    paths = [client.lookup_token(accessor, accessor=True)["data"]["path"] for accessor in living]
    assert "auth/token/root" in paths
    assert "auth/approle/login" not in paths


def test_a_sealed_vault(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """A sealed Vault is told as such."""
    path = clinic.config("sealed")
    clinic.stage.bao.seal()
    try:
        examined = Examined(clinic, path, capsys)
    finally:
        clinic.stage.bao.unseal()
    assert examined.failed == [("vault.main", "seal")]
    assert examined.of("vault.main", "seal")["fix"] == "unseal it"


def test_in_a_namespace(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """In a namespace the mounts and the policy are those of the namespace, while health is asked of the root."""
    clinic.client.adapter.post("/v1/sys/namespaces/team-a")
    path = clinic.config("namespace", vault='namespace = "team-a"')
    missing = Examined(clinic, path, capsys)
    assert missing.failed == [("vault.main", "kv version of secret")]

    clinic.client.adapter.namespace = "team-a"
    try:
        clinic.client.sys.enable_secrets_engine("kv", path="secret", options={"version": "2"})
        clinic.log_in_with(policies(load(path))[0])
    finally:
        clinic.client.adapter.namespace = None
    assert Examined(clinic, path, capsys, grant=True).failed == []


def test_a_node_that_is_down(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """Each node of a cluster is examined by itself, and one that is down keeps nobody from logging in."""
    path = clinic.config("nodes")
    text = path.read_text()
    path.write_text(
        text.replace(f'"{clinic.stage.bao.address}"', f'["http://127.0.0.1:9", "{clinic.stage.bao.address}"]')
    )
    examined = Examined(clinic, path, capsys, grant=True)
    assert examined.failed == [("vault.main http://127.0.0.1:9", "connection")]
    assert examined.of(f"vault.main {clinic.stage.bao.address}", "seal")["status"] == "ok"
    assert examined.of("nodes", "grant")["status"] == "ok"


@pytest.mark.parametrize(
    ("mount", "version", "fix"),
    [("secret", 1, "set kv_version = 2"), ("old", 2, "set kv_version = 1"), ("none", 2, "bao secrets enable")],
)
def test_mounts(clinic: Clinic, capsys: pytest.CaptureFixture[str], mount: str, version: int, fix: str) -> None:
    """A missing mount and one of the other version are told with what to change."""
    publish = VAULT.format(mount=mount, path="aca/mounts", version=version)
    examined = Examined(clinic, clinic.config("mounts", publish=publish), capsys)
    assert examined.failed == [("vault.main", f"kv version of {mount}")]
    assert fix in examined.of("vault.main", f"kv version of {mount}")["fix"]


def test_kv_version_1(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """A version 1 mount works, and it is said what it lacks."""
    publish = VAULT.format(mount="old", path="aca/version-1", version=1)
    examined = Examined(clinic, clinic.config("version-1", publish=publish), capsys, grant=True)
    assert examined.code == 0
    assert "no check-and-set" in examined.of("vault.main", "kv version of old")["detail"]
    assert examined.of("version-1", "grant")["status"] == "ok"


# ── secrets and files ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_references_that_do_not_resolve(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind of reference is told by its name, with what is wrong and how to mend it."""
    path = clinic.config("unresolved")
    text = path.read_text()
    text = text.replace(f'file = "{clinic.stage.directory}/unresolved.password"', 'vault = "secret/aca/nothing#value"')
    text = text.replace(f'file = "{clinic.stage.directory}/client-secret"', 'env = "NO_SUCH_VARIABLE"')
    path.write_text(text)
    examined = Examined(clinic, path, capsys)
    assert sorted(examined.failed) == [
        ("env NO_SUCH_VARIABLE", "resolves"),
        ("vault secret/aca/nothing#value", "resolves"),
    ]
    assert examined.of("env NO_SUCH_VARIABLE", "resolves")["detail"] == "the variable is not set"
    assert examined.of("env NO_SUCH_VARIABLE", "resolves")["fix"]


def test_a_secret_file_that_others_can_read(clinic: Clinic) -> None:
    """A secret file that is open to everybody is warned of, as a row and not also as a line of the log."""
    path = clinic.config("open")
    secret = clinic.stage.directory / "open.password"
    secret.chmod(0o644)
    ended = call(path, "--json")
    warned = [row["subjects"] for row in json.loads(ended.stdout)["checks"] if row["status"] == "warn"]
    assert ended.returncode == 0
    assert [f"file {secret}"] in warned
    assert "secret_file_open" not in ended.stderr


def test_files(clinic: Clinic, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A directory that is missing is told for each token in it at once."""
    path = clinic.config("file-1", publish=FILE.format(path=tmp_path / "missing" / "a.json"))
    examined = Examined(clinic, path, capsys, grant=True)
    assert ((str(tmp_path / "missing" / "a.json")), "directory") in examined.failed
    assert examined.of(str(tmp_path / "missing" / "a.json"), "directory")["fix"] == "create the directory"


# ── everything hangs ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_hangs(clinic: Clinic) -> None:
    """Servers that accept and are silent are told, and the process ends by itself with exit code 1."""
    path = clinic.config("hangs", endpoint='timeout = "10m"', vault='timeout = "10m"')
    stopped = (clinic.stage.lookalike.pid, clinic.stage.bao.pid)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        ended = call(path, "--grant", "--json")
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert ended.returncode == 1, ended.stderr
    report = json.loads(ended.stdout)
    failed = {(row["subjects"][0], row["check"]) for row in report["checks"] if row["status"] == "failed"}
    assert failed == {("acaengine.main", "authority"), ("vault.main", "seal")}
    assert all(row["fix"] for row in report["checks"] if row["status"] == "failed")
    for secret in clinic.secrets():
        assert secret not in ended.stdout + ended.stderr
