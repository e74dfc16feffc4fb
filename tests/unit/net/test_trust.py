"""Whom a connection trusts: files that change, and an environment that has no say."""

from __future__ import annotations

import os
import shutil
import ssl
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.errors import TransportError
from aca_tokend.core.outcome import Reason
from aca_tokend.net.messages import Request
from aca_tokend.net.opening import Opener, Origin
from aca_tokend.net.streams import Deadline
from aca_tokend.net.transport import Transport
from aca_tokend.net.trust import Trust
from tests.unit.scripted_server import Authority, ScriptedServer, answers, response

if TYPE_CHECKING:
    from pathlib import Path


def status(url: str, trust: Trust) -> int:
    origin = Origin.of(url)
    transport = Transport(Opener(trust), origin, 1)
    try:
        request = Request("GET", "/", [("Host", str(origin))])
        return transport.send(request, 1000, Deadline.after(30.0)).status
    finally:
        transport.close()


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    """The same files are read once, and again when one was replaced."""
    authority = Authority(tmp_path)
    authority.context("127.0.0.1")
    pair = str(min(tmp_path.glob("server-*.pem")))
    trust = Trust(str(authority.ca_file), pair, pair)
    first = trust.context()
    assert trust.context() is first
    shutil.copy(authority.ca_file, tmp_path / "next.pem")
    (tmp_path / "next.pem").replace(authority.ca_file)
    assert trust.context() is not first


def test_files_that_are_of_no_use(tmp_path: Path) -> None:
    """A file that is missing, no file, or holds something else is named, and costs the request."""
    authority = Authority(tmp_path)
    authority.context("127.0.0.1")
    pair, ca_file = str(min(tmp_path.glob("server-*.pem"))), str(authority.ca_file)
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    (tmp_path / "text").write_text("no certificate")
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 1 << 30)
    for files, problem in (
        (("/absent/ca.pem",), "ca_file /absent/ca.pem: No such file or directory"),
        ((fifo,), f"ca_file {fifo}: is not a file"),
        (("/dev/zero",), "ca_file /dev/zero: is not a file"),
        ((str(large),), f"ca_file {large}: larger than 4 MiB"),
        ((str(tmp_path / "text"),), "holds no certificate that can be read"),
        ((ca_file, pair, str(tmp_path / "text")), "tls_cert and tls_key cannot be read, or do not belong together"),
        ((ca_file, ca_file, pair), "tls_cert and tls_key cannot be read, or do not belong together"),
        ((ca_file, pair, "/absent/key.pem"), "tls_key /absent/key.pem: No such file"),
    ):
        with pytest.raises(TransportError) as caught:
            Trust(*files).context()
        assert caught.value.reason is Reason.TLS_FAILED
        assert problem in str(caught.value)


def test_the_environment_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority of the environment is not believed, and no key is written to where it says."""
    authority = Authority(tmp_path)
    log = tmp_path / "keys"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    with ScriptedServer(answers(response(200)), authority.context("127.0.0.1")) as server:
        with pytest.raises(TransportError, match="unable to get local issuer certificate"):
            status(server.url, Trust(""))
        assert status(server.url, Trust(str(authority.ca_file))) == 200
    assert not log.exists()


def test_old_tls_is_refused(tmp_path: Path) -> None:
    """A server that speaks nothing newer than TLS 1.1 is not spoken to."""
    authority = Authority(tmp_path)
    tls = authority.context("127.0.0.1")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        tls.minimum_version, tls.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with ScriptedServer(answers(response(200)), tls) as server, pytest.raises(TransportError) as caught:
        status(server.url, Trust(str(authority.ca_file)))
    assert caught.value.reason is Reason.TLS_FAILED


def test_an_authority_that_was_taken_out(tmp_path: Path) -> None:
    """A server is believed no longer than its authority stands in the file, also over a connection that was kept."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "another")
    ca_file = tmp_path / "ca.pem"
    shutil.copy(authority.ca_file, ca_file)
    with ScriptedServer(answers(*[response(200)] * 3), authority.context("127.0.0.1")) as server:
        origin = Origin.of(server.url)
        transport = Transport(Opener(Trust(str(ca_file))), origin, 1)

        def ask() -> int:
            request = Request("GET", "/", [("Host", str(origin))])
            return transport.send(request, 1000, Deadline.after(30.0)).status

        assert [ask(), ask(), server.connections] == [200, 200, 1]
        shutil.copy(other.ca_file, tmp_path / "next.pem")
        (tmp_path / "next.pem").replace(ca_file)
        for _ in range(2):
            with pytest.raises(TransportError, match="TLS failed"):
                ask()
        ca_file.unlink()
        with pytest.raises(TransportError, match="No such file"):
            ask()
        transport.close()
    assert len(server.requests) == 2
