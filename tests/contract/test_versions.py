"""The field `token` in every kind of place: written, read back, and what an upgrade and a roll back make of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import pytest

from aca_tokend.core.config import DirectoryPublish, FilePublish, FormatConfig, VaultPublish
from aca_tokend.core.token import FIELDS, OWNER
from aca_tokend.sinks import DirectorySink, FileSink, KvSink
from tests.contract import previous
from tests.contract.conftest import CANARY_ROOT
from tests.contract.places import TEMPLATE, session_with
from tests.contract.test_sinks import document, place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aca_tokend.core.formats import Format
    from tests.contract.conftest import OpenBao
    from tests.contract.places import Place

__all__ = ["place"]  # the fixture

NAMED = document(token="bookings")
BEFORE = document(token="")
FORMATS: tuple[Format, ...] = ("json", "token", "header", "env")
DIRECTORY: dict[str, Format] = {"all.json": "json", "app.env": "env", "token": "token", "h": "header"}


def file_sink(path: Path, form: Format) -> FileSink:
    return FileSink(FilePublish(path=str(path), format=form, template=TEMPLATE if form == "template" else ""))


def directory_sink(path: Path) -> DirectorySink:
    path.mkdir(exist_ok=True)
    files = {name: FormatConfig(format=form) for name, form in DIRECTORY.items()}
    return DirectorySink(DirectoryPublish(path=str(path), files=files))


def kv_sink(server: OpenBao, mount: str, path: str, version: Literal[1, 2] = 2, **fields: str) -> KvSink:
    config = VaultPublish(mount=mount, path=path, kv_version=version, fields=fields)
    return KvSink(config, session_with(server.address, CANARY_ROOT))


def test_the_name_is_read_back(place: Place) -> None:
    """Whatever the kind of place, what was written for a token says so to every process, also after the next write."""
    sink = place.sink()
    seen = sink.look()
    for number in range(2):
        seen = sink.publish(document(number, token="bookings"), seen)
        assert seen.document is not None
        read = place.sink().look()
        assert read == seen
        assert read.document is not None
        assert (read.document.token, read.outdated) == ("bookings", False)


def test_a_document_from_before(place: Place) -> None:
    """A document without the name is read as one, is not to be written anew, and gives way to one that has it."""
    sink = place.sink()
    sink.publish(BEFORE, sink.look())
    seen = place.sink().look()
    assert seen.document == BEFORE
    assert seen.document is not None
    assert (seen.document.token, seen.outdated, seen.foreign) == ("", False, None)
    found = place.sink().publish(document(2, token="bookings"), seen).document
    assert found is not None
    assert found.token == "bookings"


@pytest.mark.parametrize("form", [*FORMATS, "template"])
def test_files_on_an_upgrade(tmp_path: Path, form: Format) -> None:
    """A file that the version before wrote is known, and none is to be written anew for the name alone."""
    path = tmp_path / "bookings"
    old = BEFORE.fields()
    assert OWNER not in old
    sink = file_sink(path, form)
    if form == "template":  # written by ours: what templates print is not theirs to add to
        sink.publish(BEFORE, sink.look())
    else:
        path.write_bytes(previous.rendered(old, form))
        record = {hashlib.sha256(path.read_bytes()).hexdigest(): old}
        (tmp_path / ".bookings.published").write_text(json.dumps(record))
    content = path.read_bytes()
    seen = sink.look()
    assert (seen.document, seen.outdated) == (BEFORE, False)

    named = tmp_path / "named"
    other = file_sink(named, form)
    other.publish(NAMED, other.look())
    assert (named.read_bytes() == content) == (form != "json")


@pytest.mark.parametrize("form", FORMATS)
def test_files_on_a_roll_back(tmp_path: Path, form: Format) -> None:
    """The version before reads what is written now as the same document, and would not write it anew."""
    path = tmp_path / "bookings"
    sink = file_sink(path, form)
    sink.publish(NAMED, sink.publish(document(0, token="bookings"), sink.look()))
    assert previous.in_file(path, form) == (BEFORE.fields(), False)


def test_a_directory_on_an_upgrade_and_a_roll_back(tmp_path: Path) -> None:
    """The document beside the files has the name and they have not: neither version writes those of the other anew."""
    path = tmp_path / "bookings"
    sink = directory_sink(path)
    sink.publish(NAMED, sink.look())
    assert previous.in_directory(path, DIRECTORY) == (BEFORE.fields(), False)
    assert json.loads((path / "..data/.document.json").read_bytes()) == NAMED.fields()
    assert json.loads((path / "all.json").read_bytes()) == BEFORE.fields()

    for name, form in {**DIRECTORY, ".document.json": "json"}.items():
        assert (path / "..data" / name).exists()
        (path / "..data" / name).write_bytes(previous.rendered(BEFORE.fields(), form))
    seen = directory_sink(path).look()
    assert (seen.document, seen.outdated) == (BEFORE, False)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("names", [{}, {"access_token": "api_token", "account": "whose"}], ids=["plain", "renamed"])
def test_secrets(openbao: OpenBao, version: Literal[1, 2], names: Mapping[str, str]) -> None:
    """A secret has the name as `token` whatever else is renamed, and the version before reads the same document."""
    mount, path = openbao.kv1() if version == 1 else "secret", openbao.unique("contract/versions")
    sink = kv_sink(openbao, mount, path, version, **names)
    sink.publish(NAMED, sink.look())
    answer = openbao.send("GET", f"{mount}/{path}" if version == 1 else f"{mount}/data/{path}")["data"]
    held = cast("dict[str, object]", answer if version == 1 else answer["data"])
    assert held == {names.get(name, name): value for name, value in NAMED.fields().items()}
    assert held[OWNER] == "bookings"
    assert previous.in_secret(held, names) == BEFORE.fields()

    seen = kv_sink(openbao, mount, path, version, **names).look()
    assert seen.document is not None
    assert (seen.document, seen.document.token) == (NAMED, "bookings")


@pytest.mark.parametrize("version", [1, 2])
def test_other_names_of_fields(openbao: OpenBao, version: Literal[1, 2]) -> None:
    """After `fields` changed no document is read, but the secret still says which token wrote it."""
    mount, path = openbao.kv1() if version == 1 else "secret", openbao.unique("contract/versions")
    sink = kv_sink(openbao, mount, path, version)
    sink.publish(NAMED, sink.look())
    other = kv_sink(openbao, mount, path, version, access_token="api_token")
    seen = other.look()
    assert (seen.document, seen.token) == (None, "bookings")
    assert seen.foreign
    written = other.publish(NAMED, seen)
    assert other.look() == written


def test_the_same_number_is_not_the_same_version(openbao: OpenBao) -> None:
    """After the metadata was deleted a stranger's secret has the number of ours, and another stamp."""
    path = openbao.unique("contract/versions")
    sink = kv_sink(openbao, "secret", path)
    ours = sink.publish(NAMED, sink.look())
    assert sink.look().stamp == ours.stamp
    openbao.send("DELETE", f"secret/metadata/{path}")
    openbao.send("POST", f"secret/data/{path}", {"data": {"password": "a stranger's"}})
    assert openbao.send("GET", f"secret/data/{path}")["data"]["metadata"]["version"] == 1

    seen = sink.look()
    assert seen.stamp != ours.stamp
    assert seen.document is None


def test_a_version_that_was_deleted_has_another_stamp(openbao: OpenBao) -> None:
    """What we wrote and somebody deleted is no longer what we wrote; brought back, it is again."""
    path = openbao.unique("contract/versions")
    sink = kv_sink(openbao, "secret", path)
    ours = sink.publish(NAMED, sink.look())
    openbao.send("DELETE", f"secret/data/{path}")
    assert sink.look().stamp != ours.stamp
    openbao.send("PUT", f"secret/undelete/{path}", {"versions": [1]})
    assert sink.look() == ours


def test_records_of_the_same_number(openbao: OpenBao) -> None:
    """The stamp of a record tells one from another under the same number, and one that was written from one read."""
    path = openbao.unique("contract/versions")
    sink = kv_sink(openbao, "secret", path)
    stamp = sink.write_record("attempts", {"f": {"spent": 1}}, sink.read_record("attempts").stamp)
    assert sink.read_record("attempts").stamp == stamp
    openbao.send("DELETE", f"secret/metadata/{path}.attempts")
    openbao.send("POST", f"secret/data/{path}.attempts", {"data": {}})
    assert sink.read_record("attempts").stamp != stamp


def test_templates_do_not_know_the_name() -> None:
    """What a format or a template may print is what it was: the frozen fields are those of every format."""
    assert previous.FIELDS == FIELDS
    assert tuple(replace(NAMED, token="rooms").reader_fields()) == previous.FIELDS
