"""Reload: what changed takes effect, what did not goes on undisturbed, and a bad file changes nothing."""

from __future__ import annotations

import json
import signal
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.demo.processes import LookAlike
from aca_tokend.demo.stage import CLIENT_ID, Settings, wait_until
from tests.integration.conftest import assert_nothing_leaked, open_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.demo.stage import DaemonProcess, Stage


@pytest.fixture
def long(stage: Stage) -> Iterator[Stage]:
    """A stage whose tokens live for ten minutes, so that no grant is made but for a reason."""
    stage.lookalike.levers(lifetime=600.0)
    yield stage
    assert not [line for line in (stage.directory / "daemon.log").read_text().splitlines() if '"critical"' in line]


def replace(path: Path, text: str) -> None:
    """Changes a file as careful programs do: a new one takes its place."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.rename(path)


def edited(config: Path, old: str, new: str) -> None:
    """Replaces a configuration by one in which something else stands."""
    text = config.read_text()
    assert old in text
    replace(config, text.replace(old, new))


def sighup(daemon: DaemonProcess) -> None:
    """Asks for a reload."""
    daemon.process.send_signal(signal.SIGHUP)


def schedule(daemon: DaemonProcess, *tokens: str) -> list[float]:
    """The rotation points of tokens."""
    return [daemon.metric("token_rotation_timestamp_seconds", token=token) for token in tokens]


def test_unchanged_tokens_go_on_undisturbed(long: Stage) -> None:
    """After a SIGHUP without a change and after a token was added, the others have their schedule and no new grant."""
    config = long.config(["bookings", "signage"])
    daemon = long.daemon(config)
    daemon.wait_for("token_rotated", 2)
    before = schedule(daemon, "bookings", "signage")

    sighup(daemon)
    daemon.wait_for("config_reloaded", added=0, changed=0, removed=0, unchanged=2)
    assert long.lookalike.counts().grants == 2

    long.config(["bookings", "signage", "rooms"])
    daemon.wait_for("config_reloaded", added=1, changed=0, removed=0, unchanged=2)
    daemon.wait_for("token_rotated", token="rooms")

    assert long.file_of("rooms").exists()
    assert long.lookalike.counts().grants == 3
    assert schedule(daemon, "bookings", "signage") == pytest.approx(before, abs=0.05)
    assert daemon.metric("config_last_reload_successful") == 1


def test_touched_file_is_no_change(long: Stage) -> None:
    """A file that was written again with the same content is read, and nothing is told or done."""
    config = long.config(["bookings"])
    daemon = long.daemon(config)
    daemon.wait_for("token_rotated")

    replace(config, config.read_text())
    replace(config, config.read_text() + "\n# a comment\n")
    sighup(daemon)
    daemon.wait_for("config_reloaded", unchanged=1)

    assert len(daemon.events("config_reloaded")) == 1
    assert long.lookalike.counts().grants == 1


class Mount:
    """A directory as Kubernetes mounts a ConfigMap: links into `..data`, which is swapped as a whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._versions = count()
        directory.mkdir()

    def swap(self, files: dict[str, str]) -> None:
        """Puts other content into place at one instant."""
        old = (self.directory / "..data").resolve()
        version = self.directory / f"..2026_{next(self._versions)}"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
            link = self.directory / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        (self.directory / "..data_tmp").symlink_to(version.name)
        (self.directory / "..data_tmp").rename(self.directory / "..data")
        if old.name.startswith("..2026"):
            for file in old.iterdir():
                file.unlink()
            old.rmdir()


def test_mounted_config_map(long: Stage) -> None:
    """The swap of `..data` in a mounted ConfigMap is taken up, each time, for the main file and an included one."""
    head, _, entry = long.config(["bookings"]).read_text().partition("[[tokens]]")
    head = 'include = ["tokens-*.toml"]\n' + head
    long.add_accounts(["signage", "rooms"])
    tokens = {name: "[[tokens]]" + entry.replace("bookings", name) for name in ("bookings", "signage", "rooms")}
    mount = Mount(long.directory / "mount")
    mount.swap({"config.toml": head + tokens["bookings"]})
    daemon = long.daemon(mount.directory / "config.toml")
    daemon.wait_for("token_rotated", token="bookings")

    mount.swap({"config.toml": head + tokens["bookings"], "tokens-1.toml": tokens["signage"]})
    daemon.wait_for("token_rotated", token="signage")
    mount.swap({"config.toml": head, "tokens-1.toml": tokens["rooms"] + tokens["bookings"]})
    daemon.wait_for("config_reloaded", added=1, changed=0, removed=1, unchanged=1)
    daemon.wait_for("token_rotated", token="rooms")

    assert long.lookalike.counts().grants == 3


def test_removed_token_leaves_its_published_token(long: Stage) -> None:
    """A token that left has no series any more; what it published works on, and is adopted if it comes back."""
    config = long.config(["bookings", "signage"])
    both = config.read_text()
    daemon = long.daemon(config)
    daemon.wait_for("token_rotated", 2)
    reader = long.file_reader("signage")

    replace(config, both.rpartition("[[tokens]]\nname")[0])
    daemon.wait_for("config_reloaded", removed=1, unchanged=1)
    wait_until(lambda: 'token="signage"' not in daemon.get("/metrics")[1], "series that vanished")
    accepted = reader.accepted
    wait_until(lambda: reader.accepted > accepted + 5, "a reader that is served")
    assert 'token="bookings"' in daemon.get("/metrics")[1]
    assert daemon.get("/-/healthy")[0] == 200

    replace(config, both)
    daemon.wait_for("token_adopted", token="signage")

    assert long.lookalike.counts().grants == 2
    assert reader.refused == 0, reader.last_refusal


def test_added_sink_is_filled_without_a_grant(long: Stage) -> None:
    """A new sink gets the token that is held; the schedule stays; a sink that left keeps what it holds."""
    config = long.config(["bookings"], Settings(files=False))
    daemon = long.daemon(config)
    daemon.wait_for("token_rotated")
    before = schedule(daemon, "bookings")

    long.config(["bookings"])
    daemon.wait_for("config_reloaded", changed=1)
    wait_until(long.file_of("bookings").exists, "the new sink filled")
    held = json.loads(long.file_of("bookings").read_text())["access_token"]
    kv = long.bao.client().secrets.kv.v2.read_secret_version("aca/bookings", raise_on_deleted_version=True)
    assert kv["data"]["data"]["access_token"] == held

    long.config(["bookings"], Settings(files=False))
    daemon.wait_for("config_reloaded", 2, changed=1)
    wait_until(lambda: "bookings.json" not in daemon.get("/metrics")[1], "series of the sink that left vanish")
    assert long.file_of("bookings").exists()
    assert schedule(daemon, "bookings") == pytest.approx(before, abs=0.05)
    assert long.lookalike.counts().grants == 1


def test_renamed_fields_are_written_at_once(long: Stage) -> None:
    """Another form of what a sink holds is written without a grant: what stands there was ours, and is replaced."""
    config = long.config(["bookings"], Settings(files=False))
    daemon = long.daemon(config)
    daemon.wait_for("token_rotated")

    edited(config, 'path = "aca/bookings"', 'path = "aca/bookings"\nfields = { access_token = "api_token" }')
    daemon.wait_for("config_reloaded", changed=1)
    daemon.wait_for("publish_written", 2)

    kv = long.bao.client().secrets.kv.v2.read_secret_version("aca/bookings", raise_on_deleted_version=True)
    assert "api_token" in kv["data"]["data"]
    assert "access_token" not in kv["data"]["data"]
    assert long.lookalike.counts().grants == 1


def test_changed_endpoint(long: Stage) -> None:
    """A server's limits change without a grant; another server is asked for tokens at once; its series follow."""
    config = long.config(["bookings"])
    daemon = long.daemon(config)
    daemon.wait_for("token_rotated")
    edited(config, 'timeout = "5s"\n[vault', 'timeout = "7s"\nmax_concurrency = 3\n[vault')
    daemon.wait_for("config_reloaded", changed=1)
    sighup(daemon)
    daemon.wait_for("config_reloaded", unchanged=1)
    assert long.lookalike.counts().grants == 1

    with LookAlike.start() as other:
        other.levers(
            lifetime=600.0,
            clients={CLIENT_ID: {"secret": long.passwords.client_secret.reveal(), "scopes": ["public"]}},
            accounts={"bookings": {"password": long.passwords.password.reveal()}},
        )
        text = config.read_text().replace("[acaengine.main]", "[acaengine.other]")
        replace(config, text.replace(long.lookalike.url, other.url))
        daemon.wait_for("token_rotated", 2, token="bookings")

        assert other.counts().grants == 1
        held = json.loads(long.file_of("bookings").read_text())
        kv = long.bao.client().secrets.kv.v2.read_secret_version("aca/bookings", raise_on_deleted_version=True)
        assert kv["data"]["data"]["access_token"] == held["access_token"]
        wait_until(lambda: 'endpoint="main"' not in daemon.get("/metrics")[1], "series of the old endpoint vanish")
        assert 'endpoint="other"' in daemon.get("/metrics")[1]
    assert long.lookalike.counts().grants == 1
    assert_nothing_leaked(long, daemon)


def test_changed_account_is_rotated_at_once(long: Stage) -> None:
    """Another user name leads to a grant at once, which replaces the token of the account before."""
    config = long.config(["bookings"])
    long.add_accounts(["svc-rooms"])
    daemon = long.daemon(config)
    daemon.wait_for("token_rotated")

    edited(config, 'username = "bookings"', 'username = "svc-rooms"')
    daemon.wait_for("token_rotated", 2)

    assert json.loads(long.file_of("bookings").read_text())["username"] == "svc-rooms"
    assert daemon.events("publish_failed") == []


def test_bad_file_changes_nothing(long: Stage) -> None:
    """A bad file is told with every problem and stays told in the metric; the tokens go on; a good one mends it."""
    config = long.config(["bookings"])
    good = config.read_text()
    daemon = long.daemon(config)
    daemon.wait_for("token_rotated")
    started = daemon.metric("config_last_reload_timestamp_seconds")
    before = schedule(daemon, "bookings")

    bad = good.replace('timeout = "5s"', 'timeot = "5s"').replace("authority =", "autority =")
    replace(config, 'include = ["more/*.toml"]\n' + bad)
    rejected = daemon.wait_for("config_rejected")

    assert len(rejected["problems"]) >= 3
    assert any("did you mean timeout?" in problem for problem in rejected["problems"])
    assert daemon.metric("config_last_reload_successful") == 0
    assert daemon.metric("config_last_reload_timestamp_seconds") == started
    assert schedule(daemon, "bookings") == pytest.approx(before, abs=0.05)
    assert daemon.get("/-/healthy")[0] == 200

    (long.directory / "unrelated.txt").write_text("something else happens in the folder")
    sighup(daemon)
    daemon.wait_for("config_rejected", 2)
    assert daemon.metric("config_last_reload_successful") == 0

    replace(config, good)
    daemon.wait_for("config_reloaded", added=0, changed=0, removed=0, unchanged=1)
    assert daemon.metric("config_last_reload_successful") == 1
    assert daemon.metric("config_last_reload_timestamp_seconds") > started
    assert long.lookalike.counts().grants == 1


def test_what_needs_a_restart_is_told(long: Stage) -> None:
    """Another address of the pages is told and not taken up; another level of the log takes effect."""
    config = long.config(["bookings"])
    daemon = long.daemon(config)
    daemon.wait_for("token_rotated")
    edited(config, 'listen = "127.0.0.1:0"', 'listen = "127.0.0.1:1"\nshow_usernames = false')
    assert daemon.wait_for("config_needs_restart")["keys"] == ["admin.listen", "admin.show_usernames"]
    daemon.wait_for("config_reloaded", unchanged=1)
    assert daemon.get("/-/healthy")[0] == 200

    edited(config, 'level = "debug"', 'level = "warning"')
    daemon.wait_for("config_needs_restart", 2)
    sighup(daemon)
    daemon.wait_for("config_needs_restart", 3)
    assert len(daemon.events("config_reloaded")) == 1, "INFO is no longer written"


def test_attempt_under_way_is_neither_doubled_nor_disturbed(long: Stage) -> None:
    """A token changed while its grant is under way finishes it first, and takes its new configuration over then."""
    long.lookalike.levers(latency=2.0)
    config = long.config(["bookings"], Settings(files=False))
    daemon = long.daemon(config)
    wait_until(lambda: long.lookalike.counts().in_flight == 1, "a grant under way")

    for number in range(3):
        long.config(["bookings"], Settings(rotation=f'min_interval = "{number + 2}s"'))
        sighup(daemon)
        daemon.wait_for("config_reloaded", number + 1, changed=1)
    daemon.wait_for("token_rotated")
    wait_until(long.file_of("bookings").exists, "the new sink filled")

    assert long.lookalike.counts().grants == 1
    assert len(daemon.events("token_rotated")) == 1


def resources(daemon: DaemonProcess) -> tuple[int, int]:
    """How many threads and open files a daemon has."""
    threads = Path(f"/proc/{daemon.process.pid}/task")
    return len(list(threads.iterdir())), open_files(daemon.process.pid)


def test_burst_of_reloads(stage: Stage) -> None:
    """While short tokens are rotated, twenty reloads of everything at once meet no reader and leave nothing behind."""
    names = ["bookings", "signage", "rooms"]
    rotation = 'min_interval = "1s"\nfraction = 0.5'
    config = stage.config(names, Settings(rotation=rotation))
    base = config.read_text().replace("[[tokens]]\n", '[[tokens]]\nacaengine = "main"\n')
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated", 3)
    readers = [stage.file_reader("bookings"), stage.vault_reader("signage"), stage.vault_reader("rooms")]

    def reload(number: int) -> None:
        """Changes every endpoint, Vault and token, and which further endpoint and pool there is."""
        size = f"max_concurrency = {2 + number % 3}"
        text = base.replace(rotation, f"{rotation}\nmax_rejections = {2 + number % 2}")
        text = text.replace(
            "[vault.main]\n", f"{size}\n[acaengine.e{number % 4}]\nurl = 'http://127.0.0.1:9'\n[vault.main]\n{size}\n"
        )
        before = len(daemon.events("config_reloaded"))
        replace(config, text)
        sighup(daemon)
        daemon.wait_for("config_reloaded", before + 1)

    for number in range(8):
        reload(number)
    wait_until(lambda: resources(daemon)[0] < 40, "threads that ended")
    threads, files = resources(daemon)
    for number in range(8, 28):
        reload(number)
    tokens = [reader.tokens for reader in readers]
    wait_until(lambda: all(reader.tokens >= was + 2 for reader, was in zip(readers, tokens, strict=True)), "rotations")

    wait_until(lambda: resources(daemon)[0] <= threads + 3, f"about {threads} threads")
    # up to four connections to each of two servers may be open now, and none may have been then; a file that each
    # reload left behind would make twenty
    wait_until(lambda: resources(daemon)[1] <= files + 10, f"about {files} open files")
    for reader in readers:
        assert reader.refused == 0, reader.last_refusal
    assert daemon.events("config_rejected") == []
    assert daemon.get("/-/healthy")[0] == 200
    assert_nothing_leaked(stage, daemon)
    assert daemon.terminate() == 0
