"""The directory sink: files that are swapped as one, as Kubernetes does it, and what it leaves alone."""

from __future__ import annotations

import errno
import os
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import DirectoryPublish, FormatConfig
from aca_tokend.core.errors import LookError, PublishError
from aca_tokend.core.outcome import Reason
from aca_tokend.sinks import DirectorySink, clean_up
from tests.unit.file_writer import CANARY, document

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = {"token": FormatConfig(format="token"), "app.env": FormatConfig(format="env")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The directory: empty yet."""
    path = tmp_path / "bookings"
    path.mkdir()
    return path


def sink_at(path: Path, files: Mapping[str, FormatConfig] = FILES, **config: Any) -> DirectorySink:  # noqa: ANN401
    return DirectorySink(DirectoryPublish(path=str(path), files=dict(files), **config))


def names(path: Path) -> set[str]:
    """What is in the directory, but for its folders."""
    return {entry.name for entry in path.iterdir() if entry.is_symlink() or not entry.is_dir()}


def folders(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir() if not entry.is_symlink() and entry.is_dir()}


def assert_hidden(error: BaseException) -> None:
    assert CANARY not in str(error) + repr(error) + "".join(traceback.format_exception(error))


def test_layout(path: Path) -> None:
    """Each name is a link through ..data into a folder, and a name opened as ever has the token."""
    sink = sink_at(path, mode=0o604)
    sink.publish(document(1), sink.look())
    assert names(path) == {"token", "app.env", "..data", ".lock"}
    assert (path / "token").readlink() == Path("..data/token")
    (folder,) = folders(path)
    assert (path / "..data").readlink().name == folder
    assert (path / "token").read_text("utf-8") == f"{CANARY}-1"
    modes = {entry.name: entry.stat().st_mode & 0o7777 for entry in (path / folder).iterdir()}
    assert modes == {"token": 0o604, "app.env": 0o604, ".document.json": 0o600}
    assert (path / folder).stat().st_mode & 0o7777 == 0o755


def test_folder_before_stays_until_the_next_swap(path: Path) -> None:
    """Who opened ..data before a swap finds its files of one token; after another swap the folder is gone."""
    sink = sink_at(path)
    seen = sink.publish(document(1), sink.look())
    opened = os.open(path / "..data", os.O_DIRECTORY)
    try:
        seen = sink.publish(document(2), seen)
        for name in FILES:
            file = os.open(name, os.O_RDONLY, dir_fd=opened)
            with os.fdopen(file) as stream:
                assert f"{CANARY}-1" in stream.read()
        sink.publish(document(3), seen)
        assert os.listdir(opened) == []  # noqa: PTH208
    finally:
        os.close(opened)
    assert len(folders(path)) == 2


def test_power_cut_leaves_no_link_to_what_is_not_on_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file, their folder and its name are on disk before `..data` leads there, and the swap is afterwards."""
    sink = sink_at(path)
    seen = sink.publish(document(1), sink.look())
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(file: int) -> None:
        steps.append(Path(f"/proc/self/fd/{file}").readlink().name)
        fsync(file)

    def renamed(source: str, target: str, **directories: int) -> None:
        steps.append(f"swap {target}")
        rename(source, target, **directories)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    sink.publish(document(2), seen)

    folder = (path / "..data").readlink().name
    swap = steps.index("swap ..data")
    assert sorted(steps[: swap - 2]) == [".document.json", "app.env", "token"]
    assert steps[swap - 2 :] == [folder, "bookings", "swap ..data", "bookings"]


def test_names_follow_the_configuration(path: Path) -> None:
    """After a restart with other files the document is known, due to be written anew, and a name that left is gone."""
    sink = sink_at(path)
    sink.publish(document(1), sink.look())
    sink = sink_at(path, {"token": FormatConfig(format="header"), "all.json": FormatConfig()})
    seen = sink.look()
    assert (seen.document, seen.outdated) == (document(1), True)
    assert not sink.publish(document(1), seen).outdated
    assert not sink.look().outdated
    assert names(path) == {"token", "all.json", "..data", ".lock"}
    assert (path / "token").read_text("utf-8").startswith("Authorization: Bearer ")


@pytest.mark.parametrize("damage", ["edited", "removed", "unlinked"])
def test_damage_is_mended(path: Path, damage: str) -> None:
    """A file that was changed or removed, and a name that is gone, are noticed by the next look and written anew."""
    sink = sink_at(path)
    before = sink.publish(document(1), sink.look())
    match damage:
        case "edited":
            (path / "token").write_text("else")
        case "removed":
            (path / "token").resolve().unlink()
        case _:
            (path / "token").unlink()
    seen = sink.look()
    assert (seen.document, seen.outdated) == (document(1), True)
    assert seen.stamp != before.stamp
    sink.publish(document(1), seen)
    assert (path / "token").read_text("utf-8") == f"{CANARY}-1"


def test_foreign_name(path: Path) -> None:
    """A file of somebody else under a name of ours is foreign; with leave it is replaced, what else is there is not."""
    (path / "token").write_text("somebody else's")
    (path / "other").write_text("untouched")
    sink = sink_at(path)
    seen = sink.look()
    assert (seen.document, seen.foreign) == (None, "token is no link that this daemon made")
    sink.publish(document(1), seen)
    assert sink.look().document == document(1)
    assert (path / "other").read_text() == "untouched"


@pytest.mark.parametrize("kind", ["volume", "directory", "file"])
def test_foreign_data(path: Path, kind: str) -> None:
    """A ..data that is not ours, such as that of a mounted ConfigMap, is foreign."""
    match kind:
        case "volume":
            (path / "..2026_11_24").mkdir()
            (path / "..data").symlink_to("..2026_11_24")
        case "directory":
            (path / "..data").mkdir()
        case _:
            (path / "..data").write_text("x")
    assert sink_at(path).look().foreign == "..data is no link that this daemon made"


def test_directory_under_a_name(path: Path) -> None:
    """What cannot be replaced by a link fails the publish before the swap, and the old files stay."""
    sink = sink_at(path, {"token": FormatConfig(format="token")})
    sink.publish(document(1), sink.look())
    (path / "app.env").mkdir()
    sink = sink_at(path)
    seen = sink.look()
    assert seen.foreign is not None
    with pytest.raises(PublishError) as caught:
        sink.publish(document(2), seen)
    assert caught.value.reason is Reason.NOT_A_FILE
    assert_hidden(caught.value)
    assert (path / "token").read_text("utf-8") == f"{CANARY}-1"
    assert len(folders(path) - {"app.env"}) == 1


@pytest.mark.parametrize("swapped", [True, False])
@pytest.mark.parametrize("readable", [True, False])
def test_swap_that_is_said_to_have_failed(
    path: Path, monkeypatch: pytest.MonkeyPatch, swapped: bool, readable: bool
) -> None:
    """Readers keep whole files after a failed swap, though it was made, or nobody can tell; the next one goes on."""
    sink = sink_at(path)
    seen = sink.publish(document(1), sink.look())
    rename, readlink = os.rename, os.readlink

    def fails(source: str, target: str, **directories: int) -> None:
        if swapped:
            rename(source, target, **directories)
        if not readable:
            monkeypatch.setattr(os, "readlink", cannot_be_read)
        raise OSError(errno.EIO, "as over NFS")

    def cannot_be_read(name: str, **_: int) -> str:
        raise OSError(errno.ESTALE, "as over NFS", name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails)
        with pytest.raises(PublishError) as caught:
            sink.publish(document(2), seen)
    monkeypatch.setattr(os, "readlink", readlink)

    assert (caught.value.reason, "EIO" in str(caught.value)) == (Reason.IO_ERROR, True)
    found = 2 if swapped else 1
    assert (path / "token").read_text("utf-8") == f"{CANARY}-{found}"
    assert len(folders(path)) == (2 if swapped or not readable else 1)
    seen = sink.look()
    assert seen.document == document(found)
    sink.publish(document(3), seen)
    assert (path / "token").read_text("utf-8") == f"{CANARY}-3"
    assert len(folders(path)) == 2


def test_clean_up_that_cannot_tell_what_is_in_use(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `..data` cannot be read, the clean-up removes no folder."""
    sink = sink_at(path)
    sink.publish(document(1), sink.look())
    before = folders(path)

    def cannot_be_read(name: str, **_: int) -> str:
        raise OSError(errno.EIO, "as over NFS", name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", cannot_be_read)
        clean_up([DirectoryPublish(path=str(path), files=FILES)])
    assert folders(path) == before


@pytest.mark.parametrize("where", ["absent", "file"])
def test_no_directory(tmp_path: Path, where: str) -> None:
    """A missing directory, or a file in its place, is told of by the look, by its path."""
    (tmp_path / "file").touch()
    with pytest.raises(LookError) as caught:
        sink_at(tmp_path / where).look()
    assert caught.value.reason is Reason.DIRECTORY_MISSING
    assert str(caught.value).startswith(f"{tmp_path / where}: there is no such directory")


def test_document_that_does_not_fit(path: Path) -> None:
    """A file that cannot be made fails the publish by its name, and no file is swapped."""
    sink = sink_at(path)
    seen = sink.publish(document(1), sink.look())
    with pytest.raises(PublishError) as caught:
        sink.publish(replace(document(2), username=f"{CANARY}\r"), seen)
    assert caught.value.reason is Reason.NOT_RENDERED
    assert str(caught.value).startswith(f"{path}/app.env: username has a control character")
    assert_hidden(caught.value)
    assert sink.look() == seen


def test_clean_up(path: Path) -> None:
    """The cleanup removes what a killed run left, and nothing else."""
    sink = sink_at(path)
    seen = sink.publish(document(1), sink.look())
    sink.publish(document(2), seen)
    (path / "..7-0123456789abcdef").mkdir()
    (path / "..7-0123456789abcdef" / "token").write_text("half")
    (path / "..link").symlink_to("..7-0123456789abcdef")
    (path / ".aca-tokend-7-0123456789abcdef.tmp").touch()
    (path / "..other").mkdir()
    (path / ".other.7-0123456789abcdef.tmp").touch()
    clean_up([DirectoryPublish(path=str(path), files=FILES), DirectoryPublish(path=str(path / "absent"), files=FILES)])
    assert folders(path) == {(path / "..data").readlink().name, "..other"}
    assert names(path) == {"token", "app.env", "..data", ".lock", ".other.7-0123456789abcdef.tmp"}
    assert sink.look().document == document(2)
