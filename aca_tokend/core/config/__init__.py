"""The configuration: its tables, how parsed TOML becomes a `Config`, and the JSON Schema of the file.

Pure: `aca_tokend.config_files` reads the files. A secret is a reference here, and no message repeats a value that may
be one.
"""

from aca_tokend.core.config._auth import AppRoleAuth, TokenAuth
from aca_tokend.core.config._parse import parse
from aca_tokend.core.config._publish import FilePublish, VaultPublish
from aca_tokend.core.config._references import EnvReference, FileReference, LocalReference, Reference, VaultReference
from aca_tokend.core.config._rotation import BackoffConfig, RotationConfig
from aca_tokend.core.config._schema import schema
from aca_tokend.core.config._servers import AdminConfig, EndpointConfig, LogConfig, VaultConfig
from aca_tokend.core.config._shard import ShardConfig
from aca_tokend.core.config._tokens import Config, TokenConfig, VerifyConfig

__all__ = [
    "AdminConfig",
    "AppRoleAuth",
    "BackoffConfig",
    "Config",
    "EndpointConfig",
    "EnvReference",
    "FilePublish",
    "FileReference",
    "LocalReference",
    "LogConfig",
    "Reference",
    "RotationConfig",
    "ShardConfig",
    "TokenAuth",
    "TokenConfig",
    "VaultConfig",
    "VaultPublish",
    "VaultReference",
    "VerifyConfig",
    "parse",
    "schema",
]
