"""`[vault.NAME.auth]`: one table for each method of log-in."""

from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from aca_tokend.core.config._choice import table_by
from aca_tokend.core.config._kinds import Mount
from aca_tokend.core.config._references import LocalSecretReference, TextOrLocalReference
from aca_tokend.core.config._table import Table


class TokenAuth(Table):
    """Uses a Vault token that something else keeps valid."""

    method: Literal["token"] = Field(default="token", description="A Vault token that something else keeps valid.")
    token: LocalSecretReference = Field(
        description="The Vault token. It is read again at each log-in.",
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


Auth = Annotated[
    TokenAuth | AppRoleAuth,
    PlainValidator(
        table_by(
            "method",
            {"token": TokenAuth, "approle": AppRoleAuth},
            later=("kubernetes", "jwt", "cert", "userpass", "ldap"),
        ),
        json_schema_input_type=TokenAuth | AppRoleAuth,
    ),
]
