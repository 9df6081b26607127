"""Shells in real workspaces outlive the replicas that serve them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.ids import new_id
from services.terminal.domain import CLOSINGS, CloseReason
from tests.integration.terminal.harness import Service, Shell, running_service
from tests.integration.terminal.workspace.harness import Site, site_on
from tests.support.app import eventually
from tests.support.servers import Servers

_LINES = 200_000


@dataclass
class Place:
    """A runtime with one workspace, and replicas that come and go."""

    backend: Servers
    site: Site

    @asynccontextmanager
    async def replica(self, **changes: Any) -> AsyncIterator[Service]:
        """By default with little upkeep: what a client finds is its own doing."""
        settings = {"terminal_hold_shells": True, "terminal_upkeep_seconds": 60.0, **changes}
        async with running_service(self.backend, self.site.driver(), **settings) as service:
            yield service

    @asynccontextmanager
    async def told(self) -> AsyncIterator[Service]:
        """A replica, once the read model has the environment."""
        async with self.replica() as service:
            await service.environment(self.site.user_id, environment_id=self.site.environment_id)
            yield service

    def shell(self, service: Service, **query: Any) -> AbstractAsyncContextManager[Shell]:
        return service.shell(self.site.environment_id, service.issuer.token(self.site.user_id), **query)


@pytest.fixture(scope="module", params=["local", "kubernetes"])
async def place(request: pytest.FixtureRequest, backend: Servers) -> AsyncIterator[Place]:
    async with site_on(request.param) as site:
        yield Place(backend, site)


async def sessions(service: Service, user_id: str) -> list[dict[str, object]]:
    async with service.http as http:
        headers = {"Authorization": f"Bearer {service.issuer.token(user_id)}"}
        response = await http.get("/api/v1/terminal/sessions", headers=headers)
        assert response.status_code == 200
        found: list[dict[str, object]] = response.json()
        return found


async def close_session(service: Service, user_id: str, session_id: str) -> int:
    async with service.http as http:
        headers = {"Authorization": f"Bearer {service.issuer.token(user_id)}"}
        return (await http.delete(f"/api/v1/terminal/sessions/{session_id}", headers=headers)).status_code


async def quiet(shell: Shell) -> None:
    await shell.run("PS1=; stty -echo -onlcr; echo =$((6*7))=", "=42=\n")


class TestRestart:
    async def test_output_goes_on_exactly_where_it_was_cut(self, place: Place) -> None:
        got = b""
        async with place.told() as first, place.shell(first, binary=True) as shell:
            await quiet(shell)
            await shell.socket.send(b"seq %d; echo o''ver\n" % _LINES)
            await shell.expect("1000\n")
            offset, session_id = shell.offset - len(shell.output), shell.session_id
        for _ in range(3):
            async with (
                place.replica() as service,
                place.shell(service, binary=True, session=session_id, offset=offset) as shell,
            ):
                assert shell.started_at == offset
                await shell.until(lambda: len(shell.output) > 200_000 or b"over" in shell.output)
                got += bytes(shell.output)
                offset = shell.offset
                shell.socket.transport.abort()
                assert not [frame for frame in shell.frames if frame["type"] == "gap"]
        async with (
            place.replica() as service,
            place.shell(service, binary=True, session=session_id, offset=offset) as shell,
        ):
            await shell.until(lambda: b"over\n" in shell.output)
            got += bytes(shell.output)
            await shell.socket.send(b"exit 3\n")
            assert (await shell.frame("exit"))["code"] == 3
        got = got[: got.index(b"over\n") + 5]
        assert got == b"".join(b"%d\n" % number for number in range(1001, _LINES + 1)) + b"over\n"

    async def test_a_client_is_told_to_come_back_and_its_numbers_are_known(self, place: Place) -> None:
        async with place.told() as first:
            async with place.shell(first, client="phone") as shell:
                await quiet(shell)
                await shell.send(type="input", data="echo on''ce\n", seq=1)
                await shell.expect("once\n")
                assert (await shell.frame("ack"))["seq"] == 1
                stopping = asyncio.create_task(stop(first))
                assert await shell.closed() == 1001
            await stopping
        async with (
            place.replica() as second,
            place.shell(second, client="phone", session=shell.session_id, offset=shell.offset) as again,
        ):
            assert (await again.frame("ready"))["seq"] == 1
            await again.send(type="input", data="echo twi''ce\n", seq=1)
            await again.send(type="input", data="echo ne''xt\n", seq=2)
            await again.expect("next\n")
            assert b"twice" not in again.output
            assert await close_session(second, place.site.user_id, shell.session_id) == 200

    async def test_an_exit_that_nobody_saw_is_told_to_who_comes_back(self, place: Place) -> None:
        async with place.told() as first, place.shell(first) as shell:
            await quiet(shell)
            await shell.type("until [ -e go ]; do sleep 0.02; done; echo last; exit 4\n")
        await place.site.touch("go")
        async with (
            place.replica() as second,
            place.shell(second, session=shell.session_id, offset=shell.offset) as again,
        ):
            await again.expect("last\n")
            assert (await again.frame("exit"))["code"] == 4


class TestTakeover:
    async def test_who_does_not_answer_loses_the_session_and_sends_its_clients_away(self, place: Place) -> None:
        impatient = place.replica(terminal_owner_seconds=1e-6)
        async with place.told() as silent, impatient as other, place.shell(silent) as shell:
            await quiet(shell)
            async with place.shell(other, session=shell.session_id, offset=shell.offset) as taken:
                await taken.run("echo =$((6*7))=", "=42=")
                assert await shell.closed() == 1001
                assert (await shell.frame("error"))["code"] == "session_moved"
                (found,) = await sessions(other, place.site.user_id)
                assert found["connections"] == 1
            assert await close_session(other, place.site.user_id, shell.session_id) == 200

    async def test_shells_that_nobody_serves_are_shown_and_can_be_ended(self, place: Place) -> None:
        async with place.told() as first, place.shell(first) as shell:
            await quiet(shell)
        async with place.replica() as second:
            (found,) = await sessions(second, place.site.user_id)
            assert (found["id"], found["attachable"]) == (shell.session_id, True)
            assert await close_session(second, place.site.user_id, shell.session_id) == 200
            assert await sessions(second, place.site.user_id) == []

    async def test_upkeep_takes_over_what_the_dead_have_left(self, place: Place) -> None:
        async with place.told() as first, place.shell(first) as shell:
            await quiet(shell)
        async with place.replica(terminal_upkeep_seconds=0.1) as second:

            async def is_served() -> bool:
                (found,) = await sessions(second, place.site.user_id)
                return found["connections"] == 0

            await eventually(is_served)
            assert await close_session(second, place.site.user_id, shell.session_id) == 200

    async def test_another_user_finds_nothing(self, place: Place) -> None:
        async with place.told() as first, place.shell(first) as shell:
            await quiet(shell)
        async with place.replica() as second:
            stranger = new_id()
            assert await close_session(second, stranger, shell.session_id) == 404
            url = second.url(
                f"terminal/{place.site.environment_id}", token=second.issuer.token(stranger), session=shell.session_id
            )
            assert (await second.refusal(url)).status_code == 404
            assert await close_session(second, place.site.user_id, shell.session_id) == 200

    async def test_what_was_opened_by_a_login_that_is_revoked_meanwhile_ends(self, place: Place) -> None:
        async with place.told() as first:
            token = first.issuer.token(place.site.user_id)
            principal = await first.app.state.platform.tokens.verify(token)
            async with first.shell(place.site.environment_id, token) as shell:
                await quiet(shell)
            await first.revoke(place.site.user_id, principal.session_id)
        async with place.replica(terminal_upkeep_seconds=0.1) as second:
            await eventually(lambda: has_none(second, place.site.user_id))

    async def test_a_shell_of_a_workspace_that_was_stopped_meanwhile_is_over(self, place: Place) -> None:
        async with place.told() as first, place.shell(first) as shell:
            await quiet(shell)
        async with place.replica(terminal_upkeep_seconds=0.1) as second:
            await second.status(
                place.site.environment_id, place.site.user_id, EnvironmentStatus.STOPPED, version=3, generation=1
            )
            await eventually(lambda: has_none(second, place.site.user_id))
            url = second.url(
                f"terminal/{place.site.environment_id}",
                token=second.issuer.token(place.site.user_id),
                session=shell.session_id,
            )
            assert (await second.refusal(url)).status_code == 409


async def has_none(service: Service, user_id: str) -> bool:
    return await sessions(service, user_id) == []


async def stop(service: Service) -> None:
    """As at SIGTERM."""
    state = service.app.state.terminal
    await asyncio.gather(state.connections.close_all(CLOSINGS[CloseReason.SHUTDOWN]), state.sessions.drain())
