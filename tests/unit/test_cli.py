"""The command line: what is called, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
[acaengine.main]
url = "https://aca.example.com"
[[tokens]]
name = "bookings"
authority = "authority-1"
username = "svc-bookings"
password = { env = "PASSWORD" }
client_id = "client-1"
client_secret = { env = "CLIENT_SECRET" }
[[tokens.publish]]
to = "file"
path = "/run/aca/bookings.json"
"""


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One call of the program, as a process of its own."""
    command = [sys.executable, "-m", "aca_tokend", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that is well."""
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


def test_help_names_every_command() -> None:
    """`--help` lists the commands, and needs none of the libraries that the daemon needs."""
    result = call("--help")

    assert result.returncode == 0
    for command in ("run", "check", "status", "schema", "doctor", "policy", "demo"):
        assert command in result.stdout


def test_help_imports_little() -> None:
    """The command line loads neither a server nor a client library before a command needs it."""
    code = "import sys, aca_tokend.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"httpx", "hvac", "flask", "pydantic", "apscheduler", "structlog", "prometheus_client"} & set(loaded)


def test_version() -> None:
    """`--version` prints the version alone."""
    from aca_tokend import __version__

    assert call("--version").stdout == f"{__version__}\n"


def test_check_of_a_good_file(config: Path) -> None:
    """`check` says that the file is well and how many tokens it has, and exits 0 without any secret being there."""
    result = call("check", "--config", str(config))

    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{config}: well, 1 token\n"


def test_check_of_a_bad_file(config: Path) -> None:
    """`check` tells every problem with its place and fix, on standard error, and exits 2."""
    config.write_text(CONFIG.replace("username", "user_name").replace("https", "http"))

    result = call("check", "--config", str(config))

    assert result.returncode == 2
    assert result.stdout == ""
    assert "acaengine.main.url" in result.stderr
    assert "did you mean" in result.stderr


def test_configuration_named_by_the_environment(config: Path) -> None:
    """Without --config the file is the one that ACA_TOKEND_CONFIG names."""
    assert call("check", ACA_TOKEND_CONFIG=str(config)).returncode == 0


def test_configuration_that_is_missing() -> None:
    """Without any of both the file is the one in /etc, and its absence is said with a way out."""
    result = call("check", "--config", "/nonexistent/config.toml")

    assert result.returncode == 2
    assert "/nonexistent/config.toml" in result.stderr


def test_schema_is_json_schema() -> None:
    """`schema` prints a JSON Schema that names the tables of the file."""
    schema = json.loads(call("schema").stdout)

    assert {"acaengine", "vault", "tokens", "rotation", "admin", "log", "include"} <= set(schema["properties"])


REFUSED = '{"f": {"proven": false, "spent": 2, "reserved": false, "reason": "invalid_grant"}}'


def several(directory: Path) -> Path:
    """A configuration of two tokens of one account, the first in two places, and one of another account."""
    head, entry = CONFIG.replace("/run/aca", str(directory)).split("[[tokens]]")
    copy = f'[[tokens.publish]]\nto = "file"\npath = "{directory}/copy/bookings.json"\n'
    same, other = (entry.replace("bookings.json", f"{name}.json") for name in ("foyer", "signage"))
    same, other = same.replace('"bookings"', '"foyer"'), other.replace("bookings", "signage")
    path = directory / "config.toml"
    path.write_text("[[tokens]]".join((head, entry + copy, same, other)))
    return path


def test_resume_clears_every_record_of_the_account(tmp_path: Path) -> None:
    """`resume` leaves an empty record at every place of every token of the account, says so, and needs no daemon."""
    (tmp_path / "copy").mkdir()
    for name in ("bookings", "signage"):
        (tmp_path / f".{name}.json.attempts").write_text(REFUSED)

    result = call("resume", "bookings", "--config", str(several(tmp_path)))

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"file:{tmp_path}/bookings.json: attempts cleared",
        f"file:{tmp_path}/copy/bookings.json: attempts was clear already",
        f"file:{tmp_path}/foyer.json: attempts was clear already",
        "bookings: a running daemon goes on with it within a minute",
    ]
    for name in (".bookings.json", "copy/.bookings.json", ".foyer.json"):
        assert json.loads((tmp_path / f"{name}.attempts").read_text()) == {}
    assert (tmp_path / ".signage.json.attempts").read_text() == REFUSED


def test_resume_goes_on_past_a_place_that_fails(tmp_path: Path) -> None:
    """`resume` clears what it can, says on standard error what it could not, and exits 1."""
    (tmp_path / ".foyer.json.attempts").write_text(REFUSED)

    result = call("resume", "bookings", "--config", str(several(tmp_path)))

    assert result.returncode == 1
    assert f"file:{tmp_path}/foyer.json: attempts cleared" in result.stdout
    assert json.loads((tmp_path / ".foyer.json.attempts").read_text()) == {}
    (problem,) = result.stderr.splitlines()
    assert problem.startswith(f"file:{tmp_path}/copy/bookings.json: attempts not cleared: ")
    assert "goes on" not in result.stdout


def test_shards_in_check_and_resume(tmp_path: Path) -> None:
    """`check` counts the tokens of each shard; `resume` clears the records of an account in all of them."""
    head, entry = CONFIG.split("[[tokens]]")
    tokens = "".join(
        "[[tokens]]" + entry.replace('"bookings"', f'"{name}"').replace("/run/aca/bookings", f"{tmp_path}/{name}")
        for name in ("rooms-7", "b", "signage", "bookings")  # in shards 0, 3, 2 and 0 of 4
    )
    path = tmp_path / "config.toml"
    path.write_text(f"{head}[shard]\ncount = 4\nindex = 0\n{tokens}")

    assert call("check", "--config", str(path)).stdout == f"{path}: well, 4 tokens in 4 shards of 0 to 2\n"
    cleared = call("resume", "b", "--config", str(path)).stdout
    assert all(f"file:{tmp_path}/{name}.json: attempts" in cleared for name in ("rooms-7", "b", "signage", "bookings"))


@pytest.mark.parametrize("arguments", [("resume", "booking"), ("policy", "--reader", "booking")])
def test_unknown_token(config: Path, arguments: tuple[str, ...]) -> None:
    """A token that is not configured is refused with exit code 2, and the nearest one is named."""
    result = call(*arguments, "--config", str(config))

    assert result.returncode == 2
    assert "there is no token 'booking' in this configuration; did you mean bookings?" in result.stderr


def test_resume_where_the_record_cannot_be_written(config: Path) -> None:
    """`resume` exits 1 and says which place it cannot reach."""
    config.write_text(CONFIG.replace("/run/aca", "/nonexistent"))

    result = call("resume", "bookings", "--config", str(config))

    assert result.returncode == 1
    assert "/nonexistent/bookings.json" in result.stderr


def test_simulate_tells_whether_readers_notice(config: Path) -> None:
    """`simulate` exits 0 where no reader would be refused, 1 where some would, and needs neither server nor secret."""
    survived = call("simulate", "--config", str(config), "--outage", "20m", "--for", "12h", "--json")
    missed = call("simulate", "--config", str(config), "--outage", "5h", "--for", "12h")

    assert survived.returncode == 0, survived.stderr
    assert json.loads(survived.stdout)["well"]
    assert missed.returncode == 1
    assert "bookings" in missed.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("simulate", "--outage", "5h"), 1, "─"),
        (("doctor",), 1, "→"),
        (("status", "--url", "http://127.0.0.1:9"), 2, "http://127.0.0.1:9"),
    ],
)
def test_pictures_need_no_locale(config: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    """Where the locale knows ASCII alone, what a command shows is UTF-8, and its exit code is the same."""
    config.write_text(NOWHERE)
    ascii_alone = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "aca_tokend", *arguments]
    if arguments[0] != "status":
        command += ["--config", str(config)]

    result = subprocess.run(command, capture_output=True, env=ascii_alone, check=False, timeout=120)

    assert said in (result.stdout + result.stderr).decode("utf-8")
    assert result.returncode == code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--outage", "soon"), "--outage: 'soon'"),
        (("--outage", "1h", "--at", "25:00"), "--at: '25:00' is not a time of day"),
        (("--outage", "1h", "--endpoint", "other"), "there is no [acaengine.other]; there is main"),
    ],
)
def test_simulate_of_what_cannot_be(config: Path, arguments: tuple[str, ...], said: str) -> None:
    """`simulate` refuses what it cannot simulate, with the option and what would be right, and exits 2."""
    result = call("simulate", "--config", str(config), *arguments)

    assert result.returncode == 2
    assert said in result.stderr


NOWHERE = CONFIG.replace("https://aca.example.com", "http://127.0.0.1:9")


def test_doctor_tells_what_fails(tmp_path: Path) -> None:
    """`doctor` exits 1 where something fails, says how to mend it, and shows no secret that resolves."""
    path = tmp_path / "config.toml"
    path.write_text(NOWHERE.replace("/run/aca", str(tmp_path)))

    result = call("doctor", "--config", str(path), PASSWORD="canary-password-8c1e", COLUMNS="100")

    assert result.returncode == 1, result.stderr
    assert "env CLIENT_SECRET" in result.stdout
    assert "→ create what the reference names" in result.stdout
    assert "nothing answers at this address" in result.stdout
    assert "Traceback" not in result.stderr
    assert "canary-password" not in result.stdout + result.stderr


def test_doctor_as_json(tmp_path: Path) -> None:
    """`doctor --json` prints one JSON object to standard output, and its progress elsewhere."""
    path = tmp_path / "config.toml"
    path.write_text(NOWHERE.replace("/run/aca", str(tmp_path)))

    result = call("doctor", "--json", "--config", str(path), PASSWORD="p", CLIENT_SECRET="s")
    report = json.loads(result.stdout)

    assert (result.returncode, report["well"]) == (1, False)
    assert [row["check"] for row in report["checks"] if row["status"] == "failed"] == ["connection"]
    assert "checks" in result.stderr


@pytest.mark.parametrize("command", ["doctor", "policy"])
def test_help_of_a_command_reads_nothing(config: Path, command: str) -> None:
    """`--help` shows options, and neither what the configuration says nor what the environment holds."""
    environment = {"PASSWORD": "canary-password-8c1e", "ACA_TOKEND_CONFIG": str(config), "COLUMNS": "200"}

    result = call(command, "--help", **environment)

    assert result.returncode == 0
    assert "--config" in result.stdout
    assert "canary" not in result.stdout
    assert "bookings" not in result.stdout


def test_doctor_of_a_bad_file(config: Path) -> None:
    """`doctor` of a wrong configuration exits 2 and examines nothing."""
    config.write_text(CONFIG.replace("username", "user_name"))

    result = call("doctor", "--config", str(config))

    assert (result.returncode, result.stdout) == (2, "")
    assert "did you mean" in result.stderr


VAULT = """
[[tokens.publish]]
to = "vault"
mount = "secret"
path = "aca/bookings"
[vault.main]
address = "https://vault.example.com:8200"
auth = { method = "token", token = { env = "VAULT_TOKEN" } }
"""


def test_policy_prints_what_can_be_written_to_vault(config: Path) -> None:
    """`policy` prints HCL alone, needs neither server nor secret, and exits 0."""
    config.write_text(CONFIG + VAULT)

    daemon, reader = (call("policy", "--config", str(config), *more) for more in ((), ("--reader", "bookings")))

    assert daemon.returncode == reader.returncode == 0, daemon.stderr
    assert '{ capabilities = ["create", "read", "update"] }' in daemon.stdout
    assert 'path "secret/data/aca/bookings" { capabilities = ["read"] }' in reader.stdout
    assert all(line.startswith(("#", "path ")) for line in daemon.stdout.splitlines() if line)


def test_policy_that_there_is_none(config: Path) -> None:
    """`policy` without any Vault, or with an unknown name, exits 2 and says what there is."""
    without = call("policy", "--config", str(config))
    config.write_text(CONFIG + VAULT)
    unknown = call("policy", "--config", str(config), "--vault", "mian")

    assert without.returncode == unknown.returncode == 2
    assert "has no [vault.NAME]" in without.stderr
    assert "there is main" in unknown.stderr


def test_unknown_command() -> None:
    """A call that is wrong exits 2 with a usage message."""
    result = call("rotate")

    assert result.returncode == 2
    assert "No such command" in result.stderr


def test_unknown_log_format(config: Path) -> None:
    """A log format that does not exist is refused by name."""
    result = call("run", "--config", str(config), "--log-format", "xml")

    assert result.returncode == 2
    assert "--log-format" in result.stderr


def test_daemon_loads_nothing_for_terminals(config: Path) -> None:
    """`run` does without what structlog and httpx load for terminals, and `run --once` works all the same."""
    path = config.with_name("local.toml")
    local = CONFIG.replace("https://aca.example.com", "http://127.0.0.1:1").replace("/run/aca", str(config.parent))
    path.write_text(local)

    result = call("run", "--once", "--config", str(path), PYTHONPROFILEIMPORTTIME="1")

    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert result.returncode == 1
    assert {"httpx", "structlog", "aca_tokend.daemon"} <= loaded
    # not the packages' own names, which are told of imports that fail too
    assert not [name for name in loaded if name.startswith(("rich.", "click.", "pygments."))]
