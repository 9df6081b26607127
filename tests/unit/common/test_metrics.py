"""Collectors, the middleware that counts requests, and the observers: what they say, and that they stay bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse

from libs.common.loop_watch import LoopWatch
from libs.common.metrics.endpoint import metrics_server
from libs.common.metrics.families import Asked, Family, Reasons, Values
from libs.common.metrics.http import HttpMetrics, MetricsMiddleware
from libs.common.metrics.registry import Metrics
from libs.common.mongo_pool import PoolWatch
from tests.support.servers import free_port

_DEPTH = Family("devpocket_depth", "How deep it is.")


def _asked(ask: Callable[[], Awaitable[Values]], **times: float) -> tuple[Asked, CollectorRegistry]:
    asked, registry = Asked([_DEPTH], ask, **times), CollectorRegistry()
    registry.register(asked)
    return asked, registry


class TestAsked:
    async def test_an_answer_is_remembered(self) -> None:
        looks = 0

        async def ask() -> Values:
            nonlocal looks
            looks += 1
            return {_DEPTH.name: {(): 7}}

        asked, registry = _asked(ask, keep_s=60)
        await asyncio.gather(asked.refresh(), asked.refresh())
        assert looks == 1
        assert registry.get_sample_value(_DEPTH.name) == 7

    async def test_what_takes_long_to_find_out_is_asked_less_often(self) -> None:
        looks = 0

        async def ask() -> Values:
            nonlocal looks
            looks += 1
            await asyncio.sleep(0.1)
            return {}

        asked, _ = _asked(ask, keep_s=0)
        for _ in range(5):
            await asked.refresh()
        assert looks == 1

    async def test_without_an_answer_nothing_is_said(self) -> None:
        answers: list[Values | Exception] = [{_DEPTH.name: {(): 7}}, ConnectionError("away")]

        async def ask() -> Values:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        asked, registry = _asked(ask, keep_s=0)
        await asked.refresh()
        assert registry.get_sample_value(_DEPTH.name) == 7
        while answers:
            # Twenty times as long as the first answer took has to pass.
            await asked.refresh()
        assert registry.get_sample_value(_DEPTH.name) is None

    async def test_who_gives_no_answer_holds_up_nobody(self) -> None:
        async def ask() -> Values:
            await asyncio.Event().wait()
            raise AssertionError

        asked, registry = _asked(ask, limit_s=0.05)
        async with asyncio.timeout(60):
            await asked.refresh()
        assert registry.get_sample_value(_DEPTH.name) is None


class TestReasons:
    def test_a_label_has_a_bounded_number_of_values(self) -> None:
        reasons = Reasons(["CrashLoop"], limit=3)
        labels = [reasons.label(f"Reason{chr(65 + number)}") for number in range(10)]
        assert set(labels) == {"ReasonA", "ReasonB", "Other"}
        assert reasons.label("CrashLoop") == "CrashLoop"

    @pytest.mark.parametrize("reason", [None, "", "no reason", "pod-0199f", "X" * 60, 'A"} 1\nforged'])
    def test_what_is_no_reason_is_other(self, reason: str | None) -> None:
        assert Reasons().label(reason) == "Other"

    def test_counts_of_others_are_added_up(self) -> None:
        assert Reasons().tally({None: 2, "x": 3, "NodeLost": 1}) == {("Other",): 5, ("NodeLost",): 1}


def _app(metrics: Metrics) -> FastAPI:
    app = FastAPI()

    @app.get("/things/{thing_id}")
    async def get_thing(thing_id: str) -> str:
        if thing_id == "broken":
            raise RuntimeError
        return thing_id

    @app.websocket("/socket/{thing_id}")
    async def socket(websocket: WebSocket, thing_id: str) -> None:
        if thing_id == "refused":
            await websocket.send_denial_response(PlainTextResponse("no", 409))
            return
        await websocket.accept()
        assert (await websocket.receive_text()) == "hello"
        await websocket.close(4404)

    app.add_middleware(MetricsMiddleware, metrics=HttpMetrics(metrics))
    return app


class TestRequests:
    async def test_are_counted_by_template_status_and_known_method(self) -> None:
        metrics = Metrics("test")
        transport = httpx.ASGITransport(_app(metrics), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path in ("/things/1", "/things/2", "/things/broken", "/nothing/1", "/nothing/2", "/health"):
                await client.get(path)
            await client.request("BREW", "/things/1")

        def count(**labels: str) -> float | None:
            return metrics.registry.get_sample_value("devpocket_http_requests_total", labels)

        assert count(method="GET", route="/things/{thing_id}", status="200") == 2
        assert count(method="GET", route="/things/{thing_id}", status="500") == 1
        assert count(method="GET", route="unmatched", status="404") == 2
        assert count(method="other", route="/things/{thing_id}", status="405") == 1
        assert metrics.registry.get_sample_value("devpocket_http_requests_in_progress") == 0
        text = (await metrics.exposition()).decode()
        assert "nothing/1" not in text
        assert "/health" not in text

    async def test_websockets_are_counted_by_how_they_end(self) -> None:
        from starlette.testclient import TestClient

        metrics = Metrics("test")
        route = "/socket/{thing_id}"

        def look() -> None:
            client = TestClient(_app(metrics))
            with client.websocket_connect("/socket/1") as socket:
                open_now = metrics.registry.get_sample_value("devpocket_websocket_connections", {"route": route})
                assert open_now == 1
                socket.send_text("hello")
                assert socket.receive()["code"] == 4404
            with pytest.raises(Exception, match=r".*"), client.websocket_connect("/socket/refused"):
                pass

        await asyncio.to_thread(look)

        def ended(code: str) -> float | None:
            return metrics.registry.get_sample_value(
                "devpocket_websockets_ended_total", {"route": route, "close_code": code}
            )

        assert (ended("4404"), ended("409")) == (1, 1)
        assert metrics.registry.get_sample_value("devpocket_websocket_connections", {"route": route}) == 0


class TestLoopWatch:
    async def test_says_the_worst_of_the_last_minute_to_everybody_who_asks(self) -> None:
        watch = LoopWatch()
        now = time.monotonic()
        for late_s, ago_s in ((0.9, 90), (0.5, 40), (0.2, 30), (0.3, 20), (0.1, 1)):
            watch._note(late_s, now - ago_s)
        assert watch.worst_lately_s() == 0.5
        assert watch.worst_lately_s() == 0.5

    def test_says_nothing_before_anything_was_measured(self) -> None:
        assert LoopWatch().worst_lately_s() == 0


class TestPoolWatch:
    def test_counts_what_the_driver_tells(self) -> None:
        pool = PoolWatch()
        for tell in (
            *(pool.connection_created, pool.connection_checked_out, pool.connection_created),
            *(pool.connection_checked_out, pool.connection_checked_in),
        ):
            tell(None)
        assert (pool.in_use, pool.idle) == (1, 1)
        for tell in (pool.connection_checked_in, pool.connection_closed):
            tell(None)
        assert (pool.in_use, pool.idle) == (0, 1)


class TestOwnPort:
    async def test_serves_metrics_and_nothing_else(self) -> None:
        metrics, port = Metrics("test"), free_port()
        async with metrics_server(metrics, "127.0.0.1", port), httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{port}/metrics")
            assert answer.status_code == 200
            assert 'devpocket_build_info{service="test"' in answer.text
            assert (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 404
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{port}/metrics")

    async def test_a_port_that_is_taken_is_an_error_and_ends_nothing_else(self) -> None:
        metrics, port = Metrics("test"), free_port()
        async with metrics_server(metrics, "127.0.0.1", port):
            with pytest.raises(OSError, match="in use"):
                async with metrics_server(metrics, "127.0.0.1", port):
                    pass
