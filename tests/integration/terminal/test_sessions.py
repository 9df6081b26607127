"""/api/v1/terminal/sessions: a user's open shells, whichever replica holds them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from libs.common.clock import utc_now
from libs.common.contracts.identity import Scope
from libs.common.ids import new_id
from services.terminal.control import NatsControl
from services.terminal.domain import OwnerSilentError
from services.terminal.ports import OpenedSession
from tests.integration.terminal.harness import Service, running_service
from tests.integration.terminal.test_handshake import problem
from tests.integration.terminal.test_lifecycle import closed_event
from tests.support.app import eventually
from tests.support.servers import Servers

_PATH = "/api/v1/terminal/sessions"


@pytest.fixture(scope="module")
async def other(backend: Servers) -> AsyncIterator[Service]:
    """Another replica; it accepts the tokens of its own issuer only."""
    async with running_service(backend) as service:
        yield service


async def ask(
    service: Service, credential: str, path: str = "", *, method: str = "GET", **query: Any
) -> httpx.Response:
    async with service.http as http:
        headers = {"Authorization": f"Bearer {credential}"}
        return await http.request(method, _PATH + path, headers=headers, params=query)


async def listed(service: Service, user_id: str, **query: Any) -> list[dict[str, Any]]:
    answer = await ask(service, service.issuer.token(user_id), **query)
    assert answer.status_code == 200, answer.text
    shells: list[dict[str, Any]] = answer.json()
    return shells


class TestList:
    async def test_it_shows_what_is_open_and_how_it_is_used(self, service: Service) -> None:
        user_id = new_id()
        environment_id, elsewhere = await service.environment(user_id), await service.environment(user_id)
        token = service.issuer.token(user_id)
        async with (
            service.shell(environment_id, token, cols=120, rows=40) as shell,
            service.shell(environment_id, token, session=shell.session_id, mode="ro"),
            service.shell(elsewhere, token) as second,
        ):
            await shell.run("echo =$((6*7))=", "=42=")
            newest, oldest = await listed(service, user_id)
            assert (newest["id"], oldest["id"]) == (second.session_id, shell.session_id)
            assert oldest["environment_id"] == environment_id
            assert (oldest["connections"], oldest["attachable"]) == (2, True)
            assert oldest["size"] == {"cols": 120, "rows": 40}
            assert oldest["offset"] >= shell.offset > 0
            opened_at, active_at = (datetime.fromisoformat(oldest[name]) for name in ("opened_at", "last_active_at"))
            assert opened_at <= active_at <= utc_now() + timedelta(seconds=1)
            assert [found["id"] for found in await listed(service, user_id, environment_id=elsewhere)] == [newest["id"]]
            one = await ask(service, token, f"/{shell.session_id}")
            assert (one.status_code, one.json()["id"]) == (200, shell.session_id)

        async def is_left_alone() -> bool:
            return [found["connections"] for found in await listed(service, user_id)] == [0, 0]

        await eventually(is_left_alone)

    async def test_a_shell_that_has_ended_is_gone(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            await shell.type("exit\n")
            assert await shell.closed() == 1000
        await closed_event(service, environment_id)
        assert await listed(service, user_id) == []
        answer = await ask(service, service.issuer.token(user_id), f"/{shell.session_id}")
        assert problem(answer) == (404, "session_not_found")

    async def test_another_replica_is_asked(self, service: Service, other: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id), cols=99, rows=33) as shell:
            await shell.run("echo =$((6*7))=", "=42=")
            (found,) = await listed(other, user_id)
            assert (found["id"], found["connections"], found["attachable"]) == (shell.session_id, 1, True)
            assert found["size"] == {"cols": 99, "rows": 33}
            assert found["offset"] >= shell.offset

    async def test_a_replica_that_does_not_answer_is_not_waited_for_long(self, service: Service) -> None:
        control = NatsControl(service.app.state.platform.bus, answer_seconds=0.05)
        session = OpenedSession(new_id(), new_id(), new_id(), new_id(), utc_now())
        for ask_owner in (control.describe, control.close):
            with pytest.raises(OwnerSilentError):
                await ask_owner(session)


class TestEnd:
    @pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "another replica"])
    async def test_the_shell_ends_and_who_is_connected_is_told(
        self, service: Service, other: Service, elsewhere: bool
    ) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        asked = other if elsewhere else service
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            path = f"/{shell.session_id}"
            answer = await ask(asked, asked.issuer.token(user_id), path, method="DELETE")
            assert (answer.status_code, answer.json()) == (200, {"message": "The terminal session is closed"})
            assert await shell.closed() == 4404
            assert (await shell.frame("error"))["code"] == "session_closed"
        assert await listed(asked, user_id) == []
        again = await ask(asked, asked.issuer.token(user_id), path, method="DELETE")
        assert problem(again) == (404, "session_not_found")
        closed = await closed_event(service, environment_id)
        assert (closed.reason, closed.exit_code) == ("closed", None)


class TestAccess:
    async def test_those_of_others_do_not_exist(self, service: Service, other: Service) -> None:
        owner = new_id()
        environment_id = await service.environment(owner)
        async with service.shell(environment_id, service.issuer.token(owner)) as shell:
            for replica in (service, other):
                token = replica.issuer.token()
                assert (await ask(replica, token, environment_id=environment_id)).json() == []
                for method in ("GET", "DELETE"):
                    answer = await ask(replica, token, f"/{shell.session_id}", method=method)
                    assert problem(answer) == (404, "session_not_found")
            await shell.run("echo =$((6*7))=", "=42=")

    async def test_any_key_may_look_and_one_for_terminals_may_end(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        reader, typist = [str(await service.api_key(user_id, scope)) for scope in (Scope.READ, Scope.TERMINAL)]
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            path = f"/{shell.session_id}"
            assert [found["id"] for found in (await ask(service, reader)).json()] == [shell.session_id]
            assert problem(await ask(service, reader, path, method="DELETE")) == (403, "forbidden")
            assert (await ask(service, typist, path, method="DELETE")).status_code == 200

    async def test_nobody_is_told_anything(self, service: Service) -> None:
        for method, path in (("GET", ""), ("GET", "/x"), ("DELETE", "/x")):
            assert problem(await ask(service, "nonsense", path, method=method)) == (401, "unauthenticated")
