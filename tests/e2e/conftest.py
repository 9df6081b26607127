"""One stack for all end-to-end tests that do not hurt it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.authorization.cast import Cast, gathered
from tests.e2e.authorization.stores import Stores, stores_of
from tests.support.otlp import Collector, collecting
from tests.support.phone import Phone, log_in, signed_in
from tests.support.stack import LocalStack

ADMIN_EMAIL = "admin@example.com"
ADMIN_PASSWORD = "Adm1n-of-a-test"


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    """Where the stack sends its traces."""
    with collecting() as running:
        yield running


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[LocalStack]:
    """Without rate limits, with an administrator, a collector and two replicas that serve terminals.

    Down again after the last of these tests, because it costs time.
    """
    running = LocalStack(
        tmp_path_factory.mktemp("stack"),
        ADMIN_EMAIL=ADMIN_EMAIL,
        ADMIN_PASSWORD=ADMIN_PASSWORD,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="200",
    )
    running.up("--scale", "terminal=2")
    yield running
    running.down()


@pytest.fixture
async def alice(stack: LocalStack) -> AsyncIterator[Phone]:
    async with signed_in(stack.url) as phone:
        yield phone


@pytest.fixture
async def bob(stack: LocalStack) -> AsyncIterator[Phone]:
    async with signed_in(stack.url) as phone:
        yield phone


@pytest.fixture
async def admin(stack: LocalStack) -> AsyncIterator[Phone]:
    async with log_in(stack.url, ADMIN_EMAIL, ADMIN_PASSWORD) as phone:
        yield phone


@pytest.fixture(scope="package")
async def stores(stack: LocalStack) -> AsyncIterator[Stores]:
    """What the stack keeps, behind its back."""
    async with stores_of(stack) as opened:
        yield opened


@pytest.fixture(scope="package")
async def cast(stack: LocalStack, stores: Stores) -> AsyncIterator[Cast]:
    """Callers of every kind, for tests of who may do what."""
    async with log_in(stack.url, ADMIN_EMAIL, ADMIN_PASSWORD) as admin, gathered(stack.url, admin, stores) as everybody:
        yield everybody
