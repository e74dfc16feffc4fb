"""What the process touches and leaves behind, and what others of its user can get out of it: docs/security.md."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import DaemonProcess, Settings, Stage, wait_until
from tests.integration.conftest import assert_nothing_leaked, of_process, secrets_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Without the capabilities that let root look into everybody: what is left is one user like any other.
PLAIN = ["setpriv", "--bounding-set", "-all"] if os.geteuid() == 0 else []

# Says what the interpreter does, one JSON line for each of these, from the first line of the daemon on.
WATCHED = """
import json, os, sys
KINDS = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.symlink", "socket.connect", "socket.bind",
         "socket.sendto", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn"}
out = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND)
def watch(kind, details):
    if kind in KINDS:
        told = [it if isinstance(it, (int, str)) else repr(it) for it in details if type(it).__name__ != "socket"]
        os.write(out, (json.dumps([kind, *told]) + "\\n").encode())
sys.addaudithook(watch)
from aca_tokend.__main__ import main
main()
"""

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.link", "os.symlink"}
# The admin listener; and urllib3, when it is loaded, finds out by a socket of its own whether there is IPv6.
LISTENS = {"('127.0.0.1', 0)", "('::1', 0)"}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory to run in, with another for temporary files in it."""
    (tmp_path / "here" / "tmp").mkdir(parents=True)
    return tmp_path / "here"


@pytest.fixture
def run(stage: Stage, place: Path) -> Iterator[Callable[[Path, Sequence[str]], DaemonProcess]]:
    """Runs a daemon there, by any program that runs it."""
    daemons = []

    def start(config: Path, program: Sequence[str]) -> DaemonProcess:
        log = stage.directory / "daemon.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*program, "run", "--config", str(config), "--log-format", "json"],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd=place,
                env={"PATH": os.environ["PATH"], "TMPDIR": str(place / "tmp")},
                start_new_session=True,
            )
        daemons.append(DaemonProcess(process, log, 0))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.kill()


def with_approle(stage: Stage, names: Sequence[str]) -> tuple[Path, str]:
    """A configuration with a log-in by AppRole, a password from Vault and a hook; and the secret id."""
    client = stage.bao.client()
    client.sys.create_or_update_policy(
        "tokens", 'path "secret/data/aca/*" { capabilities = ["create", "read", "update"] }'
    )
    client.sys.enable_auth_method("approle")
    client.auth.approle.create_or_update_approle("daemon", token_policies=["tokens"], token_ttl="1h")
    role_id = client.auth.approle.read_role_id("daemon")["data"]["role_id"]
    secret_id: str = client.auth.approle.generate_secret_id("daemon")["data"]["secret_id"]
    stage.write_secret("secret-id", Secret(secret_id))
    auth = f'method = "approle", role_id = "{role_id}", secret_id = {{ file = "{stage.directory}/secret-id" }}'
    config = stage.config(names, Settings(auth=auth))
    client.secrets.kv.v2.create_or_update_secret(
        "aca/account", {"password": stage.passwords.password.reveal()}, mount_point="secret"
    )
    first = f'password = {{ file = "{stage.directory}/{names[0]}.password" }}'
    text = config.read_text().replace(first, 'password = { vault = "secret/aca/account#password" }')
    text = text.replace('mode = "0640"', 'mode = "0640"\nafter = { command = ["sh", "-c", "exit 0"] }', 1)
    config.write_text(text)
    return config, secret_id


def test_what_it_touches(stage: Stage, place: Path, run: Callable[[Path, Sequence[str]], DaemonProcess]) -> None:
    """It reads its configuration, secrets and sinks, writes sinks alone, and connects to the servers it is told of."""
    config, _ = with_approle(stage, ["bookings", "signage"])
    seen = stage.directory / "seen"
    seen.touch()
    daemon = run(config, [sys.executable, "-c", WATCHED, str(seen)])
    daemon.wait_for("token_rotated", 4)
    wait_until(lambda: "subprocess.Popen" in seen.read_text(), "the hook")
    assert daemon.get("/metrics")[0] == daemon.get("/")[0] == daemon.get("/api/v1/status")[0] == 200
    assert daemon.terminate() == 0

    did = [json.loads(line) for line in seen.read_text().splitlines()]
    opened = [(it[1], it[3]) for it in did if it[0] == "open" and isinstance(it[1], str)]
    published = stage.file_of("bookings").parent
    assert {path for path, flags in opened if flags & os.O_DIRECTORY} == {str(published)}
    # with names relative to that directory, which it holds open meanwhile
    written = {path for path, flags in opened if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)} - {"/dev/null"}
    written |= {path for it in did if it[0] in CHANGES for path in it[1:3] if isinstance(path, str)}
    assert written, "it publishes"
    strange = {it for it in written if not re.fullmatch(r"[.]?(bookings|signage)[.]json([.][\w.-]+)?", it)}
    assert not strange, "nothing but where it publishes"

    read = {path for path, _ in opened if path.startswith("/")}
    ours = {Path(path).name for path in read if path.startswith(str(stage.directory))}
    assert ours == {config.name, "secret-id", "client-secret", "signage.password", published.name}
    parts = (sys.prefix, sys.base_prefix, str(ROOT / "aca_tokend"), "/usr/lib", str(stage.directory))
    rest = {path for path in read if not path.startswith((*parts, "/proc/", "/etc/", "/usr/share/zoneinfo", "/dev/"))}
    assert not rest, "no secret that it was not told of, and nothing else"

    connected = {it[1] for it in did if it[0] in {"socket.connect", "socket.sendto"}}
    assert connected == {f"('127.0.0.1', {stage.lookalike.port})", f"('127.0.0.1', {stage.bao.port})"}
    assert {it[1] for it in did if it[0] == "socket.bind"} <= LISTENS
    assert {it[1] for it in did if it[0] == "subprocess.Popen"} == {"sh"}
    assert not [it for it in did if it[0] in {"os.system", "os.exec", "os.fork", "os.posix_spawn"}]
    assert [it.name for it in place.rglob("*")] == ["tmp"], "nothing where it ran, and no temporary file"


def test_what_it_leaves_behind(stage: Stage, place: Path, run: Callable[[Path, Sequence[str]], DaemonProcess]) -> None:
    """While it runs and once it was killed no secret is in arguments, environment, an open file, or a file it made."""
    config, secret_id = with_approle(stage, ["bookings", "signage"])
    daemon = run(config, [sys.executable, "-m", "aca_tokend"])
    daemon.wait_for("token_rotated", 4)
    assert_nothing_leaked(stage, daemon)
    assert secret_id not in of_process(daemon.process.pid, "cmdline", "environ")
    with contextlib.suppress(PermissionError):  # who has no CAP_SYS_PTRACE sees none
        wait_until(lambda: files_of(daemon.process.pid) == {"/dev/null", str(daemon.log)}, "a moment without a write")
    daemon.kill()

    assert [it.name for it in place.rglob("*")] == ["tmp"]
    published = {it for it in stage.file_of("bookings").parent.iterdir() if it.suffix == ".json"}
    for path in set(stage.file_of("bookings").parent.rglob("*")) - published:
        text = path.read_bytes().decode()
        # a document that was to be renamed when it was killed is one that would have been published
        assert path.suffix == ".tmp" or not [it for it in {*secrets_of(stage), secret_id} if it in text], path
    assert secret_id not in daemon.text


def files_of(pid: int) -> set[str]:
    """The files that a process has open, deleted ones among them."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed by now
            found.add(str(descriptor.readlink()))
    return {it for it in found if it.startswith("/")}


def look(pid: int) -> set[str]:
    """What somebody of the same user can read of a process."""
    probe = f"""
        import os
        for name in ("environ", "mem", "maps", "fd"):
            try:
                path = "/proc/{pid}/" + name
                [os.readlink(path + "/" + it) for it in os.listdir(path)] if name == "fd" else open(path, "rb").close()
                print(name)
            except OSError:
                pass
    """
    told = subprocess.run(
        [*PLAIN, sys.executable, "-c", textwrap.dedent(probe)], capture_output=True, text=True, check=True, timeout=120
    )
    return set(told.stdout.split())


def test_others_of_its_user(stage: Stage, run: Callable[[Path, Sequence[str]], DaemonProcess]) -> None:
    """A process of the same user, such as one that a hook starts, reads neither its memory nor its environment."""
    config = stage.config(["bookings"])
    daemon = run(config, [*PLAIN, sys.executable, "-m", "aca_tokend"])
    daemon.wait_for("token_rotated")
    assert look(daemon.process.pid) == set()

    command = [*PLAIN, sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert look(other.pid) >= {"environ", "maps", "fd"}, "as it could with a process like any other"
        other.kill()


@pytest.mark.parametrize("end", [signal.SIGABRT, signal.SIGSEGV], ids=["abort", "segv"])
def test_no_core_dump(
    stage: Stage, place: Path, run: Callable[[Path, Sequence[str]], DaemonProcess], end: signal.Signals
) -> None:
    """It dumps no core, not even where somebody lifts the limit again."""
    daemon = run(stage.config(["bookings"]), [sys.executable, "-m", "aca_tokend"])
    daemon.wait_for("token_rotated")
    pid = daemon.process.pid
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    with contextlib.suppress(PermissionError):  # who has no CAP_SYS_RESOURCE
        resource.prlimit(pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    os.kill(pid, end)

    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_KILLED, end), "os.CLD_DUMPED would be a core dump"
    assert [it.name for it in place.rglob("*")] == ["tmp"]


def copies(pid: int, values: Sequence[str]) -> int:
    """How often these stand in the memory of a process."""
    found = 0
    regions = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:  # noqa: PTH123 -- without a buffer
        for begin, end in (it[0].split("-") for it in regions if it[1].startswith("rw")):
            with contextlib.suppress(OSError):  # it is gone by now
                memory.seek(int(begin, 16))
                content = memory.read(int(end, 16) - int(begin, 16))
                found += sum(content.count(value.encode()) for value in values)
    return found


def test_memory_does_not_collect_passwords(
    stage: Stage, place: Path, run: Callable[[Path, Sequence[str]], DaemonProcess]
) -> None:
    """A password is in memory while it is sent; what is left of it afterwards does not grow with the rotations."""
    del place
    names = [f"token-{number:02}" for number in range(6)]
    stage.lookalike.levers(lifetime=3.0)
    config = stage.config(names)
    passwords = {name: f"canary-{name}-{number * 7919:08}" for number, name in enumerate(names)}
    stage.lookalike.levers(accounts={name: {"password": password} for name, password in passwords.items()})
    for name, password in passwords.items():
        stage.write_secret(f"{name}.password", Secret(password))
    stage.lookalike.fail("hang", on="token")
    daemon = run(config, [sys.executable, "-m", "aca_tokend"])
    wait_until(lambda: stage.lookalike.counts().in_flight > 0, "a grant under way")
    try:
        during = copies(daemon.process.pid, list(passwords.values()))
    except PermissionError:
        pytest.skip("only root, with CAP_SYS_PTRACE, can look into its memory")
    assert during > 0, "what is there is found"

    stage.lookalike.heal()
    daemon.wait_for("token_rotated", 6 * len(names))
    after = copies(daemon.process.pid, list(passwords.values()))
    print(f"copies of 6 passwords: {during} during, {after} after 36 rotations")
    assert after <= 3 * len(names), "not one for each rotation"


# A secret that was pasted in the place of what is none, where nothing can tell.
MISPLACED = "CanaryMisplaced-77b1"


def commands(config: Path) -> Iterator[str]:
    """What each command says of a configuration."""
    for call in (["check"], ["policy"], ["doctor"], ["doctor", "--json"], ["simulate", "--outage", "1h", "--json"]):
        said = subprocess.run(
            [sys.executable, "-m", "aca_tokend", *call, "--config", str(config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        yield said.stdout + said.stderr


def test_misplaced_secret(stage: Stage, run: Callable[[Path, Sequence[str]], DaemonProcess]) -> None:
    """A secret in the place of a client id, a hook's argument, a template's text or a query is shown by nobody."""
    config = stage.config(["bookings"])
    text = re.sub(r'client_id = ".*"', f'client_id = "{MISPLACED}"', config.read_text())
    text = text.replace("[[tokens.publish]]", f'verify = {{ path = "/api/me?key={MISPLACED}" }}\n[[tokens.publish]]', 1)
    text += f"""after = {{ command = ["false", "{MISPLACED}"] }}
[[tokens.publish]]
to = "file"
path = "{stage.directory}/published/words"
format = "template"
template = "{MISPLACED} {{{{ access_token }}}}"
"""
    config.write_text(text)
    daemon = run(config, [sys.executable, "-m", "aca_tokend"])
    daemon.wait_for("rotation_failed", 2, reason="invalid_client")
    stage.lookalike.levers(
        clients={MISPLACED: {"secret": stage.passwords.client_secret.reveal(), "scopes": ["public"]}}
    )
    os.kill(daemon.process.pid, signal.SIGHUP)
    stage.write_secret("client-secret", Secret("canary-another"))
    daemon.wait_for("rotation_failed", 3)

    pages = ("/", "/tokens/bookings", "/api/v1/status", "/api/v1/status/bookings", "/metrics", "/-/ready?verbose")
    for shown in (daemon.text, *(daemon.get(page)[1] for page in pages), *commands(config)):
        assert MISPLACED not in shown


def test_listener_repeats_nothing(stage: Stage, run: Callable[[Path, Sequence[str]], DaemonProcess]) -> None:
    """Whatever is asked of the admin listener, well or badly, neither an answer nor the log at debug repeats it."""
    daemon = run(stage.config(["bookings"]), [sys.executable, "-m", "aca_tokend"])
    port, canary = daemon.admin_port, "CanaryAsked-19d3"
    head = f"Host: localhost\r\nAuthorization: Bearer sent-{canary}\r\nCookie: a=sent-{canary}\r\nX-Id: sent-{canary}"
    paths = ["", "metrics", "-/ready", "api/v1/status", "tokens/", "api/v1/status/", "runbooks/", "static/", "../"]
    requests = [
        *(f"GET /{path}{tail} HTTP/1.1\r\n{head}\r\n\r\n" for path in paths for tail in (canary, f"?q={canary}&x=%00")),
        *(f"{method} /{canary} HTTP/1.1\r\n{head}\r\n\r\n" for method in ("POST", "TRACE", "CONNECT", canary)),
        f"GET http://{canary}/ HTTP/1.1\r\n{head}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {canary}\r\n\r\n",
        f"GET / {canary}\r\n\r\n",
        f"{canary}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{canary}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {canary}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {canary * 10_000}\r\n\r\n",
    ]
    for request in requests:
        with socket.create_connection(("127.0.0.1", port), 60) as client, contextlib.suppress(ConnectionError):
            client.sendall(request.encode())
            client.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda client=client: client.recv(65536), b""))  # type: ignore[misc]  # bound now
            # who searched, or asked for a token or a runbook that is not here, is shown the words that they used
            asked = request.startswith(("GET /?q=", "GET /tokens/", "GET /runbooks/"))
            assert asked or canary.encode() not in answer, request[:100]
            assert b"sent-" + canary.encode() not in answer, request[:100]
    assert daemon.get("/-/healthy")[0] == 200
    assert canary not in daemon.text
