"""The application every service is made of: problems, ids, limits, health, on real servers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, Field

from libs.common.contracts.identity import Plan
from libs.common.errors import DevPocketError, ErrorKind
from libs.common.http.app import create_service_app
from libs.common.http.auth import CurrentAdmin, CurrentUser
from libs.common.platform import Platform
from libs.common.settings import CommonSettings
from tests.support.app import running_app
from tests.support.servers import Servers, free_port, nats_server, redis_server
from tests.support.tokens import TestIssuer

MakeSettings = Callable[..., Any]


class TeapotError(DevPocketError):
    kind = ErrorKind.CONFLICT
    code = "teapot"


class Body(BaseModel):
    name: Annotated[str, Field(min_length=2)]


def an_app(settings: CommonSettings, issuer: TestIssuer) -> FastAPI:
    platform = Platform(settings, "envs", keys=issuer)
    router = APIRouter()

    @router.get("/things")
    async def things() -> list[str]:
        return []

    @router.post("/things")
    async def make(body: Body) -> Body:
        return body

    @router.get("/me")
    async def me(user: CurrentUser) -> str:
        return user.user_id

    @router.get("/admin")
    async def admin(_: CurrentAdmin) -> str:
        return "welcome"

    @router.get("/teapot")
    async def teapot() -> None:
        raise TeapotError("I am a teapot, ask for tea")

    @router.get("/bug")
    async def bug() -> None:
        raise RuntimeError("the password is hunter2")

    @router.get("/database")
    async def database() -> Any:
        return await platform.database["x"].find_one({})

    async def prepare() -> None:
        return

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with platform.starting(prepare):
            yield

    return create_service_app(platform, [router], lifespan)


@pytest.fixture
def settings(backend: Servers, make_settings: MakeSettings) -> CommonSettings:
    made: CommonSettings = make_settings(CommonSettings)
    return made


@pytest.fixture
async def issuer(settings: CommonSettings) -> TestIssuer:
    return TestIssuer(settings)


@pytest.fixture
async def client(settings: CommonSettings, issuer: TestIssuer) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(an_app(settings, issuer)) as client:
        yield client


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    return problem


class TestProblems:
    async def test_invalid_body_names_each_field(self, client: httpx.AsyncClient) -> None:
        problem = assert_problem(await client.post("/things", json={"name": "x"}), 422, "validation_error")
        assert problem["errors"][0]["field"] == "body.name"

    async def test_broken_json_is_422(self, client: httpx.AsyncClient) -> None:
        assert_problem(
            await client.post("/things", content=b"{", headers={"content-type": "application/json"}),
            422,
            "validation_error",
        )

    async def test_a_typed_error_keeps_its_code_and_sentence(self, client: httpx.AsyncClient) -> None:
        problem = assert_problem(await client.get("/teapot"), 409, "teapot")
        assert problem["detail"] == "I am a teapot, ask for tea"

    async def test_unknown_path_and_method(self, client: httpx.AsyncClient) -> None:
        assert_problem(await client.get("/nothing"), 404, "not_found")
        assert_problem(await client.delete("/things"), 405, "method_not_allowed")

    async def test_a_bug_is_500_and_says_nothing_of_its_cause(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/bug")
        assert_problem(response, 500, "internal_error")
        assert "hunter2" not in response.text

    async def test_large_bodies_are_413(self, settings: CommonSettings, issuer: TestIssuer) -> None:
        small = settings.model_copy(update={"max_body_bytes": 1024})

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        async with running_app(an_app(small, issuer)) as client:
            assert_problem(await client.post("/things", content=b"x" * 2000), 413, "content_too_large")
            assert_problem(await client.post("/things", content=chunks()), 413, "content_too_large")


class TestRequests:
    async def test_a_trailing_slash_answers_without_a_redirect(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/things")).status_code == (await client.get("/things/")).status_code == 200

    async def test_a_request_id_is_kept_when_sane_and_replaced_when_not(self, client: httpx.AsyncClient) -> None:
        kept = await client.get("/things", headers={"X-Request-ID": "abc-12345678"})
        assert kept.headers["x-request-id"] == "abc-12345678"
        replaced = await client.get("/things", headers={"X-Request-ID": "<script>"})
        assert replaced.headers["x-request-id"] != "<script>"

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/things", 200),
            ("POST", "/things", 422),
            ("GET", "/nothing", 404),
            ("GET", "/bug", 500),
            ("GET", "/health/live", 200),
            ("GET", "/api/v1/events", 404),
        ],
    )
    async def test_every_answer_names_its_trace_once(
        self, client: httpx.AsyncClient, method: str, path: str, status: int
    ) -> None:
        named = "4bf92f3577b34da6a3ce929d0e0e4736"
        headers = {"traceparent": f"00-{named}-00f067aa0ba902b7-01"}
        response = await client.request(method, path, headers=headers)
        assert response.status_code == status
        assert response.headers.get_list("x-trace-id") == [named]
        (told,) = response.headers.get_list("traceresponse")
        assert re.fullmatch(rf"00-{named}-[0-9a-f]{{16}}-0[01]", told)
        assert "00f067aa0ba902b7" not in told

    async def test_pages_of_other_origins_may_read_the_ids(self, settings: CommonSettings, issuer: TestIssuer) -> None:
        page = "https://app.example.com"
        there = settings.model_copy(update={"allowed_origins": [page]})
        async with running_app(an_app(there, issuer)) as client:
            response = await client.get("/things", headers={"Origin": page})
        exposed = response.headers["access-control-expose-headers"]
        assert {"X-Request-ID", "X-Trace-ID", "traceresponse"} <= set(exposed.split(", "))

    async def test_who_may_call(self, client: httpx.AsyncClient, issuer: TestIssuer) -> None:
        problem = assert_problem(await client.get("/me"), 401, "unauthenticated")
        assert problem["detail"] == "Not authenticated"
        assert (await client.get("/me")).headers["www-authenticate"] == "Bearer"
        assert_problem(await client.get("/me", headers={"Authorization": "Basic eDp5"}), 401, "unauthenticated")
        assert (await client.get("/me", headers=issuer.headers("u1"))).json() == "u1"
        assert_problem(await client.get("/admin", headers=issuer.headers()), 403, "forbidden")
        assert (await client.get("/admin", headers=issuer.headers(plan=Plan.ADMIN))).status_code == 200


class TestRateLimit:
    async def test_counts_per_user_and_says_when_to_come_back(
        self, settings: CommonSettings, issuer: TestIssuer
    ) -> None:
        limited = settings.model_copy(update={"rate_limit_global": "3/minute"})
        async with running_app(an_app(limited, issuer)) as client:
            headers = issuer.headers("rate-user-1")
            answers = [await client.get("/things", headers=headers) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
            assert 0 < int(answers[3].headers["retry-after"]) <= 60
            assert_problem(answers[3], 429, "rate_limited")
            assert (await client.get("/things", headers=issuer.headers("rate-user-2"))).status_code == 200
            assert (await client.get("/health", headers=headers)).status_code == 200

    async def test_two_replicas_share_the_count(self, settings: CommonSettings, issuer: TestIssuer) -> None:
        limited = settings.model_copy(update={"rate_limit_global": "3/minute"})
        async with running_app(an_app(limited, issuer)) as one, running_app(an_app(limited, issuer)) as two:
            headers = issuer.headers("rate-user-3")
            codes = [(await client.get("/things", headers=headers)).status_code for client in (one, two, one, two)]
            assert codes == [200, 200, 200, 429]

    async def test_without_redis_requests_pass_and_readiness_says_why(
        self, settings: CommonSettings, issuer: TestIssuer, tmp_path: Any
    ) -> None:
        redis = redis_server(tmp_path)
        redis.start()
        changes = {"rate_limit_global": "1/minute", "redis_url": f"redis://127.0.0.1:{redis.port}/0"}
        limited = CommonSettings.model_validate({**dict(settings), **changes})
        try:
            async with running_app(an_app(limited, issuer)) as client:
                redis.kill()
                codes = [(await client.get("/things")).status_code for _ in range(3)]
                assert codes == [200, 200, 200]
                answer = await client.get("/health/ready")
                assert answer.status_code == 503
                assert answer.json()["checks"]["cache"] == "unhealthy"
                assert answer.json()["checks"]["database"] == "healthy"
        finally:
            redis.stop()


class TestStart:
    async def test_a_service_waits_for_nats_and_is_alive_meanwhile(
        self, settings: CommonSettings, issuer: TestIssuer, tmp_path: Any
    ) -> None:
        nats = nats_server(tmp_path)
        waiting = CommonSettings.model_validate({**dict(settings), "nats_url": f"nats://127.0.0.1:{nats.port}"})
        app = an_app(waiting, issuer)
        try:
            async with app.router.lifespan_context(app):
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    assert (await client.get("/health/live")).json() == {"status": "alive"}
                    answer = await client.get("/health/ready")
                    assert answer.status_code == 503
                    assert answer.json()["checks"]["messaging"] == "unhealthy"
                    await asyncio.to_thread(nats.start)
                    await asyncio.wait_for(app.state.platform.health.wait_started(), 60)
                    assert (await client.get("/health")).json()["status"] == "healthy"
        finally:
            nats.stop()

    async def test_a_database_that_is_away_is_a_503(self, settings: CommonSettings, issuer: TestIssuer) -> None:
        url = f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=200"
        app = an_app(CommonSettings.model_validate({**dict(settings), "mongodb_url": url}), issuer)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                answer = await client.get("/database")
                assert_problem(answer, 503, "unavailable")
                assert answer.headers["retry-after"] == "2"
