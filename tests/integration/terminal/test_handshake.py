"""Who may connect: refusals as HTTP answers, tickets, limits."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from websockets.asyncio.client import connect

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.ids import new_id
from tests.integration.terminal.harness import TIMEOUT_S, Service, running_service
from tests.support.app import eventually
from tests.support.servers import Servers


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, body["code"]


class TestRefusals:
    @pytest.mark.parametrize("path", ["terminal", "logs"])
    async def test_without_a_good_token_it_is_401(self, service: Service, path: str) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        expired = service.issuer.token(user_id, life_s=-5)
        forged = service.issuer.token(user_id)[:-8] + "AAAAAAAA"
        for query in ({}, {"token": ""}, {"token": "nonsense"}, {"token": expired}, {"token": forged}, {"ticket": "x"}):
            answer = await service.refusal(service.url(f"{path}/{environment_id}", **query))
            assert problem(answer) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"

    async def test_a_revoked_login_is_401(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        principal = await service.app.state.platform.tokens.verify(token)
        service.app.state.platform.revocations.add([principal.session_id])
        answer = await service.refusal(service.url(f"terminal/{environment_id}", token=token))
        assert problem(answer) == (401, "unauthenticated")

    @pytest.mark.parametrize("path", ["terminal", "logs"])
    async def test_what_is_not_there_and_what_is_not_yours_look_the_same(self, service: Service, path: str) -> None:
        owner, other = new_id(), new_id()
        environment_id = await service.environment(owner)
        deleted_id = await service.environment(other)
        await service.delete(deleted_id, other)
        await service.caught_up()
        token = service.issuer.token(other)
        targets = (environment_id, new_id(), deleted_id, "a%20b")
        refusals = (service.refusal(service.url(f"{path}/{target}", token=token)) for target in targets)
        answers = []
        for answer in await asyncio.gather(*refusals):
            assert problem(answer) == (404, "environment_not_found")
            answers.append({**answer.json(), "request_id": ""})
        assert all(answer == answers[0] for answer in answers)

    @pytest.mark.parametrize(
        "status",
        [EnvironmentStatus.CREATING, EnvironmentStatus.STOPPED, EnvironmentStatus.RESTARTING, EnvironmentStatus.ERROR],
    )
    async def test_an_environment_that_does_not_run_is_409(self, service: Service, status: EnvironmentStatus) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id, status)
        answer = await service.refusal(service.url(f"terminal/{environment_id}", token=service.issuer.token(user_id)))
        assert problem(answer) == (409, "environment_not_running")

    async def test_a_workspace_that_is_gone_though_it_should_run_is_409(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        service.runtime.stopped.add(environment_id)
        answer = await service.refusal(service.url(f"terminal/{environment_id}", token=service.issuer.token(user_id)))
        assert problem(answer) == (409, "environment_not_running")

    async def test_a_runtime_that_is_away_is_503(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        service.runtime.away = True
        try:
            answer = await service.refusal(
                service.url(f"terminal/{environment_id}", token=service.issuer.token(user_id))
            )
        finally:
            service.runtime.away = False
        assert problem(answer) == (503, "unavailable")

    @pytest.mark.parametrize(
        ("path", "query"),
        [
            ("terminal", {"cols": 0}),
            ("terminal", {"rows": "many"}),
            ("terminal", {"mode": "root"}),
            ("terminal", {"session": "../x"}),
            ("terminal", {"offset": -1}),
            ("logs", {"tail": -1}),
            ("logs", {"tail": 10_001}),
            ("logs", {"since": "yesterday"}),
            ("logs", {"since": "2026-01-01T00:00:00"}),
            ("logs", {"follow": "maybe"}),
        ],
    )
    async def test_a_bad_query_is_422_and_names_the_field(
        self, service: Service, path: str, query: dict[str, object]
    ) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        answer = await service.refusal(
            service.url(f"{path}/{environment_id}", token=service.issuer.token(user_id), **query)
        )
        assert problem(answer) == (422, "validation_error")
        assert answer.json()["errors"][0]["field"] == f"query.{next(iter(query))}"

    async def test_pages_of_other_sites_are_403(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        url = service.url(f"terminal/{environment_id}", token=service.issuer.token(user_id))
        for origin in ("https://evil.example", "null", "https://app.example.evil", f"http://{service.address}0"):
            assert problem(await service.refusal(url, Origin=origin)) == (403, "origin_not_allowed")
        for origin in ("https://app.example", f"http://{service.address}"):
            async with connect(url, proxy=None, additional_headers={"Origin": origin}) as socket:
                assert json.loads(await socket.recv())["type"] == "ready"


class TestReadModel:
    async def test_a_handshake_waits_for_the_event_that_the_client_knows_of_already(self, backend: Servers) -> None:
        user_id, environment_id = new_id(), new_id()
        async with running_service(backend, read_model_grace_seconds=TIMEOUT_S) as service:

            async def late() -> None:
                await asyncio.sleep(0.1)
                await service.environment(user_id, environment_id=environment_id)

            publishing = asyncio.create_task(late())
            async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
                await shell.run("echo =$((1+1))=", "=2=")
            await publishing


class TestConnectionLimit:
    async def test_the_sixth_connection_is_429_and_a_closed_one_makes_room(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        url = service.url(f"logs/{environment_id}", token=token)
        sockets = [await connect(url, proxy=None) for _ in range(4)]
        async with service.shell(environment_id, token) as shell:
            terminal_url = service.url(f"terminal/{environment_id}", token=token)
            for refused in (url, terminal_url):
                assert problem(await service.refusal(refused)) == (429, "too_many_connections")
            other = await service.environment(someone := new_id())
            async with service.shell(other, service.issuer.token(someone)) as unaffected:
                await unaffected.run("echo =$((1+1))=", "=2=")
            await shell.run("echo =$((1+1))=", "=2=")
        await sockets[0].close()

        async def is_let_in() -> bool:
            return await service.knock(terminal_url) is None

        await eventually(is_let_in)
        for socket in sockets:
            await socket.close()


class TestTickets:
    async def ticket(self, service: Service, token: str, environment_id: str, kind: str = "terminal") -> httpx.Response:
        async with service.http as client:
            return await client.post(
                "/api/v1/ws/tickets",
                json={"environment_id": environment_id, "kind": kind},
                headers={"Authorization": f"Bearer {token}"},
            )

    async def test_a_ticket_opens_one_connection_and_no_second(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        answer = await self.ticket(service, service.issuer.token(user_id), environment_id)
        assert answer.status_code == 201
        assert answer.json()["expires_in"] == 30
        url = service.url(f"terminal/{environment_id}", ticket=answer.json()["ticket"])
        async with connect(url, proxy=None) as socket:
            assert json.loads(await socket.recv())["type"] == "ready"
        assert problem(await service.refusal(url)) == (401, "unauthenticated")

    async def test_of_many_that_race_with_one_ticket_one_gets_in(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        answer = await self.ticket(service, service.issuer.token(user_id), environment_id)
        url = service.url(f"terminal/{environment_id}", ticket=answer.json()["ticket"])

        async def enter() -> bool:
            try:
                async with connect(url, proxy=None):
                    return True
            except Exception:
                return False

        assert sum(await asyncio.gather(*(enter() for _ in range(10)))) == 1

    async def test_a_ticket_is_good_for_its_environment_and_kind_only(self, service: Service) -> None:
        user_id = new_id()
        first, second = await service.environment(user_id), await service.environment(user_id)
        token = service.issuer.token(user_id)
        ticket = (await self.ticket(service, token, first)).json()["ticket"]
        assert (await service.refusal(service.url(f"terminal/{second}", ticket=ticket))).status_code == 401
        ticket = (await self.ticket(service, token, first, "logs")).json()["ticket"]
        assert (await service.refusal(service.url(f"terminal/{first}", ticket=ticket))).status_code == 401

    async def test_a_ticket_dies_with_the_login_that_got_it(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        ticket = (await self.ticket(service, token, environment_id)).json()["ticket"]
        principal = await service.app.state.platform.tokens.verify(token)
        service.app.state.platform.revocations.add([principal.session_id])
        answer = await service.refusal(service.url(f"terminal/{environment_id}", ticket=ticket))
        assert problem(answer) == (401, "unauthenticated")

    async def test_no_ticket_for_foreign_environments_nor_without_a_token_nor_for_nonsense(
        self, service: Service
    ) -> None:
        environment_id = await service.environment(new_id())
        token = service.issuer.token(new_id())
        assert problem(await self.ticket(service, token, environment_id)) == (404, "environment_not_found")
        assert problem(await self.ticket(service, "nonsense", environment_id))[0] == 401
        assert problem(await self.ticket(service, token, environment_id, "root"))[0] == 422
        assert problem(await self.ticket(service, token, "a b"))[0] == 422

    async def test_redis_holds_no_ticket_in_clear(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        ticket = (await self.ticket(service, service.issuer.token(user_id), environment_id)).json()["ticket"]
        redis = service.app.state.platform.redis
        keys = [key async for key in redis.scan_iter("devpocket:ticket:*")]
        assert keys
        assert not any(ticket in key for key in keys)
        for key in keys:
            assert ticket not in (await redis.get(key) or "")
            assert 0 < await redis.ttl(key) <= 30


async def test_other_websocket_paths_are_404(service: Service) -> None:
    for path in ("nothing", "terminal/a%2fb", "terminal/"):
        assert problem(await service.refusal(service.url(path)))[0] == 404
