"""What a node of a Vault says of its own state, to anybody who asks: no log-in is needed, and none is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.core.errors import ReachError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.vault_answers import Health, health_of
from aca_tokend.vault.client import RequestFailedError, client_of
from aca_tokend.vault.nodes import Nodes

if TYPE_CHECKING:
    from aca_tokend.core.config import VaultConfig


def read_health(config: VaultConfig) -> Health:
    """Asks the node of this table, which has one address. Raises ReachError."""
    # only the root namespace answers this
    config = config.model_copy(update={"namespace": ""})
    nodes = Nodes(config)
    try:
        # whatever its state, its status is to be 200
        answer = client_of(config, nodes, None).sys.read_health_status(
            standby_ok=True,
            standby_code=200,
            dr_secondary_code=200,
            performance_standby_code=200,
            sealed_code=200,
            uninit_code=200,
            method="GET",
        )
    except RequestFailedError as failed:
        raise ReachError(failed.reason, failed.message) from failed
    finally:
        nodes.close()
    health = health_of(answer)
    if health is None:
        raise ReachError(Reason.NOT_JSON, "the answer is not one of Vault")
    return health
