"""`[vault.NAME.auth]`: one table for each method of log-in."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, PlainValidator

from aca_tokend.core.config._choice import table_by
from aca_tokend.core.config._kinds import FilePath, Mount, Text, visible
from aca_tokend.core.config._references import LocalSecretReference, TextOrLocalReference
from aca_tokend.core.config._table import Table

SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 -- a path

OptionalText = Annotated[str, AfterValidator(visible)]


class TokenAuth(Table):
    """Uses a Vault token that something else provides."""

    method: Literal["token"] = Field(
        default="token", description="A Vault token that something else provides; it is renewed where it can be."
    )
    token: LocalSecretReference = Field(
        description="The Vault token. It is read again before each renewal, and another one is then used.",
        examples=[{"file": "/run/secrets/aca/vault-token"}],
    )


class AppRoleAuth(Table):
    """Logs in with a role and its secret id."""

    method: Literal["approle"] = Field(default="approle", description="A role and its secret id.")
    role_id: TextOrLocalReference = Field(
        description="Id of the role.", examples=["59d6d1ca-47bb-4e7e-a40b-8be3bc5a0ba8"]
    )
    secret_id: LocalSecretReference = Field(
        description="Secret id of the role. It is read again at each log-in.",
        examples=[{"file": "/run/secrets/aca/secret-id"}],
    )
    mount: Mount = Field(default="approle", description="Where the method is mounted.")


class KubernetesAuth(Table):
    """Logs in as the service account of the pod."""

    method: Literal["kubernetes"] = Field(default="kubernetes", description="The service account of the pod.")
    role: Text = Field(description="Role that the service account is bound to.", examples=["aca-tokend"])
    jwt_file: FilePath = Field(
        default=SERVICE_ACCOUNT_TOKEN,
        description="File with the token of the service account. It is read again at each log-in.",
    )
    mount: Mount = Field(default="kubernetes", description="Where the method is mounted.")


class JwtAuth(Table):
    """Logs in with a signed token of an identity provider."""

    method: Literal["jwt"] = Field(default="jwt", description="A signed token (JWT) of an identity provider.")
    role: OptionalText = Field(default="", description='Role to log in to; `""` is the default role of the mount.')
    jwt_file: FilePath = Field(
        description="File with the signed token. It is read again at each log-in.", examples=["/run/secrets/aca/jwt"]
    )
    mount: Mount = Field(default="jwt", description="Where the method is mounted.")


class CertAuth(Table):
    """Logs in with the client certificate of the connection."""

    method: Literal["cert"] = Field(
        default="cert", description="The client certificate in `tls_cert` of `[vault.NAME]`."
    )
    role: OptionalText = Field(default="", description='Role to log in to; `""` is any that trusts the certificate.')
    mount: Mount = Field(default="cert", description="Where the method is mounted.")


class UserpassAuth(Table):
    """Logs in as a user that Vault itself knows."""

    method: Literal["userpass"] = Field(default="userpass", description="A user that Vault itself knows.")
    username: TextOrLocalReference = Field(description="Name of the user.", examples=["aca-tokend"])
    password: LocalSecretReference = Field(
        description="Password of the user. It is read again at each log-in.",
        examples=[{"file": "/run/secrets/aca/vault-password"}],
    )
    mount: Mount = Field(default="userpass", description="Where the method is mounted.")


class LdapAuth(Table):
    """Logs in as a user of a directory."""

    method: Literal["ldap"] = Field(default="ldap", description="A user of a directory (LDAP).")
    username: TextOrLocalReference = Field(description="Name of the user.", examples=["svc-aca-tokend"])
    password: LocalSecretReference = Field(
        description="Password of the user. It is read again at each log-in.",
        examples=[{"file": "/run/secrets/aca/ldap-password"}],
    )
    mount: Mount = Field(default="ldap", description="Where the method is mounted.")


_Tables = TokenAuth | AppRoleAuth | KubernetesAuth | JwtAuth | CertAuth | UserpassAuth | LdapAuth

Auth = Annotated[_Tables, PlainValidator(table_by("method", get_args(_Tables)), json_schema_input_type=_Tables)]
