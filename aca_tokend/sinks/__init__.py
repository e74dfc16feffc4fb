"""Where tokens are published: a KV secret, a file, a directory of files. A sink decides nothing.

- It replaces exactly what was read, whole, or says why not: readers find the old token or the new one.
- What a publish to an empty place would fail on, its look says, before a grant is made.
- It writes no file that it could not read again, and removes none that readers may be led to.
- What a killed run left beside files is found again by its name.
- A hook, which follows a write, gets no secret, ends within its time-out, and takes what it started with it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aca_tokend.core.config import DirectoryPublish, FilePublish, VaultPublish
from aca_tokend.sinks import atomic, directory
from aca_tokend.sinks.directory import DirectorySink
from aca_tokend.sinks.file import FileSink
from aca_tokend.sinks.kv import KvSink

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aca_tokend.core.config import AnyFiles, AnyPublish
    from aca_tokend.vault.session import VaultSession

__all__ = ["DirectorySink", "FileSink", "KvSink", "build", "clean_up", "where"]


def build(config: AnyPublish, sessions: Mapping[str, VaultSession]) -> KvSink | FileSink | DirectorySink:
    """The sink that a `[[tokens.publish]]` describes; `sessions` are the Vaults by name."""
    match config:
        case VaultPublish():
            return KvSink(config, sessions[config.vault_name or "main"])
        case FilePublish():
            return FileSink(config)
        case DirectoryPublish():
            return DirectorySink(config)


def where(config: AnyFiles) -> tuple[str, str]:
    """The directory that is written to, and the name in it that is replaced."""
    return os.path.split(config.path) if isinstance(config, FilePublish) else (config.path, directory.DATA)


def clean_up(configs: Iterable[AnyFiles]) -> None:
    """Removes what killed runs of ours left where these publish, also of files that are not published any more."""
    configs = list(configs)
    for path in {where(config)[0] for config in configs}:
        atomic.clean_up(path)
    for config in configs:
        if isinstance(config, DirectoryPublish):
            directory.clean_up(config.path)
