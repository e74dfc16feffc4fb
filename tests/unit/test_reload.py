"""The files of the configuration, read again: what is told of them, and what of them takes effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aca_tokend.config.files import load
from aca_tokend.reload import Source

if TYPE_CHECKING:
    from pathlib import Path


class Told:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **keys: Any) -> None:  # noqa: ANN401 -- whatever the line says
        self.lines.append((event, keys))

    warning = error


MAIN = """
include = ["more/*.toml"]
[acaengine.main]
url = "https://aca.example.com"
[[tokens]]
name = "bookings"
authority = "authority-1"
username = "svc-bookings"
password = { env = "PASSWORD" }
client_id = "client-1"
client_secret = { env = "CLIENT_SECRET" }
publish = [{ to = "file", path = "/run/aca/bookings.json" }]
"""


class Files:
    """A configuration in files, and what reading it again told."""

    def __init__(self, folder: Path, text: str = MAIN) -> None:
        self.main = folder / "config.toml"
        self.main.write_text(text)
        loaded = load(self.main)
        self.told, self.observed = Told(), list[bool]()
        self.source = Source(self.main, loaded, self.told, self.observed.append)


def test_source_that_says_the_same(tmp_path: Path) -> None:
    """Files that say the same are no change, unless somebody asked for an answer."""
    files = Files(tmp_path)
    files.main.write_text(MAIN + "# a comment\n")

    assert files.source.read(asked=False) is None
    assert files.observed == []
    assert files.source.read(asked=True) is not None
    assert files.told.lines == []


def test_source_keeps_the_tokens_that_are_as_before(tmp_path: Path) -> None:
    """A token that is as before stays the same object, whatever else changed, so that none is in memory twice."""
    files = Files(tmp_path)
    (bookings,) = files.source.running.tokens
    entry = MAIN[MAIN.index("[[tokens]]") :]
    head = MAIN.removesuffix(entry).replace('com"', 'com"\nmax_concurrency = 3')
    files.main.write_text(head + entry.replace("bookings", "parking") + entry)

    read = files.source.read(asked=False)

    assert read is not None
    assert [token.name for token in read.tokens] == ["parking", "bookings"]
    assert read.tokens[1] is bookings
    assert files.source.written.tokens[1] is bookings
    files.main.write_text(MAIN.replace("svc-bookings", "svc-other"))
    read = files.source.read(asked=False)
    assert read is not None
    assert read.tokens[0].username == "svc-other"


def test_source_that_is_wrong(tmp_path: Path) -> None:
    """A wrong file is told once, and again when asked; the good one that follows counts even if it says the same."""
    files = Files(tmp_path)
    files.main.write_text(MAIN.replace("authority", "autority").replace("more/", "others/"))

    assert files.source.read(asked=False) is None
    assert files.source.read(asked=False) is None
    assert len(files.told.lines) == 1
    assert files.source.read(asked=True) is None
    assert [event for event, _ in files.told.lines] == ["config_rejected"] * 2
    assert any("did you mean authority?" in problem for problem in files.told.lines[0][1]["problems"])
    assert set(files.source.include) == {"more/*.toml", "others/*.toml"}, "what is fixed may be in either"

    files.main.write_text(MAIN)
    assert files.source.read(asked=False) is not None
    assert files.observed == [False, False, False, True]
    assert files.source.include == ("more/*.toml",)


def test_source_keeps_what_needs_a_restart(tmp_path: Path) -> None:
    """What only a restart changes is told each time and stays; the rest of the file takes effect."""
    files = Files(tmp_path)
    files.main.write_text(f'{MAIN}[admin]\nlisten = "127.0.0.1:1"\n[log]\nlevel = "debug"\nformat = "json"\n')

    read = files.source.read(asked=False)

    assert read is not None
    assert (read.admin.listen, read.log.level, read.log.format) == ("127.0.0.1:9464", "debug", "auto")
    assert files.told.lines == [("config_needs_restart", {"keys": ["admin.listen", "log.format"]})]
    assert files.source.read(asked=False) is None
    files.source.read(asked=True)
    assert len(files.told.lines) == 2


def test_source_keeps_the_number_of_its_shard(tmp_path: Path) -> None:
    """How many shards there are may change while it runs; which of them this is takes a restart."""
    files = Files(tmp_path)
    files.main.write_text(f"{MAIN}[shard]\ncount = 2\nindex = 1\n")
    read = files.source.read(asked=False)
    assert read is not None
    assert read.shard is None
    assert files.told.lines == [("config_needs_restart", {"keys": ["shard.index"]})]

    sharded = Files(tmp_path, f"{MAIN}[shard]\ncount = 2\nindex = 1\n")
    sharded.main.write_text(f"{MAIN}[shard]\ncount = 3\nindex = 1\n")
    read = sharded.source.read(asked=False)
    assert read is not None
    assert read.shard is not None
    assert (read.shard.count, read.shard.index, sharded.told.lines) == (3, 1, [])
