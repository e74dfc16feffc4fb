"""The Vault of most tests here, and a session with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.vault.bench import HELD, PATH, bench
from tests.unit.vault.stub import vault_stub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.vault.bench import Bench
    from tests.unit.vault.stub import VaultStub


@pytest.fixture
def stub() -> Iterator[VaultStub]:
    """A Vault that holds a secret as version 3."""
    with vault_stub() as running:
        running.always(PATH, HELD)
        yield running


@pytest.fixture
def by_token(stub: VaultStub) -> Iterator[Bench]:
    """A session that logs in by token."""
    with bench(stub.address) as made:
        yield made
