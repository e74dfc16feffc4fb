"""The configuration: its tables, how parsed TOML becomes a `Config`, and the JSON Schema of the file.

Pure: `aca_tokend.config.files` reads the files. A secret is a reference here, and no message repeats a value that may
be one.
"""

from aca_tokend.core.config._addresses import origin, plain_http
from aca_tokend.core.config._auth import (
    AppRoleAuth,
    CertAuth,
    JwtAuth,
    KubernetesAuth,
    LdapAuth,
    TokenAuth,
    UserpassAuth,
)
from aca_tokend.core.config._hooks import After, CommandHook, SignalHook
from aca_tokend.core.config._parse import parse
from aca_tokend.core.config._publish import (
    AnyFiles,
    AnyPublish,
    DirectoryPublish,
    FilePublish,
    FormatConfig,
    VaultPublish,
    after_of,
)
from aca_tokend.core.config._references import (
    EnvReference,
    FileReference,
    PublicFileReference,
    Reference,
    VaultReference,
)
from aca_tokend.core.config._rotation import BackoffConfig, RotationConfig
from aca_tokend.core.config._schema import schema
from aca_tokend.core.config._servers import AdminConfig, EndpointConfig, LogConfig, VaultConfig
from aca_tokend.core.config._shard import ShardConfig
from aca_tokend.core.config._tokens import Config, TokenConfig, VerifyConfig, references, vaults_of

__all__ = [
    "AdminConfig",
    "After",
    "AnyFiles",
    "AnyPublish",
    "AppRoleAuth",
    "BackoffConfig",
    "CertAuth",
    "CommandHook",
    "Config",
    "DirectoryPublish",
    "EndpointConfig",
    "EnvReference",
    "FilePublish",
    "FileReference",
    "FormatConfig",
    "JwtAuth",
    "KubernetesAuth",
    "LdapAuth",
    "LogConfig",
    "PublicFileReference",
    "Reference",
    "RotationConfig",
    "ShardConfig",
    "SignalHook",
    "TokenAuth",
    "TokenConfig",
    "UserpassAuth",
    "VaultConfig",
    "VaultPublish",
    "VaultReference",
    "VerifyConfig",
    "after_of",
    "origin",
    "parse",
    "plain_http",
    "references",
    "schema",
    "vaults_of",
]
