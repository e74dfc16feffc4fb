"""An OpenBao that can be logged in to by every method it has, set up by the commands of docs/vault-logins.md."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import hvac
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

from aca_tokend.demo.child import Child, free_port
from aca_tokend.demo.openbao import OpenBao
from tests.unit.scripted_server import Authority, response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.unit.scripted_server import Talk

DOCS = Path(__file__).parents[1] / "docs" / "vault-logins.md"
METHODS = ("token", "approle", "kubernetes", "jwt", "cert", "userpass")
PASSWORD = "canary-vault-password-3c91"
REVIEWER_JWT = "canary-reviewer.jwt.5d2e"
ISSUER = "https://provider.example.com"
SERVICE_ACCOUNT = "system:serviceaccount:aca:aca-tokend"


def commands(method: str) -> str:
    """The commands of the docs for a method; "" for what comes before all of them."""
    text = DOCS.read_text(encoding="utf-8")
    section = re.split(r"^### ", text, flags=re.MULTILINE)[0] if not method else text.partition(f"\n### {method}\n")[2]
    (block, *_) = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(block)


class Logins(OpenBao):
    """The server, with a second listener over TLS that asks for client certificates.

    What the commands of the docs read and write is in `directory`. Everything is mounted at `team/METHOD`.
    """

    def __init__(self, directory: Path | None, log: Path | None) -> None:
        super().__init__(directory, log)
        self.files = Path()
        self.tls_port = 0
        self.namespace = ""
        self.program: Path | None = None
        self.key = ECKey.generate_key("P-256")
        self.authority: Authority

    @classmethod
    def begin(cls, directory: Path, program: Path | None = None) -> Self:
        """Starts it, and makes what its users bring: keys, certificates, a password. `program`: another than ours."""
        bao = cls(None, directory / "openbao.log")
        bao.program = program
        bao.files, bao.tls_port = directory, free_port()
        bao.authority = Authority(directory, "client ca")
        bao._start_first()
        (directory / "provider.pem").write_bytes(bao.key.as_pem(private=False))
        (directory / "vault-password").write_text(PASSWORD)
        (directory / "reviewer.jwt").write_text(REVIEWER_JWT)
        bao.run(commands(""))
        return bao

    def inside(self, namespace: str, directory: Path) -> Self:
        """The same server, as who works in a namespace sees it; what its commands read and write is copied."""
        inside = copy.copy(self)
        inside.namespace, inside.files = namespace, shutil.copytree(self.files, directory / namespace)
        return inside

    def _start(self, arguments: Sequence[str]) -> None:
        self.authority.context("127.0.0.1")
        server = next(self.files.glob("server-*.pem"))
        listener = {
            "address": f"127.0.0.1:{self.tls_port}",
            "tls_cert_file": str(server),
            "tls_key_file": str(server),
        }
        config = self.files / "listener.json"
        config.write_text(json.dumps({"listener": [{"tcp": listener}]}))
        arguments = [*arguments, f"-config={config}"]
        if self.program is None:
            super()._start(arguments)
        else:
            self._child = Child([str(self.program), "server", *arguments], log=self._log, tied=True)

    @property
    def tls_address(self) -> str:
        """Where it answers over TLS."""
        return f"https://127.0.0.1:{self.tls_port}"

    def run(self, script: str) -> None:
        """Runs commands as an operator would, in the directory with the files."""
        beside = str(Path(sys.executable).parent)
        result = subprocess.run(
            ["/bin/sh", "-eu", "-c", f"umask 077; {script}"],
            cwd=self.files,
            env={
                "PATH": f"{beside}:{os.environ['PATH']}",
                "HOME": str(self.files),
                "BAO_ADDR": self.address,
                "BAO_TOKEN": self.root_token.reveal(),
                "BAO_NAMESPACE": self.namespace,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr

    def enable(self, method: str, ttl: str = "1h", kubernetes: str = "", **more: str) -> None:
        """Runs the commands of the docs for a method. Its tokens live for `ttl`; `more` is added to its role."""
        script = commands(method).replace("=1h", f"={ttl}").replace(f"auth/{method}/", f"auth/team/{method}/")
        script = script.replace(f"bao auth enable {method}", f"bao auth enable -path=team/{method} {method}")
        script = script.replace("https://kubernetes.example.com:6443", kubernetes)
        for name, value in more.items():
            script = re.sub(f"{name}=\\S+", "", script)
            script = script.replace("token_policies=", f"{name}={value} token_policies=")
        self.run(script)

    def signed(self, **claims: Any) -> str:  # noqa: ANN401  # anything that is JSON
        """A token of the identity provider, or of the cluster."""
        now = int(time.time())
        known = {"iss": ISSUER, "sub": "aca-tokend", "aud": "vault", "iat": now, "exp": now + 600}
        return str(jwt.encode({"alg": "ES256"}, known | claims, self.key))

    def service_account_token(self, number: int = 1) -> str:
        """A token of the service account, as the kubelet projects one."""
        account = {"name": "aca-tokend", "uid": "6b1d0f2c-0000-0000-0000-000000000000"}
        claims: dict[str, Any] = {
            "sub": SERVICE_ACCOUNT,
            "iss": "https://kubernetes.default.svc",
            "aud": ["vault"],
            "jti": f"token-{number}",
            "kubernetes.io": {"namespace": "aca", "serviceaccount": account},
        }
        return self.signed(**claims)

    def client_certificate(self, name: str = "aca-tokend") -> tuple[Path, Path]:
        """A certificate and its key, which take the place of those before."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.authority.client(key.public_key(), name)
        paths = self.files / "tls.crt", self.files / "tls.key"
        pem = serialization.Encoding.PEM
        contents = (
            certificate.public_bytes(pem),
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )
        for path, content in zip(paths, contents, strict=True):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.chmod(0o600)
            fresh.rename(path)
        return paths

    def write(self, name: str, value: str) -> Path:
        """A file as an operator would write it."""
        path, fresh = self.files / name, self.files / f".{name}.new"
        fresh.write_text(value + "\n")
        fresh.chmod(0o600)
        fresh.rename(path)
        return path

    def vault(self, method: str) -> dict[str, Any]:
        """The `[vault.NAME]` of a method."""
        file = {name: {"file": str(self.files / name)} for name in ("vault-token", "secret-id", "vault-password")}
        auth: dict[str, Any] = {"method": method}
        table: dict[str, Any] = {"address": self.address, "namespace": self.namespace, "timeout": 20.0}
        match method:
            case "token":
                auth |= {"token": file["vault-token"]}
            case "approle":
                auth |= {"role_id": {"file": str(self.files / "role-id")}, "secret_id": file["secret-id"]}
            case "kubernetes" | "jwt":
                auth |= {"role": "aca-tokend", "jwt_file": str(self.files / f"{method}.jwt")}
            case "cert":
                cert, key = self.client_certificate()
                tls = {"ca_file": str(self.authority.ca_file), "tls_cert": str(cert), "tls_key": str(key)}
                table |= {"address": self.tls_address, **tls}
            case "userpass":
                auth |= {"username": "aca-tokend", "password": file["vault-password"]}
        if method != "token":
            auth["mount"] = f"team/{method}"
        return table | {"auth": auth}

    def accessors(self, method: str) -> list[str]:
        """The tokens that live and came from log-ins by a method."""
        client = self.client()
        accessors = client.list("auth/token/accessors")["data"]["keys"]
        paths = {}
        for accessor in accessors:
            with contextlib.suppress(hvac.exceptions.VaultError):  # it has expired since
                paths[accessor] = client.lookup_token(accessor, accessor=True)["data"]["path"]
        return [accessor for accessor, path in paths.items() if path.startswith(f"auth/team/{method}/login")]


class Reviewer:
    """The TokenReview API of a cluster: accepts the tokens that were signed with the key of `bao`.

    As a cluster it lets in only who may review: a token with the audience `vault` is not meant for it.
    """

    def __init__(self, bao: Logins) -> None:
        self._bao = bao
        self.reviewed: list[str] = []

    def talk(self, talk: Talk) -> None:
        """Answers the request of a connection."""
        if (request := talk.read_request()) is not None:
            talk.send(self.answer(request))

    def answer(self, request: bytes) -> bytes:
        """The answer to a review."""
        if f"Authorization: Bearer {REVIEWER_JWT}\r\n".encode() not in request:
            return response(401, b"{}", ("Connection: close",))
        asked = json.loads(request.partition(b"\r\n\r\n")[2])
        token = asked["spec"]["token"]
        claims = jwt.decode(token, self._bao.key).claims
        self.reviewed.append(str(claims.get("jti")))
        user = {"username": claims["sub"], "uid": claims["kubernetes.io"]["serviceaccount"]["uid"]}
        status = {"authenticated": True, "user": user, "audiences": claims["aud"]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
        return response(201, json.dumps(body).encode(), ("Connection: close",))
