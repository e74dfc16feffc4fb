"""Where tokens are published. A sink reads what is there (look) and replaces it whole (publish); it decides nothing."""

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

    from aca_tokend.core.config import AnyPublish
    from aca_tokend.vault.session import VaultSession

__all__ = ["DirectorySink", "FileSink", "KvSink", "build", "clean_up"]


def build(config: AnyPublish, sessions: Mapping[str, VaultSession]) -> KvSink | FileSink | DirectorySink:
    """The sink that a `[[tokens.publish]]` describes; `sessions` are the Vaults by name."""
    match config:
        case VaultPublish():
            return KvSink(config, sessions[config.vault_name or "main"])
        case FilePublish():
            return FileSink(config)
        case DirectoryPublish():
            return DirectorySink(config)


def clean_up(configs: Iterable[AnyPublish]) -> None:
    """Removes what killed runs of ours left where these publish, also of files that are not published any more."""
    paths = set()
    for config in configs:
        match config:
            case FilePublish():
                paths.add(os.path.split(config.path)[0])
            case DirectoryPublish():
                paths.add(config.path)
                directory.clean_up(config.path)
    for path in paths:
        atomic.clean_up(path)
