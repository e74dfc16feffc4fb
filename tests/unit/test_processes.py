"""Starting and stopping the helper programs: they answer, survive what they should, and never outlive their parent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import hvac
import pytest

from aca_tokend.demo.child import Child, free_port, on_a_free_port, wait_until
from aca_tokend.demo.openbao import _binary
from aca_tokend.demo.processes import HelperError, LookAlike, OpenBao
from tests.lookalikes import LEVERS, PASSWORD, SECRET, ask, grant, read

if TYPE_CHECKING:
    from collections.abc import Iterator

PARENT = """
import json, signal, sys
from aca_tokend.demo.processes import LookAlike, OpenBao
server, bao = LookAlike.start(), OpenBao.dev()
print(json.dumps([server.port, bao.port]), flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def raft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with OpenBao.raft(tmp_path_factory.mktemp("bao")) as bao:
        yield bao


def refused(port: int) -> bool:
    """Whether nobody listens on the port."""
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) != 0


def write(bao: OpenBao, value: str) -> None:
    bao.client().secrets.kv.v2.create_or_update_secret("aca/test", secret={"value": value})


def value(bao: OpenBao) -> str:
    found = bao.client().secrets.kv.v2.read_secret_version("aca/test", raise_on_deleted_version=True)
    text: str = found["data"]["data"]["value"]
    return text


def test_a_dev_server_is_ready_for_writes_and_hides_its_token() -> None:
    """A dev server takes KV writes at once; its root token is in neither its arguments nor its environment."""
    with OpenBao.dev() as bao:
        write(bao, "one")
        assert value(bao) == "one"
        assert bao.address == f"http://127.0.0.1:{bao.port}"
        shown = [Path(f"/proc/{bao.pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
        token = bao.root_token.reveal().encode()
        port = bao.port

    assert token not in b"".join(shown)
    assert {entry.split(b"=")[0] for entry in shown[1].split(b"\0")} <= {b"PATH", b"HOME", b"LANG", b"LC_CTYPE", b""}
    assert refused(port)


def test_a_dev_server_writes_no_secret_to_its_log(tmp_path: Path) -> None:
    """The log of a dev server is where it is wanted and holds neither its root token nor its unseal key."""
    with OpenBao.dev(log=tmp_path / "bao.log") as bao:
        secrets = [bao.root_token.reveal(), bao._unseal_key.reveal()]

    log = (tmp_path / "bao.log").read_text()
    assert "core: vault is unsealed" in log
    assert not any(secret in log for secret in secrets)


def test_a_dev_server_comes_back_empty_on_its_port() -> None:
    """After a restart a dev server has forgotten everything and answers at the same address."""
    with OpenBao.dev() as bao:
        write(bao, "one")
        address, token = bao.address, bao.root_token
        bao.restart()

        assert bao.address == address
        assert bao.root_token != token
        with pytest.raises(hvac.exceptions.InvalidPath):
            value(bao)


def test_a_raft_server_keeps_its_data_over_a_restart(raft: OpenBao) -> None:
    """A raft server is there again after a restart, unsealed, with the same token and what was written."""
    write(raft, "before the restart")
    address = raft.address

    raft.restart()

    assert value(raft) == "before the restart"
    assert raft.address == address


def test_a_raft_server_keeps_its_data_over_a_kill(raft: OpenBao) -> None:
    """What a raft server acknowledged is there after SIGKILL."""
    write(raft, "before the kill")

    raft.kill()
    assert refused(raft.port)
    raft.restart()

    assert value(raft) == "before the kill"


def test_a_sealed_server_refuses_until_it_is_unsealed(raft: OpenBao) -> None:
    """Sealing makes writes fail, unsealing makes them work again."""
    raft.seal()
    sealed = [raft.sealed]
    with pytest.raises(hvac.exceptions.VaultDown):
        write(raft, "while sealed")

    raft.unseal()

    sealed.append(raft.sealed)
    write(raft, "after")
    assert sealed == [True, False]
    assert value(raft) == "after"


def test_the_files_of_a_raft_server_are_its_owners(tmp_path: Path, raft: OpenBao) -> None:
    """Nobody else may look into the data, and a directory that holds some already is refused."""
    assert raft._directory is not None
    assert (raft._directory / "raft").stat().st_mode & 0o777 == 0o700
    (tmp_path / "raft").mkdir()

    with pytest.raises(HelperError, match="holds data already"):
        OpenBao.raft(tmp_path)


def test_a_stopped_server_says_so() -> None:
    """A server that was stopped has no process id, and stopping it again does nothing."""
    bao = OpenBao.dev()
    bao.stop()
    bao.stop()
    bao.kill()

    with pytest.raises(HelperError, match="does not run"):
        _ = bao.pid


def test_a_missing_program_names_the_extra(tmp_path: Path) -> None:
    """Without `bao` the error says which extra brings it."""
    with pytest.raises(HelperError, match=r"aca-tokend\[demo\]"):
        _binary(beside=tmp_path / "python", path=str(tmp_path))


def test_a_taken_port_is_an_error_where_it_is_the_only_one() -> None:
    """A given port that is in use fails, without hiding why; with a free choice another one is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(HelperError, match="in use"):
        LookAlike.start(port=taken.getsockname()[1])


def test_another_port_is_tried_where_one_was_taken() -> None:
    """A port that was lost between choosing and using it costs one attempt."""
    tried = []

    def start(port: int) -> int:
        tried.append(port)
        if len(tried) == 1:
            message = "bind: address already in use"
            raise HelperError(message)
        return port

    assert on_a_free_port(start, None) == tried[1]
    assert len(tried) == 2
    assert refused(free_port())


def test_the_look_alike_goes_down_and_comes_up_with_its_tokens() -> None:
    """While it is down connections are refused; afterwards the same port answers and old tokens work."""
    with LookAlike.start(LEVERS) as server, httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        token = grant(http)["access_token"]
        server.go_down()
        with pytest.raises(httpx.ConnectError):
            ask(http)
        with pytest.raises(HelperError, match="does not answer"):
            server.counts()

        server.come_up()

        assert read(http, f"Bearer {token}") == 200


def test_the_look_alike_shows_no_secret_to_the_process_list() -> None:
    """Its arguments and environment hold neither passwords nor client secrets."""
    with LookAlike.start(LEVERS) as server:
        shown = b"".join(Path(f"/proc/{server.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))

    assert b"aca_tokend.demo.lookalike" in shown
    assert PASSWORD.encode() not in shown
    assert SECRET.encode() not in shown


def test_wrong_levers_at_the_start_are_named_and_not_shown() -> None:
    """A look-alike that cannot start says which lever is wrong, without its value."""
    with pytest.raises(HelperError, match=r"accounts\.svc\.password") as failed:
        LookAlike.start({"accounts": {"svc": {"password": [SECRET]}}})

    assert SECRET not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_look_alike_ends_on_a_signal(number: signal.Signals) -> None:
    """SIGTERM and SIGINT end it, whatever hangs."""
    with LookAlike.start() as server:
        server.fail("hang", on="any")
        os.kill(server.pid, number)
        wait_until(lambda: not server._child.running, "its end")


def test_a_halted_program_can_be_stopped() -> None:
    """A look-alike that was halted by SIGSTOP still ends."""
    server = LookAlike.start()
    os.kill(server.pid, signal.SIGSTOP)
    server.stop()

    assert refused(server.port)


def test_children_end_with_a_killed_parent() -> None:
    """When the process that started them is killed by SIGKILL, the look-alike and OpenBao end too."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        ports = json.loads(parent.stdout.readline())
        assert not any(refused(port) for port in ports)
        parent.kill()

    for port in ports:
        wait_until(lambda port=port: refused(port), f"the end of the server on port {port}")  # type: ignore[misc]  # mypy cannot infer it


def test_a_server_outlives_the_thread_that_started_it() -> None:
    """It is tied to the process, not to the thread that asked for it."""
    started: list[OpenBao] = []
    thread = threading.Thread(target=lambda: started.append(OpenBao.dev()))
    thread.start()
    thread.join()

    with started[0] as bao:
        write(bao, "after the thread")
        assert value(bao) == "after the thread"


def test_what_a_program_last_said_is_told() -> None:
    """A program that ends too early is reported with the end of its standard error."""
    child = Child([sys.executable, "-c", "import sys; sys.exit('it cannot be')"])

    with pytest.raises(HelperError, match="no start: it cannot be"):
        child.give_up("no start")
