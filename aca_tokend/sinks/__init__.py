"""Where tokens are published. A sink reads what is there (look) and replaces it whole (publish); it decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.config import FilePublish, VaultPublish
from aca_tokend.sinks.file import FileSink, sweep
from aca_tokend.sinks.kv import KvSink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.vault import VaultSession

__all__ = ["FileSink", "KvSink", "build", "sweep"]


def build(config: VaultPublish | FilePublish, sessions: Mapping[str, VaultSession]) -> KvSink | FileSink:
    """The sink that a `[[tokens.publish]]` describes; `sessions` are the Vaults by name."""
    match config:
        case VaultPublish():
            return KvSink(config, sessions[config.vault_name or "main"])
        case FilePublish():
            return FileSink(config)
