"""Who sees an environment's previews: its owner, as long as the sign-in and the environment last, and nobody else."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.identity import Scope
from libs.common.contracts.users import UserUpdated
from tests.integration.terminal.harness import TIMEOUT_S, user_state
from tests.integration.terminal.preview.harness import Owner, Street, said, street_on
from tests.integration.terminal.workspace.harness import problem
from tests.support.app import eventually
from tests.support.servers import Servers


class TestNeighbours:
    async def test_a_cookie_opens_no_other_environment(self, alice: Owner, bob: Owner) -> None:
        cookie = await bob.cookie()
        async with bob.http() as http:
            assert (await http.get(f"{bob.prefix}/", headers={"Cookie": cookie})).json()["name"] == "bob"
            assert problem(await http.get(f"{alice.prefix}/", headers={"Cookie": cookie})) == (401, "unauthenticated")

    async def test_a_token_opens_no_other_environment(self, alice: Owner, bob: Owner) -> None:
        async with bob.http(bearer=True) as http:
            assert problem(await http.get(f"{alice.prefix}/")) == (404, "environment_not_found")
            ports = await http.get(f"/api/v1/environments/{alice.environment_id}/ports")
            assert problem(ports) == (404, "environment_not_found")

    async def test_there_is_no_ticket_for_another_environment(self, alice: Owner, bob: Owner) -> None:
        async with bob.http(bearer=True) as http:
            body = {"environment_id": alice.environment_id, "kind": "preview"}
            assert problem(await http.post("/api/v1/ws/tickets", json=body)) == (404, "environment_not_found")
            spent = await http.get(f"{alice.prefix}/", params={"ticket": await bob.ticket()})
            assert problem(spent) == (404, "environment_not_found")

    async def test_a_ticket_of_another_kind_is_none(self, alice: Owner) -> None:
        async with alice.http(bearer=True) as http:
            body = {"environment_id": alice.environment_id, "kind": "terminal"}
            ticket = (await http.post("/api/v1/ws/tickets", json=body)).json()["ticket"]
        async with alice.http() as http:
            answer = await http.get(f"{alice.prefix}/", params={"ticket": ticket})
            assert problem(answer) == (401, "unauthenticated")

    async def test_nor_over_a_websocket(self, alice: Owner, bob: Owner) -> None:
        for headers, status in (
            ({"Cookie": await bob.cookie()}, 401),
            ({"Authorization": f"Bearer {bob.token}"}, 404),
            ({}, 401),
        ):
            with pytest.raises(InvalidStatus) as refused:
                async with bob.socket(prefix=alice.prefix, additional_headers=headers):
                    pass
            assert refused.value.response.status_code == status

    async def test_the_same_port_leads_each_to_their_own(self, alice: Owner, bob: Owner) -> None:
        async with alice.browser() as first, bob.browser() as second:
            for _ in range(5):
                answers = await asyncio.gather(first.get(f"{alice.prefix}/"), second.get(f"{bob.prefix}/"))
                assert [answer.json()["name"] for answer in answers] == ["alice", "bob"]

    async def test_the_cookie_is_no_good_for_the_api(self, alice: Owner) -> None:
        async with alice.http() as http:
            headers = {"Cookie": await alice.cookie()}
            for path in (f"/api/v1/environments/{alice.environment_id}/ports", "/api/v1/terminal/sessions"):
                assert problem(await http.get(path, headers=headers)) == (401, "unauthenticated")

    async def test_the_services_ports_are_not_reached(self, street: Street, backend: Servers) -> None:
        """NATS, Redis, the database and the service itself listen on this machine's loopback."""
        urls = (backend.nats_url, backend.redis_url, backend.mongodb_url, f"http://{street.service.address}")
        async with street.alice.browser() as http:
            for url in urls:
                port = urlsplit(url).port
                assert port is not None
                answer = await http.get(f"/preview/{street.alice.environment_id}/{port}/")
                assert problem(answer) == (502, "nothing_listens"), url


class TestKeys:
    async def test_a_key_needs_the_scope(self, alice: Owner) -> None:
        reading = await alice.service.api_key(alice.user_id, Scope.READ)
        typing = await alice.service.api_key(alice.user_id, Scope.TERMINAL)
        ports = f"/api/v1/environments/{alice.environment_id}/ports"
        async with alice.http() as http:
            headers = {"Authorization": f"Bearer {reading}"}
            assert problem(await http.get(f"{alice.prefix}/", headers=headers)) == (403, "forbidden")
            assert (await http.get(ports, headers=headers)).status_code == 200
            headers = {"Authorization": f"Bearer {typing}"}
            told = (await http.get(f"{alice.prefix}/", headers=headers)).json()
        assert "authorization" not in {name for name, _ in told["headers"]}


class TestTheEnd:
    """Each on a street of its own: what ends here does not come back."""

    async def test_signing_out_ends_everything_at_once(self, backend: Servers) -> None:
        async with street_on("local", backend) as street:
            alice = street.alice
            await ends_with(alice, lambda: alice.service.revoke(alice.user_id, alice.login_id), 401, 4401)

    async def test_so_does_deactivation(self, backend: Servers) -> None:
        async with street_on("local", backend) as street:
            alice = street.alice
            data = user_state(UserUpdated, alice.user_id, is_active=False)
            await ends_with(alice, lambda: alice.service.publish(data, alice.user_id), 401, 4401)

    async def test_so_does_stopping_the_environment_while_the_application_still_runs(self, backend: Servers) -> None:
        async with street_on("local", backend, read_model_grace_seconds=0.1) as street:
            alice = street.alice

            async def stop() -> None:
                status = EnvironmentStatus.STOPPING
                await alice.service.status(alice.environment_id, alice.user_id, status, version=3)

            await ends_with(alice, stop, 409, 4409)

    async def test_so_does_deleting_it(self, backend: Servers) -> None:
        async with street_on("local", backend, read_model_grace_seconds=0.1) as street:
            alice = street.alice
            await ends_with(alice, lambda: alice.service.delete(alice.environment_id, alice.user_id), 404, 4404)


async def ends_with(owner: Owner, end: object, status: int, code: int) -> None:
    """An event stream is cut, a WebSocket is closed, and the cookie opens nothing more."""
    cookie = {"Cookie": await owner.cookie()}
    async with owner.http() as http, owner.socket(additional_headers=cookie) as socket:
        await said(socket)
        async with http.stream("GET", f"{owner.prefix}/events", headers=cookie) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            await end()  # type: ignore[operator]
            async with asyncio.timeout(TIMEOUT_S):
                with pytest.raises(httpx.RemoteProtocolError):
                    async for _ in lines:
                        pass
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
        assert socket.close_code == code

        async def refused() -> bool:
            return (await http.get(f"{owner.prefix}/", headers=cookie)).status_code == status

        await eventually(refused)
