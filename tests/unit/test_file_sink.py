"""The file sink: modes, owners, locks, what it refuses to touch, and what a full disk or a kill leaves behind."""

from __future__ import annotations

import errno
import fcntl
import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from aca_tokend.core.config import FilePublish
from aca_tokend.core.errors import LookError, PublishError
from aca_tokend.core.formats import MAX_BYTES, render
from aca_tokend.core.outcome import Reason
from aca_tokend.sinks import FileSink, build, clean_up
from aca_tokend.sinks.atomic import locked, opened
from aca_tokend.sinks.probe import may_read
from tests.unit.file_writer import CANARY, NOBODY, config_of, document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
NAME = "bookings.json"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the token goes: no file yet."""
    return tmp_path / NAME


@pytest.fixture
def open_path() -> Iterator[Path]:
    """The same in a directory that every user may reach."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory / NAME
    directory.chmod(0o755)
    shutil.rmtree(directory)


def sink_at(path: Path, **config: Any) -> FileSink:  # noqa: ANN401  # any key of FilePublish
    return FileSink(FilePublish(path=str(path), **config))


def published(path: Path, number: int = 1) -> FileSink:
    """A sink that has published."""
    sink = sink_at(path)
    sink.publish(document(number), sink.look())
    return sink


def command(action: str, path: Path) -> list[str]:
    return [sys.executable, "-m", "tests.unit.file_writer", action, str(path)]


def run(action: str, path: Path) -> list[Any]:
    """What another process says of its attempt to publish."""
    done = subprocess.run(command(action, path), cwd=ROOT, capture_output=True, check=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def names(path: Path) -> set[str]:
    """The names of all that is in the file's directory."""
    return {entry.name for entry in path.parent.iterdir()}


def assert_hidden(error: BaseException) -> None:
    assert CANARY not in str(error) + repr(error) + "".join(traceback.format_exception(error))


def test_content(path: Path) -> None:
    """The file is the document's fields as one line of JSON."""
    published(path)
    content = path.read_text("utf-8")
    assert content.count("\n") == 1
    assert content.endswith("}\n")
    assert json.loads(content) == document(1).fields()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("mode", [0o640, 0o444, 0o600])
def test_mode_whatever_the_umask(path: Path, umask: int, mode: int) -> None:
    """The file has the configured mode whatever the umask and the mode of the file before."""
    path.touch(0o666)
    before = os.umask(umask)
    try:
        sink = sink_at(path, mode=mode)
        sink.publish(document(1), sink.look())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == mode


def test_final_mode_before_the_first_byte(path: Path) -> None:
    """The temporary file is closed to others when it is made, and has its final mode while it is still empty."""
    chmod, rename = run("watched", path)
    assert chmod == ["os.chmod", "0600", 0]
    assert rename == ["os.rename", "0640", path.stat().st_size]


def test_owner_and_group(path: Path) -> None:
    """Owner and group are set, by number or by name where they have one."""
    user, group = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    sink = sink_at(path, owner=str(user), group=str(group))
    sink.publish(document(1), sink.look())
    assert (path.stat().st_uid, path.stat().st_gid) == (user, group)
    assert path.stat().st_mode & 0o7777 == 0o640
    owner = next((entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == user), str(user))
    owners = next((entry.gr_name for entry in grp.getgrall() if entry.gr_gid == group), str(group))
    sink = sink_at(path, owner=owner, group=owners)
    sink.publish(document(2), sink.look())
    assert (path.stat().st_uid, path.stat().st_gid) == (user, group)


@pytest.mark.parametrize("config", [{"owner": "no-such-user"}, {"group": "no-such-group"}, {"owner": "9" * 30}])
def test_no_such_owner(path: Path, config: dict[str, str]) -> None:
    """An owner that does not exist is told of, and the file stays as it was."""
    seen = published(path).look()
    with pytest.raises(PublishError) as caught:
        sink_at(path, **config).publish(document(2), seen)
    assert caught.value.reason is Reason.OWNER_NOT_SET
    assert_hidden(caught.value)
    assert sink_at(path).look() == seen
    assert names(path) == {NAME, f".{NAME}.lock"}


def test_owner_cannot_be_set(open_path: Path) -> None:
    """Who may not give files away is told so, and nothing is published under the wrong owner."""
    open_path.parent.chmod(0o777)
    ((reason, message),) = run("as_nobody_for_root", open_path)
    assert reason == Reason.OWNER_NOT_SET
    assert CANARY not in message
    assert names(open_path) == set()


def a_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("untouched", encoding="utf-8")
    path.symlink_to(target)


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [a_link, a_dangling_link, Path.mkdir, os.mkfifo, a_socket])
def test_no_regular_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """What is no regular file is neither read nor replaced nor waited for, and a link's target is not touched."""
    path = tmp_path / "b"
    make(path)
    before = path.lstat()
    with pytest.raises(LookError) as look:
        sink_at(path).look()
    with pytest.raises(PublishError) as publish:
        sink_at(path).publish(document(1), published(tmp_path / NAME).look())
    assert [look.value.reason, publish.value.reason] == [Reason.NOT_A_FILE] * 2
    assert_hidden(publish.value)
    assert path.lstat() == before
    if path.with_name("target").exists():
        assert path.with_name("target").read_text("utf-8") == "untouched"


@pytest.mark.parametrize("directory", ["absent", f"{NAME}/below-a-file"])
def test_no_directory(path: Path, directory: str) -> None:
    """A missing directory is told of by look already, before a grant is made for nothing."""
    seen = published(path).look()
    sink = sink_at(path.parent / directory / NAME)
    with pytest.raises(LookError) as look:
        sink.look()
    with pytest.raises(PublishError) as publish:
        sink.publish(document(2), seen)
    assert [look.value.reason, publish.value.reason] == [Reason.DIRECTORY_MISSING] * 2
    assert_hidden(publish.value)


@pytest.mark.parametrize(
    ("content", "foreign"),
    [
        (CANARY.encode(), "it is not JSON"),
        (b'{"access_token": "' + CANARY.encode(), "it is not JSON"),
        (CANARY.encode() + b"\xff\xfe\x00", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"1" * 10_000, "it is not JSON"),
        (b"\n", "it is not JSON"),
        (json.dumps([CANARY]).encode(), "it is not a JSON object"),
        (b"{}", "access_token is missing"),
        (b" " * MAX_BYTES + b"{}", "it is larger than 1 MiB"),
    ],
    ids=["text", "torn", "binary", "deep", "number", "blank", "array", "object", "large"],
)
def test_foreign_content(path: Path, content: bytes, foreign: str) -> None:
    """What was not published by us is told of in a few words, and can be replaced as it was seen."""
    path.write_bytes(content)
    sink = sink_at(path)
    seen = sink.look()
    assert (seen.document, seen.foreign) == (None, foreign)
    assert sink.look() == seen
    path.write_bytes(content + b" ")
    with pytest.raises(PublishError) as caught:
        sink.publish(document(1), seen)
    assert caught.value.reason is Reason.CONFLICT
    sink.publish(document(1), sink.look())
    assert sink.look().document == document(1)


def test_one_file_by_two_ways(path: Path) -> None:
    """Links above a file are followed, and by whichever way it is written, it is one file with one lock and record."""
    path.with_name("link").symlink_to(path.parent)
    sink, other = published(path), sink_at(path.with_name("link") / NAME)
    seen = other.look()
    assert seen.document == document(1)
    sink.publish(document(2), seen)
    with pytest.raises(PublishError) as caught:
        other.publish(document(3), seen)
    assert caught.value.reason is Reason.CONFLICT
    assert names(path) == {NAME, f".{NAME}.lock", "link"}


def test_lock_is_held(path: Path) -> None:
    """While another process holds the lock nothing is written, and nobody waits for it."""
    sink = published(path)
    seen = sink.look()
    lock = path.with_name(f".{NAME}.lock")
    assert lock.stat().st_mode & 0o7777 == 0o600
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PublishError) as caught:
            sink.publish(document(2), seen)
    assert caught.value.reason is Reason.LOCKED
    assert_hidden(caught.value)
    assert sink.look() == seen
    sink.publish(document(2), seen)


def test_lock_ends_with_the_write(path: Path) -> None:
    """A program that is started during a write has the lock's descriptor for a moment, and not the lock after it."""
    with opened(str(path.parent), os.O_DIRECTORY) as directory:
        lowest = os.dup(directory)
        os.close(lowest)
        with locked(f".{NAME}", directory):
            inherited = os.dup(lowest)
        try:
            published(path)
        finally:
            os.close(inherited)


def test_read_only_directory(open_path: Path) -> None:
    """In a directory where it may not write the publish fails, and the old file is intact."""
    published(open_path)
    open_path.chmod(0o644)
    open_path.with_name(f".{NAME}.lock").unlink()
    before = open_path.read_bytes()
    open_path.parent.chmod(0o555)
    ((reason, message),) = run("as_nobody", open_path)
    assert reason == Reason.PERMISSION_DENIED
    assert CANARY not in message
    assert open_path.read_bytes() == before
    assert names(open_path) == {NAME}


def test_file_that_may_not_be_read(open_path: Path) -> None:
    """A file that it may not read fails the look: it is neither taken for nothing nor replaced."""
    open_path.parent.chmod(0o777)
    open_path.write_text("somebody else's", encoding="utf-8")
    open_path.chmod(0o000)
    ((reason, _),) = run("as_nobody", open_path)
    assert reason == Reason.PERMISSION_DENIED


def test_write_is_cut_short(path: Path) -> None:
    """Where a write takes only a part, the old file is whole and no temporary file is left."""
    before = published(path).look()
    ((reason, message),) = run("limited", path)
    assert reason == Reason.DISK_FULL
    assert CANARY not in message
    assert sink_at(path).look() == before
    assert names(path) == {NAME, f".{NAME}.lock"}


@pytest.mark.parametrize("kind", ["env", "directory"])
def test_write_of_several_is_cut_short(path: Path, kind: str) -> None:
    """Where a record, or one file of several, takes only a part, what was there is whole and nothing else is left."""
    if kind == "directory":
        path.mkdir()
    sink = build(config_of(kind, str(path)), {})
    before = sink.publish(document(1), sink.look())
    there = sorted(str(entry) for entry in path.parent.rglob("*"))
    done = subprocess.run([*command("limited", path), kind], cwd=ROOT, capture_output=True, check=True, text=True)
    reason, message = json.loads(done.stdout)
    assert reason == Reason.DISK_FULL
    assert CANARY not in message
    assert sink.look() == before
    assert sorted(str(entry) for entry in path.parent.rglob("*")) == there


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EROFS, Reason.READ_ONLY),
        (errno.ENOSPC, Reason.DISK_FULL),
        (errno.EDQUOT, Reason.DISK_FULL),
        (errno.EPERM, Reason.PERMISSION_DENIED),
        (errno.EMFILE, Reason.RESOURCE_EXHAUSTED),
        (errno.ENFILE, Reason.RESOURCE_EXHAUSTED),
        (errno.ENOMEM, Reason.RESOURCE_EXHAUSTED),
        (errno.EIO, Reason.IO_ERROR),
        (errno.ENAMETOOLONG, Reason.IO_ERROR),
    ],
)
def test_what_the_system_says(number: int, reason: Reason) -> None:
    """Each error of the system has its reason, and its name is in the message."""
    from aca_tokend.sinks.atomic import told_as

    with pytest.raises(PublishError) as caught, told_as(PublishError, "/run/aca/bookings.json"):
        raise OSError(number, "whatever", "/somewhere/else")
    assert caught.value.reason is reason
    assert str(caught.value) == f"/run/aca/bookings.json: {os.strerror(number)} ({errno.errorcode[number]})"


def test_name_is_too_long(tmp_path: Path) -> None:
    """A name that leaves no room for the temporary file's is told of."""
    sink = sink_at(tmp_path / ("b" * 240))
    with pytest.raises(PublishError) as caught:
        sink.publish(document(1), sink.look())
    assert caught.value.reason is Reason.IO_ERROR
    assert "ENAMETOOLONG" in str(caught.value)


def test_killed_before_the_rename(path: Path) -> None:
    """A run killed with its temporary file complete leaves the old file whole; only that file is cleaned up.

    It finds it by its name, also where the file that it was to become has left the configuration.
    """
    sink = published(path)
    others = {
        f".{NAME}.7-0123456789abcdef.tmp",
        f".{NAME}.aca-tokend-7.tmp",
        f"{NAME}.aca-tokend-7-0123456789abcdef.tmp",
    }
    for other in others:
        path.with_name(other).touch()
    killed = subprocess.run(command("dying", path), cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert sink.look().document == document(1)
    (left,) = names(path) - others - {NAME, f".{NAME}.lock"}
    assert path.with_name(left).stat().st_mode & 0o7777 == 0o640

    with path.with_name(f".{NAME}.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        clean_up([FilePublish(path=str(path))])
        assert left in names(path)
    clean_up([FilePublish(path=str(path.with_name("another"))), FilePublish(path=str(path.parent / "absent" / NAME))])
    assert names(path) == {NAME, f".{NAME}.lock", *others}
    assert sink.look().document == document(1)


def test_directory_that_only_takes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be renamed or removed, the tries of a process leave one file and not one each."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "")

    sink = published(path)
    for name in ("rename", "unlink"):
        monkeypatch.setattr(os, name, refused)
    for _ in range(3):
        with pytest.raises(PublishError):
            sink.publish(document(2), sink.look())
    assert len(names(path) - {NAME, f".{NAME}.lock"}) == 1
    monkeypatch.undo()
    sink.publish(document(2), sink.look())
    assert names(path) == {NAME, f".{NAME}.lock"}


def test_file_that_waits_for_somebody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What calls itself regular and has nothing to read now, as some files of /proc, is no file for us."""
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    monkeypatch.setattr(stat, "S_ISREG", lambda _mode: True)
    with pytest.raises(LookError) as caught:
        sink_at(path).look()
    assert caught.value.reason is Reason.NOT_A_FILE
    os.close(writer)


@pytest.mark.parametrize("kind", ["json", "env", "directory"])
def test_killed_at_random_moments(path: Path, kind: str) -> None:
    """Whenever a writer is killed, what is there is whole and not older, the next goes on, and no litter is left."""
    if kind == "directory":
        path.mkdir()
    done = subprocess.run([*command("killed", path), kind, "170"], cwd=ROOT, capture_output=True, check=True, text=True)
    wrong, (last, left) = [json.loads(line) for line in done.stdout.splitlines()]
    assert wrong == []
    assert last > 0
    if kind == "directory":
        assert len([name for name in left if re.fullmatch(r"\.\.[0-9]+-[0-9a-f]{16}", name)]) == 1
        left = [name for name in left if not name.startswith("..")]
        assert left == sorted([".document.json", ".lock", NAME, *("env", "json", "token") * 2])
    else:
        assert left == sorted({f".{NAME}.lock", NAME} | ({f".{NAME}.published"} if kind == "env" else set()))


FORMATS: dict[str, str] = {"token": "", "header": "", "env": "", "template": "t={{ access_token }}"}


@pytest.mark.parametrize("form", FORMATS)
def test_formats(path: Path, form: str) -> None:
    """In each format the file is what the format says, and another process finds the document again."""
    sink = sink_at(path, format=form, template=FORMATS[form], mode=0o644)
    seen = sink.publish(document(1), sink.look())
    assert path.read_bytes() == render(document(1), sink._config.format, FORMATS[form])
    assert sink_at(path, format=form, template=FORMATS[form]).look() == seen
    record = path.with_name(f".{NAME}.published")
    assert record.stat().st_mode & 0o7777 == 0o600
    sink.publish(document(2), seen)
    assert len(json.loads(record.read_bytes())) == 2
    assert names(path) == {NAME, f".{NAME}.lock", record.name}


def test_record_before_the_file(path: Path) -> None:
    """A kill between the record and the file changes nothing: the content decides which document is there."""
    sink = sink_at(path, format="token")
    sink.publish(document(1), sink.look())
    first = path.read_bytes()
    sink.publish(document(2), sink.look())
    path.write_bytes(first)  # as if the second file had not come to be
    assert sink.look().document == document(1)
    sink.publish(document(3), sink.look())
    assert sink.look().document == document(3)


def test_power_cut_leaves_no_file_that_its_record_does_not_know(path: Path) -> None:
    """What a file needs to be known for ours is on disk, name included, before the file, and goes only after it."""
    done = subprocess.run([*command("ordered", path), "token", "json"], cwd=ROOT, capture_output=True, check=True)
    replaced = ["fsync", "rename", "fsync"]
    assert json.loads(done.stdout) == [*replaced, *replaced, *replaced, "unlink"]


def test_what_no_record_knows(path: Path) -> None:
    """A file that no record knows is foreign, a record that cannot be read tells of none, an empty file is free."""
    sink = sink_at(path, format="token")
    path.write_text(CANARY, encoding="utf-8")
    assert sink.look().foreign == "no record tells that this token wrote it"
    sink.publish(document(1), sink.look())
    path.with_name(f".{NAME}.published").write_bytes(b"[]")
    assert sink.look().foreign == "no record tells that this token wrote it"
    path.write_bytes(b"")
    assert (sink.look().document, sink.look().foreign) == (None, None)


def test_format_is_changed(path: Path) -> None:
    """With another format or template the document is still known, is due to be written anew, and no record is left."""
    steps: list[tuple[Any, str]] = [
        ("json", ""),
        ("token", ""),
        ("template", "a {{ scope }}"),
        ("template", "b{{ scope }}"),
    ]
    published(path)
    for form, template in [*steps[1:], ("json", "")]:
        sink = sink_at(path, format=form, template=template)
        seen = sink.look()
        assert (seen.document, seen.outdated, seen.foreign) == (document(1), True, None)
        sink.publish(document(1), seen)
        assert path.read_bytes() == render(document(1), form, template)
        assert not sink.look().outdated
    assert names(path) == {NAME, f".{NAME}.lock"}


def test_document_that_does_not_fit(path: Path) -> None:
    """A document that the format cannot carry is an error of the publish, by the name of its field."""
    sink = sink_at(path, format="env")
    seen = sink.publish(document(1), sink.look())
    with pytest.raises(PublishError) as caught:
        sink.publish(replace(document(2), username=f"{CANARY}\n"), seen)
    assert caught.value.reason is Reason.NOT_RENDERED
    assert_hidden(caught.value)
    assert sink.look() == seen


# What shows before a grant: each look is made where nothing is published yet, and leaves nothing behind.


def test_look_tells_of_a_directory_it_may_not_write(open_path: Path) -> None:
    """Where it may not create files, the look says so already."""
    open_path.parent.chmod(0o555)
    ((reason, message),) = run("as_nobody", open_path)
    assert reason == Reason.PERMISSION_DENIED
    assert message == f"{open_path}: the daemon may not create files in its directory"
    assert names(open_path) == set()


def test_look_tells_of_a_sticky_directory(open_path: Path) -> None:
    """An empty file of somebody else in a directory like /tmp cannot be replaced, and the look says so already."""
    open_path.touch()
    open_path.parent.chmod(0o1777)
    ((reason, message),) = run("as_nobody", open_path)
    if os.geteuid() == 0:
        assert reason == Reason.PERMISSION_DENIED
        assert "sticky" in message
        assert names(open_path) == {NAME}
    else:
        assert reason == ""  # the file is this user's own: only root could make it another's


@pytest.mark.parametrize("config", [{"owner": "no-such-user"}, {"group": "no-such-group"}])
def test_look_tells_of_an_unknown_owner(path: Path, config: dict[str, str]) -> None:
    """An owner that does not exist is told of before anything is granted."""
    with pytest.raises(LookError) as caught:
        sink_at(path, **config).look()
    assert caught.value.reason is Reason.OWNER_NOT_SET
    assert str(caught.value) == f"{path}: there is no such owner or group"
    assert names(path) == set()


@pytest.mark.parametrize(
    ("mode", "owner", "group", "readable"),
    [
        (0o640, 7, 7, True),
        (0o400, 7, 9, True),
        (0o640, 9, 7, True),
        (0o640, 9, 8, True),
        (0o640, 9, 9, False),
        (0o644, 9, 9, True),
        (0o400, 9, 7, False),
        (0o604, 9, 7, False),
        (0o404, 9, 9, True),
    ],
)
def test_what_could_be_read_again(mode: int, owner: int, group: int, readable: bool) -> None:
    """The owner's bit decides for the owner, else the group's for its members, else that of all others."""
    assert may_read(mode, owner, group, user=7, groups={7, 8}) is readable


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have CAP_CHOWN and nothing else")
@pytest.mark.parametrize("kind", ["json", "directory"])
@pytest.mark.parametrize(
    ("mode", "owner", "group", "readable"),
    [("0640", "1", "1", False), ("0400", "1", "", False), ("0640", "1", "", True), ("0644", "1", "1", True)],
)
def test_what_could_not_be_read_again(
    open_path: Path, kind: str, mode: str, owner: str, group: str, readable: bool
) -> None:
    """With CAP_CHOWN alone a file that it could not read again is refused: by the look, and as it is written."""
    open_path.parent.chmod(0o777)
    if kind == "directory":
        open_path.mkdir()
        open_path.chmod(0o777)
    told = with_cap_chown_alone("unreadable", open_path, kind, mode, owner, group)
    message = f"{open_path}: with this owner, group and mode the daemon could not read it again"
    assert told == [["", ""] if readable else [Reason.OWNER_NOT_SET, message]] * 2
    left = {entry.name for entry in open_path.parent.rglob("*") if not entry.name.endswith(".lock")}
    assert readable or left <= {NAME}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have CAP_CHOWN and nothing else")
def test_default_acl_lets_it_be_read_again(open_path: Path) -> None:
    """Where the directory's default ACL names the daemon's user, the mode alone does not decide."""
    open_path.parent.chmod(0o777)
    anybody = 0xFFFFFFFF
    entries = [(1, 6, anybody), (2, 4, NOBODY), (4, 4, anybody), (16, 4, anybody), (32, 0, anybody)]  # acl(5), in order
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(open_path.parent, "system.posix_acl_default", acl)
    assert with_cap_chown_alone("attempt", open_path, "1", "json", "1") == [["", ""]]
    assert json.loads(open_path.read_bytes())["access_token"] == f"{CANARY}-2"


def with_cap_chown_alone(action: str, path: Path, *arguments: str) -> list[Any]:
    """What a process says that has no other privilege."""
    alone = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+chown"]
    alone.append("--ambient-caps=-all,+chown")
    if subprocess.run([*alone, sys.executable, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("this Python is not one that a process with capabilities of its own can load")
    whole = [*alone, *command(action, path), *arguments]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, check=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_place_is_a_file_of_the_daemon(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the daemon keeps or renames beside a token's is refused as the place of another."""
    beside = set[str]()
    monkeypatch.setattr(os, "rename", _noting(os.rename, beside))
    sink = sink_at(path, format="env")
    sink.publish(document(1), sink.look())
    sink.write_record("attempts", {}, None)
    beside |= names(path) - {NAME}
    assert len(beside) == 4
    for name in beside:
        with pytest.raises(ValidationError, match="daemon's own files beside a token's"):
            FilePublish(path=str(path.with_name(name)))


def _noting(rename: Callable[..., None], names: set[str]) -> Callable[..., None]:
    def noted(source: str, target: str, **directories: int) -> None:
        names.add(source)
        rename(source, target, **directories)

    return noted


@pytest.mark.parametrize("beside", ["attempts", "published"])
def test_record_that_is_no_file_is_named(tmp_path: Path, beside: str) -> None:
    """A directory in the place of a record is told by the record's own path, not by that of the good file."""
    path = tmp_path / "bookings.env"
    sink = sink_at(path, format="env")
    sink.publish(document(1), sink.look())
    record = tmp_path / f".bookings.env.{beside}"
    record.unlink(missing_ok=True)
    record.mkdir()

    with pytest.raises(LookError, match=re.escape(f"{record}: it is a directory")):
        sink.look() if beside == "published" else sink.read_record(beside)
