"""Where tokens are published. A sink reads what is there (look) and replaces it whole (publish); it decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.config import DirectoryPublish, FilePublish, VaultPublish
from aca_tokend.sinks import directory, file
from aca_tokend.sinks.directory import DirectorySink
from aca_tokend.sinks.file import FileSink
from aca_tokend.sinks.kv import KvSink

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aca_tokend.core.config import AnyPublish
    from aca_tokend.vault.session import VaultSession

__all__ = ["DirectorySink", "FileSink", "KvSink", "build", "sweep"]


def build(config: AnyPublish, sessions: Mapping[str, VaultSession]) -> KvSink | FileSink | DirectorySink:
    """The sink that a `[[tokens.publish]]` describes; `sessions` are the Vaults by name."""
    match config:
        case VaultPublish():
            return KvSink(config, sessions[config.vault_name or "main"])
        case FilePublish():
            return FileSink(config)
        case DirectoryPublish():
            return DirectorySink(config)


def sweep(configs: Iterable[AnyPublish]) -> None:
    """Removes what a killed run of ours left where these publish."""
    files = []
    for config in configs:
        match config:
            case FilePublish():
                files.append(config)
            case DirectoryPublish():
                directory.sweep(config)
    file.sweep(files)
