"""The page about TLS: its listener is asked by its commands."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aca_tokend.demo.stage import Settings
from tests.blocks import ROOT, blocks, blocks_for
from tests.unit.scripted_server import Authority
from tests.walk import call_in

if TYPE_CHECKING:
    from pathlib import Path

    from aca_tokend.demo.stage import Stage

PAGE = ROOT / "docs" / "tls.md"


def make_certificates(directory: Path) -> None:
    """The files that the page names: of the listener for 127.0.0.1, of an operator, and of both authorities."""
    authority, clients = Authority(directory, "ca"), Authority(directory, "clients")
    authority.context("127.0.0.1")
    (server,) = directory.glob("server-*.pem")
    for name in ("tls.crt", "tls.key"):
        shutil.copy(server, directory / name)
    key = ec.generate_private_key(ec.SECP256R1())
    operator = clients.client(key.public_key(), "operator")
    (directory / "operator.crt").write_bytes(operator.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "operator.key").write_bytes(secret)


def test_asking_the_listener(stage: Stage) -> None:
    """With the certificates of the page the listener answers its commands, and without a client's nobody."""
    make_certificates(stage.directory)
    (admin,) = [block.content for block in blocks(PAGE) if block.content.startswith("[admin]\n")]
    admin = admin.replace("/etc/aca-tokend/", f"{stage.directory}/").replace("0.0.0.0:9464", "127.0.0.1:0")
    config = stage.config(["bookings"], Settings())
    plain = '[admin]\nlisten = "127.0.0.1:0"\n'
    text = config.read_text()
    assert plain in text
    config.write_text(text.replace(plain, admin))
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    port = daemon.admin_port
    config.write_text(text.replace(plain, admin.replace("127.0.0.1:0", f"127.0.0.1:{port}")))

    calls = [block.content for block in blocks_for("tests/integration/test_tls_page.py::test_asking_the_listener")]
    assert len(calls) == 2
    for call in calls:
        asked = call.replace("bookings.example.com:9464", f"127.0.0.1:{port}")
        code, told = call_in(stage.directory, asked)
        assert (code, "bookings" in told) == (0, True), told
        code, told = call_in(stage.directory, asked.replace(" --cert operator.crt --key operator.key", ""))
        assert (code, "--cert" in told) == (2, True), told
