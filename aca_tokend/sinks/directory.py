"""Several files that are swapped as one, as Kubernetes does it: NAME is a link to ..data/NAME, and ..data to a folder.

Each publish fills a new folder and then lets `..data` lead there by one rename, so whoever opens `..data` once finds
files of one token. The document itself lies in the folder too. The folder before stays until the next swap, for readers
that had opened it. Everything of ours is inside the directory, and nothing is written outside of it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import TYPE_CHECKING

from aca_tokend.core.errors import LookError, PublishError
from aca_tokend.core.formats import RenderError, render
from aca_tokend.core.outcome import Reason
from aca_tokend.core.token import NotADocumentError, Seen, parse_document
from aca_tokend.sinks import json_files
from aca_tokend.sinks.atomic import PRIVATE, Access, create, digest, locked, opened, read, told_as
from aca_tokend.sinks.json_files import decoded, encoded
from aca_tokend.sinks.mounts import pool_of
from aca_tokend.sinks.probe import probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aca_tokend.core.config import DirectoryPublish
    from aca_tokend.core.guard import SeenRecord
    from aca_tokend.core.token import Document

DATA = "..data"
_DOCUMENT = ".document.json"
_LINK = "..link"  # what becomes a link by a rename; one writer at a time has it
_BESIDE = ""
_FOLDER = re.compile(r"\.\.[0-9]+-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class _Found:
    """What is in the directory: where `..data` leads, the files there, and where each name leads."""

    data: str | None
    contents: Mapping[str, bytes]
    links: Mapping[str, str]

    @property
    def stamp(self) -> object:
        """None only where nothing is there."""
        if self.data is None and not self.links:
            return None
        contents = {name: digest(content) for name, content in self.contents.items()}
        return (self.data, tuple(sorted(contents.items())), tuple(sorted(self.links.items())))


class DirectorySink:
    """One directory whose files hold one token. What it stamps is where everything leads, with digests."""

    kind = "file"

    def __init__(self, config: DirectoryPublish) -> None:
        self._config = config
        self._access = Access(config.mode, config.owner, config.group)
        self.name = f"directory:{config.path}"
        self.pool = pool_of(config.path)

    def look(self) -> Seen:
        """Reads the files that `..data` leads to. Raises LookError.

        Where no document is found, it also tells what a publish would fail on, before a grant is made for nothing.
        """
        with told_as(LookError, self._config.path), opened(self._config.path, os.O_DIRECTORY) as directory:
            found = self._found(directory)
            seen = self._seen(found)
            if seen.document is None:
                probe(directory, DATA, self._access)
        return seen

    def publish(self, document: Document, seen: Seen) -> Seen:
        """Swaps the files, if they still are what was seen. Raises PublishError."""
        contents = self._rendered(document)
        with (
            told_as(PublishError, self._config.path),
            opened(self._config.path, os.O_DIRECTORY) as directory,
            locked(_BESIDE, directory),
        ):
            before = self._found(directory)
            if before.stamp != seen.stamp:
                raise PublishError(Reason.CONFLICT, "it is no longer what was read")
            folder = f"..{os.getpid()}-{secrets.token_hex(8)}"
            try:
                self._fill(folder, contents, directory)
                for name in self._config.files:
                    if before.links.get(name) != _target(name):
                        _link(_target(name), name, directory)
                _link(folder, DATA, directory)
            except BaseException:  # also where the process has to end: no litter
                with suppress(OSError):  # what cannot be read may lead to the folder: the next start removes it
                    if _leads_to(DATA, directory) != folder:  # over NFS a rename may be made and reported as failed
                        _remove(folder, directory)
                raise
            for name in before.links.keys() - contents.keys():
                os.unlink(name, dir_fd=directory)
            os.fsync(directory)
            _tidy(directory, {folder, before.data})
            return Seen(document, self._found(directory).stamp)

    def read_record(self, name: str) -> SeenRecord:
        """Reads the file `.NAME` in the directory, such as `.attempts`. Raises LookError."""
        return json_files.read_record(self._config.path, _BESIDE, name)

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        """Replaces that file, if it still is what was seen. Raises PublishError."""
        return json_files.write_record(self._config.path, _BESIDE, name, fields, stamp)

    def _rendered(self, document: Document) -> dict[str, bytes]:
        """The content of each file. Raises PublishError."""
        contents = {_DOCUMENT: encoded(document.fields())}
        # Beside it the files have no field for daemons, not even as JSON: each is compared with what it would be.
        document = changed(document, token="")
        for name, file in self._config.files.items():
            try:
                contents[name] = render(document, file.format, file.template)
            except RenderError as error:
                raise PublishError(Reason.NOT_RENDERED, f"{self._config.path}/{name}: {error}") from error
        return contents

    def _found(self, directory: int) -> _Found:
        data = _leads_to(DATA, directory)
        links = {}
        for name in os.listdir(directory):
            target = None if name.startswith(".") else _leads_to(name, directory)
            if target is not None and (name in self._config.files or target == _target(name)):
                links[name] = target
        contents = {}
        with suppress(FileNotFoundError, NotADirectoryError):
            if data is not None and _FOLDER.fullmatch(data):
                with opened(data, os.O_DIRECTORY, directory=directory) as folder:
                    for name in (_DOCUMENT, *self._config.files):
                        content, stamp = read(name, folder)
                        if stamp is not None:
                            contents[name] = content
        return _Found(data, contents, links)

    def _seen(self, found: _Found) -> Seen:
        if found.data is not None and not _FOLDER.fullmatch(found.data):
            return Seen(None, found.stamp, foreign=f"{DATA} is no link that this daemon made")
        for name, target in found.links.items():
            if target != _target(name):
                return Seen(None, found.stamp, foreign=f"{name} is no link that this daemon made")
        if not found.contents.get(_DOCUMENT):
            return Seen(None, found.stamp)
        try:
            document = parse_document(decoded(found.contents[_DOCUMENT]))
        except NotADocumentError as error:
            return Seen(None, found.stamp, foreign=str(error))
        return Seen(document, found.stamp, outdated=self._outdated(document, found))

    def _outdated(self, document: Document, found: _Found) -> bool:
        try:
            contents = self._rendered(document)
        except PublishError:
            return True  # publish will say why
        contents.pop(_DOCUMENT)  # a later version may have written it, with further fields
        links = {name: _target(name) for name in contents}
        return links != found.links or any(found.contents.get(name) != contents[name] for name in contents)

    def _fill(self, folder: str, contents: Mapping[str, bytes], directory: int) -> None:
        """Makes a folder with these files, all on disk."""
        os.mkdir(folder, 0o700, dir_fd=directory)
        with opened(folder, os.O_DIRECTORY, directory=directory) as inside:
            for name, content in contents.items():
                create(name, content, inside, PRIVATE if name == _DOCUMENT else self._access)
            # Names are no secret; who may read the files is for their mode, and for the directory around it.
            os.fchmod(inside, 0o755)
            os.fsync(inside)
        os.fsync(directory)  # or a power cut could leave a link to a folder whose name is not on disk


def _target(name: str) -> str:
    return f"{DATA}/{name}"


def _leads_to(name: str, directory: int) -> str | None:
    """Where a symbolic link leads; None where there is nothing, "" where there is something else."""
    try:
        return os.readlink(name, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return ""


def _link(target: str, name: str, directory: int) -> None:
    """Makes a name lead to a target, whether it led elsewhere before or was not there, by one rename."""
    with suppress(FileNotFoundError):  # of one that was killed
        os.unlink(_LINK, dir_fd=directory)
    os.symlink(target, _LINK, dir_fd=directory)
    try:
        os.rename(_LINK, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with suppress(OSError):  # it may have been made all the same
            os.unlink(_LINK, dir_fd=directory)
        raise


def _remove(folder: str, directory: int) -> None:
    with suppress(OSError):  # the next start removes it
        shutil.rmtree(folder, dir_fd=directory)


def _tidy(directory: int, keep: Iterable[str | None]) -> None:
    """Removes the folders of ours that nobody needs. Only under the lock."""
    for name in os.listdir(directory):
        if _FOLDER.fullmatch(name) and name not in keep:
            _remove(name, directory)


def clean_up(path: str) -> None:
    """Removes the folders and the link that a killed run of ours left there, and the folder that was read before."""
    # what cannot be removed hurts nobody, and publish will tell what is wrong; locked: its writer is alive
    with suppress(OSError), opened(path, os.O_DIRECTORY) as directory, locked(_BESIDE, directory):
        _tidy(directory, {_leads_to(DATA, directory)})
        os.unlink(_LINK, dir_fd=directory)
