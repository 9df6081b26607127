"""The store in memory behaves as the real one."""

from __future__ import annotations

import pytest

from tests.unit.orchestrator.memory import MemoryStore
from tests.unit.orchestrator.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
