"""GET /metrics of every service on real servers, and with a database that is away."""

from __future__ import annotations

import importlib
import logging
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from services.auth.settings import AuthSettings
from services.envs.settings import EnvsSettings
from services.orchestrator.settings import OrchestratorSettings
from services.terminal.settings import TerminalSettings
from tests.fakes.exec_runtime import HostExecRuntime
from tests.fakes.runtime import FakeRuntime
from tests.support.app import eventually, running_app
from tests.support.servers import Servers, free_port
from tests.support.tokens import TestIssuer

_KINDS: dict[str, type[Any]] = {
    "auth": AuthSettings,
    "envs": EnvsSettings,
    "orchestrator": OrchestratorSettings,
    "terminal": TerminalSettings,
}
_OF_THE_DATABASE = {
    "auth": "devpocket_outbox_pending_events",
    "envs": "devpocket_environments",
    "orchestrator": "devpocket_workspaces",
    "terminal": "devpocket_outbox_oldest_event_age_seconds",
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _app(service: str, settings: Any) -> FastAPI:
    create: Callable[..., FastAPI] = importlib.import_module(f"services.{service}.main").create_app
    if service == "auth":
        return create(settings)
    more: dict[str, Any] = {"orchestrator": {"runtime": FakeRuntime()}, "terminal": {"runtime": HostExecRuntime()}}
    return create(settings, keys=TestIssuer(settings), **more.get(service, {}))


async def _scrape(client: httpx.AsyncClient) -> tuple[str, Samples]:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    samples = [sample for family in families for sample in family.samples]
    return answer.text, {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def _value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


@pytest.mark.parametrize("service", list(_KINDS))
class TestEveryService:
    async def test_says_how_it_is(
        self, service: str, clean_backend: Servers, make_settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = make_settings(_KINDS[service], rate_limit_global="1/hour", log_level="INFO")
        app = _app(service, settings)
        async with running_app(app) as client:
            caplog.set_level(logging.INFO)
            for _ in range(2):
                await client.get("/api/v1/nothing/0199f3f2")
            text, samples = await _scrape(client)
            assert (await _scrape(client))[0], "a scrape is not rate limited"
            assert not [record for record in caplog.records if "/metrics" in record.getMessage()]
            assert "/metrics" not in app.openapi()["paths"]

        for part in ("database", "messaging", "cache"):
            assert _value(samples, "devpocket_dependency_up", dependency=part) == 1
        assert _value(samples, "devpocket_dead_letters", service=service) == 0
        assert _value(samples, "devpocket_outbox_pending_events") is not None
        assert _value(samples, _OF_THE_DATABASE[service], **_labels_of(service)) == 0
        assert _value(samples, "devpocket_rate_limit_refusals_total", limit="global") == 1
        refused = {"method": "GET", "route": "unmatched", "status": "429"}
        assert _value(samples, "devpocket_http_requests_total", **refused) == 1
        for consumer in app.state.platform.bus.consumers:
            assert _value(samples, "devpocket_consumer_pending_messages", consumer=consumer) == 0
        assert (_value(samples, "devpocket_mongodb_pool_size_max") or 0) > 0
        assert "0199f3f2" not in text
        _lint(text)

    async def test_says_what_is_away_and_leaves_out_what_it_cannot_know(
        self, service: str, clean_backend: Servers, make_settings: Any
    ) -> None:
        nowhere = f"mongodb://127.0.0.1:{free_port()}"
        app = _app(service, make_settings(_KINDS[service], mongodb_url=nowhere))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                started = time.monotonic()
                _, samples = await _scrape(client)
                # Each look has its limit, of seconds; on a machine that does other things too it takes longer.
                assert time.monotonic() - started < 30
        assert _value(samples, "devpocket_dependency_up", dependency="database") == 0
        assert _value(samples, "devpocket_dependency_up", dependency="cache") == 1
        assert not [name for name, _ in samples if name == _OF_THE_DATABASE[service]]
        assert not [name for name, _ in samples if name.startswith("devpocket_outbox")]
        assert _value(samples, "devpocket_http_requests_in_progress") == 0


def _labels_of(service: str) -> dict[str, str]:
    return {"envs": {"status": "error"}, "orchestrator": {"state": "failed"}}.get(service, {})


def _lint(text: str) -> None:
    if not shutil.which("promtool"):
        return
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_sign_ins_are_counted_by_how_they_end(clean_backend: Servers, make_settings: Any) -> None:
    app = _app("auth", make_settings(AuthSettings, password_hash_cost=4, lockout_failures=2))
    account = {"username": "somebody", "email": "somebody@example.com", "password": "Passw0rd-of-a-test"}
    async with running_app(app) as client:
        assert (await client.post("/api/v1/auth/register", json=account)).status_code == 201
        for password, status in ((account["password"], 200), ("wrong", 401), ("wrong", 401), ("wrong", 401)):
            body = {"username_or_email": account["email"], "password": password}
            assert (await client.post("/api/v1/auth/login", json=body)).status_code == status
        _, samples = await _scrape(client)

        async def published() -> bool:
            return (_value((await _scrape(client))[1], "devpocket_events_published_total") or 0) >= 2

        await eventually(published)

    def logins(outcome: str) -> float | None:
        return _value(samples, "devpocket_logins_total", method="password", outcome=outcome)

    assert (logins("succeeded"), logins("failed"), logins("locked")) == (1, 2, 1)
