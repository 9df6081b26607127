"""API keys, deactivated and deleted users: who gets in, what closes, and what is left of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import permutations
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from libs.common import mongo
from libs.common.clock import utc_now
from libs.common.contracts.events import EventData, TerminalSessionClosed
from libs.common.contracts.identity import Scope
from libs.common.contracts.users import UserDeleted, UserRegistered, UserUpdated
from libs.common.ids import new_id
from libs.common.messaging.outbox import PENDING, OutboxRelay
from libs.common.security.api_keys import key_session_id
from libs.runtime.port import ExecStream, WorkspaceRef
from services.terminal.domain import CloseReason
from services.terminal.ports import ClosedSession, OpenedSession
from services.terminal.repository import MongoSessions, MongoUsers
from services.terminal.service.accounts import Accounts
from tests.fakes.exec_runtime import HostExecRuntime
from tests.integration.terminal.harness import TIMEOUT_S, Service, running_service, terminal_settings, user_state
from tests.integration.terminal.test_handshake import problem
from tests.support.app import eventually
from tests.support.servers import Servers

SHELLS = (Scope.TERMINAL,)


async def ticket(service: Service, token: str, environment_id: str, kind: str) -> httpx.Response:
    async with service.http as client:
        return await client.post(
            "/api/v1/ws/tickets",
            json={"environment_id": environment_id, "kind": kind},
            headers={"Authorization": f"Bearer {token}"},
        )


def sessions_of(service: Service, user_id: str) -> Callable[[], Awaitable[int]]:
    """How many session records there are of a user."""
    collection = service.app.state.platform.database["sessions"]

    async def count() -> int:
        found: int = await collection.count_documents({"user_id": user_id})
        return found

    return count


class TestScopes:
    async def test_a_key_with_the_scope_opens_shells_in_the_url_in_a_header_and_by_a_ticket(
        self, service: Service
    ) -> None:
        user_id = new_id()
        key = str(await service.api_key(user_id, *SHELLS))
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, key) as shell:
            await shell.run("echo =$((6*7))=", "=42=")
        url = service.url(f"terminal/{environment_id}")
        assert await service.knock(url, Authorization=f"Bearer {key}") is None
        answer = await ticket(service, key, environment_id, "terminal")
        assert answer.status_code == 201
        assert await service.knock(service.url(f"terminal/{environment_id}", ticket=answer.json()["ticket"])) is None

    @pytest.mark.parametrize("scopes", [(Scope.READ,), (Scope.ENVIRONMENTS, Scope.ADMIN)])
    async def test_other_keys_see_logs_and_open_no_shells(self, service: Service, scopes: tuple[Scope, ...]) -> None:
        user_id = new_id()
        key = str(await service.api_key(user_id, *scopes))
        environment_id = await service.environment(user_id)
        answer = await service.refusal(service.url(f"terminal/{environment_id}", token=key))
        assert problem(answer) == (403, "forbidden")
        assert "'terminal'" in answer.json()["detail"]
        assert problem(await ticket(service, key, environment_id, "terminal")) == (403, "forbidden")
        assert await service.knock(service.url(f"logs/{environment_id}", token=key)) is None
        answer = await ticket(service, key, environment_id, "logs")
        assert answer.status_code == 201
        assert await service.knock(service.url(f"logs/{environment_id}", ticket=answer.json()["ticket"])) is None

    async def test_a_key_without_the_scope_learns_nothing_of_other_environments(self, service: Service) -> None:
        key = str(await service.api_key(new_id(), Scope.READ))
        foreign = await service.environment(new_id())
        for target in (foreign, new_id()):
            assert problem(await service.refusal(service.url(f"terminal/{target}", token=key)))[0] == 403
        assert problem(await service.refusal(service.url(f"logs/{foreign}", token=key)))[0] == 404

    async def test_the_contract_names_403(self, service: Service) -> None:
        assert "403" in service.app.openapi()["paths"]["/api/v1/ws/tickets"]["post"]["responses"]


class TestEpochs:
    async def test_what_a_key_has_open_closes_with_its_epoch_and_it_works_again_in_the_next(
        self, service: Service
    ) -> None:
        user_id = new_id()
        key = await service.api_key(user_id, *SHELLS)
        environment_id = await service.environment(user_id)
        url = service.url(f"logs/{environment_id}", token=str(key))
        async with service.shell(environment_id, str(key)) as shell, connect(url, proxy=None) as logs:
            await service.revoke(user_id, key_session_id(key.id, 0))
            assert await shell.closed() == 4401
            # A goodbye that takes longer than half a second is not waited for, so only the end is certain.
            await logs.wait_closed()
        assert problem(await service.refusal(service.url(f"terminal/{environment_id}", token=str(key))))[0] == 401
        await service.publish(user_state(UserUpdated, user_id, version=2, session_epoch=1), user_id)

        async def is_let_in() -> bool:
            return await service.knock(url) is None

        await eventually(is_let_in)
        async with service.shell(environment_id, str(key)) as again:
            await again.run("echo =$((6*7))=", "=42=")

    async def test_an_unused_ticket_of_a_key_dies_with_its_epoch(self, service: Service) -> None:
        user_id = new_id()
        key = await service.api_key(user_id, *SHELLS)
        environment_id = await service.environment(user_id)
        secret = (await ticket(service, str(key), environment_id, "terminal")).json()["ticket"]
        service.app.state.platform.revocations.add([key_session_id(key.id, 0)])
        url = service.url(f"terminal/{environment_id}", ticket=secret)
        assert problem(await service.refusal(url)) == (401, "unauthenticated")


class TestEndings:
    @pytest.mark.parametrize("kind", [UserDeleted, UserUpdated])
    async def test_whatever_a_user_has_open_closes_though_no_revocation_names_it(
        self, service: Service, kind: type[UserUpdated]
    ) -> None:
        user_id, other = new_id(), new_id()
        environment_id, elsewhere = await service.environment(user_id), await service.environment(other)
        token = service.issuer.token(user_id)
        url = service.url(f"logs/{environment_id}", token=token)
        async with service.shell(elsewhere, service.issuer.token(other)) as unaffected:
            async with service.shell(environment_id, token):
                pass
            async with service.shell(environment_id, token) as shell, connect(url, proxy=None) as logs:
                await service.publish(user_state(kind, user_id, version=2, is_active=False), user_id)
                assert await shell.closed() == 4401
                await logs.wait_closed()
            sessions = service.app.state.terminal.sessions

            async def is_over() -> bool:
                return user_id not in sessions.user_ids()

            # Also the one that nobody was connected to.
            await eventually(is_over)
            await unaffected.run("echo =$((6*7))=", "=42=")

    async def test_a_user_who_is_changed_in_another_way_stays(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            await service.publish(user_state(UserUpdated, user_id, version=3, session_epoch=1), user_id)
            # Late, or told a second time: the newest counts.
            await service.publish(user_state(UserUpdated, user_id, version=2, is_active=False), user_id)
            await service.caught_up("users")
            await service.app.state.platform.bus.client.flush()
            await shell.run("echo =$((6*7))=", "=42=")

    async def test_what_no_event_has_told_this_replica_the_upkeep_finds(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            users = MongoUsers(service.app.state.platform.database)
            await users.apply(user_state(UserUpdated, user_id, version=2, is_active=False))
            assert await shell.closed() == 4401

    async def test_a_login_that_dies_during_the_handshake_is_out(self, backend: Servers) -> None:
        class SlowShells(HostExecRuntime):
            starting, may_start = asyncio.Event(), asyncio.Event()

            async def exec(self, ref: WorkspaceRef, argv: Any = None, **how: Any) -> ExecStream:
                self.starting.set()
                await self.may_start.wait()
                return await super().exec(ref, argv, **how)

        runtime = SlowShells()
        async with running_service(backend, runtime) as service:
            user_id = new_id()
            environment_id = await service.environment(user_id)
            token = service.issuer.token(user_id)
            principal = await service.app.state.platform.tokens.verify(token)
            connecting = asyncio.create_task(
                connect(service.url(f"terminal/{environment_id}", token=token), proxy=None).__aenter__()
            )
            await asyncio.wait_for(runtime.starting.wait(), TIMEOUT_S)
            service.app.state.platform.revocations.add([principal.session_id])
            runtime.may_start.set()
            socket = await connecting
            await asyncio.wait_for(socket.wait_closed(), TIMEOUT_S)
            assert socket.close_code == 4401

            async def is_over() -> bool:
                return user_id not in service.app.state.terminal.sessions.user_ids()

            await eventually(is_over)


class TestForgetting:
    async def test_nothing_is_left_of_the_sessions_of_a_deleted_user(self, service: Service) -> None:
        user_id, other = new_id(), new_id()
        environment_id, elsewhere = await service.environment(user_id), await service.environment(other)
        count, count_other = sessions_of(service, user_id), sessions_of(service, other)
        for owner, where in ((user_id, environment_id), (other, elsewhere)):
            async with service.shell(where, service.issuer.token(owner)) as shell:
                await shell.type("exit\n")
                assert await shell.closed() == 1000
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            assert await count() == 2
            await service.publish(user_state(UserDeleted, user_id, version=2, is_active=False), user_id)
            assert await shell.closed() == 4401

        async def are_gone() -> bool:
            return await count() == 0

        await eventually(are_gone)
        assert await count_other() == 1
        jetstream = service.app.state.platform.bus.jetstream
        closed = await jetstream.get_last_msg("DEVPOCKET_EVENTS", f"devpocket.terminal.{environment_id}.session_closed")
        assert user_id in closed.data.decode()

    @pytest.mark.parametrize("order", sorted(set(permutations((0, 1, 1, 2)))))
    async def test_in_any_order(self, backend: Servers, order: tuple[int, ...]) -> None:
        settings = terminal_settings(backend, database_name=f"test_{new_id()[-12:]}")
        client = mongo.connect(settings)
        database = mongo.database(client, settings, "terminal")
        users, sessions = MongoUsers(database), MongoSessions(database, OutboxRelay.unheard().attach, utc_now)
        accounts = Accounts(users, sessions)
        user_id, session_id, silent_id = new_id(), new_id(), new_id()
        closed = TerminalSessionClosed(
            session_id=session_id, environment_id="e", user_id=user_id, exit_code=0, reason="exit", output_bytes=0
        )
        for one in (session_id, silent_id):
            await sessions.opened(OpenedSession(one, "e", user_id, "owner", utc_now()))
            await sessions.closed(ClosedSession(one, "e", user_id, CloseReason.EXIT, 0, 0))
        events: list[EventData] = [
            user_state(UserRegistered, user_id),
            user_state(UserDeleted, user_id, version=2, is_active=False),
            closed,
        ]
        for index in order:
            event = events[index]
            if isinstance(event, TerminalSessionClosed):
                await accounts.session_closed(event)
            else:
                await accounts.user_event(event)
        (left,) = await database["sessions"].find({}).to_list(None)
        # Nobody has heard yet how that one ended.
        assert left["_id"] == silent_id
        assert len(left[PENDING]) == 2
        await mongo.close(client)
