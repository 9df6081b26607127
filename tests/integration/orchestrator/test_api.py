"""Regions and clusters over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from libs.common.contracts.identity import Plan
from services.orchestrator.main import create_app
from services.orchestrator.settings import OrchestratorSettings
from tests.fakes.runtime import FakeRuntime
from tests.support.app import running_app
from tests.support.tokens import TestIssuer


@pytest.fixture
async def client(settings: OrchestratorSettings, issuer: TestIssuer) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(create_app(settings, keys=issuer, runtime=FakeRuntime())) as client:
        yield client


class TestRegions:
    async def test_a_user_sees_where_environments_can_run(self, client: httpx.AsyncClient, issuer: TestIssuer) -> None:
        answer = await client.get("/api/v1/regions", headers=issuer.headers())
        assert answer.status_code == 200
        assert answer.json() == [{"name": "local", "status": "available", "is_default": True}]

    async def test_nobody_sees_nothing(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/v1/regions")
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"


class TestClusters:
    async def test_an_admin_sees_them(self, client: httpx.AsyncClient, issuer: TestIssuer) -> None:
        answer = await client.get("/api/v1/clusters/", headers=issuer.headers(plan=Plan.ADMIN))
        assert answer.status_code == 200
        [cluster] = answer.json()
        assert (cluster["id"], cluster["region"], cluster["runtime"]) == ("default", "local", "local")
        assert (cluster["status"], cluster["health"], cluster["is_default"]) == ("active", "healthy", True)
        assert (cluster["environments"], cluster["capacity"], cluster["source"]) == (0, None, "settings")

    async def test_others_do_not(self, client: httpx.AsyncClient, issuer: TestIssuer) -> None:
        answer = await client.get("/api/v1/clusters", headers=issuer.headers(plan=Plan.PRO))
        assert answer.status_code == 403
        assert answer.json()["code"] == "forbidden"


class TestHealth:
    async def test_names_the_runtime(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/health/ready")
        assert answer.status_code == 200
        assert answer.json()["checks"]["runtime"] == "healthy"
