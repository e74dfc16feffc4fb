"""A token is held up only by what is its own: by no place, Vault, file system or secret of another token."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.secret import Secret
from aca_tokend.demo.reader import read_file
from aca_tokend.demo.stage import Passwords, Stage, wait_until
from tests.integration import scenes
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, assert_nothing_leaked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aca_tokend.demo.reader import Reader

INSIDE = Path(__file__).parent / "inside"
OTHERS = ("rooms", "signage")
# Liveness calls nothing stuck before a minute is over.
HUNG_SECONDS = 66.0
# As many threads as a pool has, and one more token than that.
POOL_SIZE = 8


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The servers, with tokens of 20 seconds and canaries for secrets."""
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with Stage(tmp_path, lifetime=scenes.LIFETIME, passwords=passwords) as stage:
        yield stage


def folder(stage: Stage, name: str) -> Path:
    """The folder of one token's file alone."""
    path = stage.directory / name
    path.mkdir(exist_ok=True)
    return path


def file_of(stage: Stage, name: str) -> Path:
    """A token's file in a folder of its own."""
    return folder(stage, name) / "token.json"


def file_place(stage: Stage, name: str) -> str:
    """That file as a place to publish to."""
    return scenes.to_file(file_of(stage, name))


def file_reader(stage: Stage, name: str) -> Reader:
    """A reader of that file."""
    return stage.reader(f"file {name}", read_file(file_of(stage, name)))


class Hang:
    """A folder whose file system hangs for the daemons that get `environment`, for as long as this says."""

    def __init__(self, directory: Path, folder: Path) -> None:
        self._flag = directory / "hangs"
        self.environment: Mapping[str, str] = {
            "PYTHONPATH": str(INSIDE),
            "HANGING_FOLDER": str(folder),
            "HANGING_FLAG": str(self._flag),
        }

    def begin(self) -> None:
        """From now on whatever opens something there waits."""
        self._flag.touch()

    def end(self) -> None:
        """All that waits goes on."""
        self._flag.unlink()


# ── a place that is gone ──────────────────────────────────────────────────────────────────────────────────────────────


def take_away(stage: Stage, trouble: str) -> None:
    """Brings trouble over the place of the token `bad` alone."""
    if trouble == "directory missing":
        folder(stage, "bad").rename(stage.directory / "elsewhere")
    else:
        stage.bao.seal()


def give_back(stage: Stage, trouble: str) -> None:
    """Ends that trouble."""
    if trouble == "directory missing":
        (stage.directory / "elsewhere").rename(stage.directory / "bad")
    else:
        stage.bao.unseal()


@pytest.mark.parametrize(
    ("trouble", "after_a_restart"),
    [
        ("directory missing", False),
        ("directory missing", True),
        ("Vault sealed", False),
        ("Vault sealed", True),
    ],
)
def test_first_token_without_its_place(stage: Stage, trouble: str, after_a_restart: bool) -> None:
    """Tokens of the same client are published and never refused while the first one's only place is gone."""
    place = file_place(stage, "bad") if trouble == "directory missing" else scenes.to_vault("bad")
    tokens = [scenes.token(stage, name, file_place(stage, name)) for name in OTHERS]
    config = scenes.configure(stage, scenes.token(stage, "bad", place), *tokens)
    readers = [file_reader(stage, name) for name in OTHERS]
    if after_a_restart:
        daemon = stage.daemon(config)
        daemon.wait_for("token_rotated", 3)
        assert daemon.terminate() == 0
    granted = stage.lookalike.counts().grants_by_username.get("bad", 0)
    take_away(stage, trouble)

    daemon = stage.daemon(config)

    scenes.assert_served(readers, tokens=3)
    assert stage.lookalike.counts().grants_by_username.get("bad", 0) == granted, "a grant for no place to publish to"
    give_back(stage, trouble)
    daemon.wait_for("token_rotated", token="bad")
    scenes.assert_never_refused(readers)
    assert stage.lookalike.counts().refused == {}
    assert_nothing_leaked(stage, daemon)


# ── a file system that hangs ──────────────────────────────────────────────────────────────────────────────────────────


def hanging(stage: Stage) -> tuple[Path, Hang, list[Reader]]:
    """A token `bad` whose first place will hang and whose second will not, and another token beside it."""
    config = scenes.configure(
        stage,
        scenes.token(stage, "bad", file_place(stage, "bad"), scenes.to_vault("bad")),
        scenes.token(stage, "rooms", file_place(stage, "rooms")),
    )
    readers = [stage.vault_reader("bad"), file_reader(stage, "rooms")]
    return config, Hang(stage.directory, folder(stage, "bad")), readers


@pytest.mark.parametrize("after_a_restart", [False, True])
def test_place_that_hangs(stage: Stage, after_a_restart: bool) -> None:
    """While one place of a token hangs, its other place and other tokens are served; then the place is, too."""
    config, hang, readers = hanging(stage)
    daemon = stage.daemon(config, environment=hang.environment)
    daemon.wait_for("token_rotated", 2)
    if after_a_restart:
        daemon.kill()
        hang.begin()
        daemon = stage.daemon(config, environment=hang.environment)
    else:
        hang.begin()

    scenes.assert_served(readers, tokens=2)
    assert daemon.get("/-/healthy")[0] == 200

    hang.end()
    wait_until(lambda: read_file(file_of(stage, "bad"))() == readers[0].document, "the same token in both places")
    scenes.assert_served([*readers, file_reader(stage, "bad")], tokens=1)
    assert_nothing_leaked(stage, daemon)


def test_secrets_that_hang(stage: Stage) -> None:
    """While the secret files of nine tokens hang, another token of their endpoint is granted; then they are, too."""
    secrets = folder(stage, "mounted")
    hang = Hang(stage.directory, secrets)
    stuck = [f"stuck-{number}" for number in range(POOL_SIZE + 1)]
    # its own secrets are on no file system at all
    away = {"password": '{ env = "ROOMS_PASSWORD" }', "client_secret": '{ env = "CLIENT_SECRET" }'}
    parts = [
        scenes.token(
            stage,
            name,
            file_place(stage, name),
            password=f'{{ file = "{secrets}/{name}.password" }}',
            client_secret=away["client_secret"],
        )
        for name in stuck
    ]
    for name in stuck:
        (stage.directory / f"{name}.password").rename(secrets / f"{name}.password")
    config = scenes.configure(stage, *parts, scenes.token(stage, "rooms", file_place(stage, "rooms"), **away))
    reader = file_reader(stage, "rooms")
    hang.begin()
    environment = {**hang.environment, "ROOMS_PASSWORD": CANARY_PASSWORD, "CLIENT_SECRET": CANARY_CLIENT_SECRET}

    daemon = stage.daemon(config, environment=environment)

    scenes.assert_served([reader], tokens=3)
    assert daemon.get("/-/healthy")[0] == 200
    hang.end()
    for name in stuck:
        daemon.wait_for("token_rotated", token=name)
    scenes.assert_never_refused([reader])
    assert stage.lookalike.counts().refused == {}


@pytest.mark.timeout(300)
def test_liveness_while_a_file_system_hangs(stage: Stage) -> None:
    """A file system that hangs for more than a minute fails no liveness probe: a restart would meet it again."""
    config, hang, readers = hanging(stage)
    daemon = stage.daemon(config, environment=hang.environment)
    daemon.wait_for("token_rotated", 2)
    hang.begin()
    began = time.monotonic()
    probes: list[tuple[int, str]] = []

    def over() -> bool:
        probes.append(daemon.get("/-/healthy"))
        return probes[-1][0] != 200 or time.monotonic() > began + HUNG_SECONDS

    wait_until(over, "more than a minute", 2 * HUNG_SECONDS)

    assert probes[-1][0] == 200, probes[-1][1]
    scenes.assert_served(readers, tokens=1)
    hang.end()
    wait_until(lambda: read_file(file_of(stage, "bad"))() == readers[0].document, "the same token in both places")
