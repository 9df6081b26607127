"""What ends connections and shells besides their users, and what the bus hears of it."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest

from libs.common.clock import utc_now
from libs.common.context import Cause
from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import Event, EventData, TerminalSessionClosed, TerminalSessionOpened
from libs.common.contracts.users import UserSessionsRevoked
from libs.common.ids import new_id
from libs.common.messaging.streams import EVENTS_STREAM
from services.terminal.repository import OWNER_DEAD_AFTER_SECONDS
from services.terminal.service import sessions
from services.terminal.sessions.attachment import Attachment
from tests.integration.terminal.harness import TIMEOUT_S, Service, running_service
from tests.support.app import eventually
from tests.support.servers import Servers


async def story(service: Service, environment_id: str, count: int) -> list[EventData]:
    """The first `count` terminal events of an environment."""
    jetstream = service.app.state.platform.bus.jetstream
    subscription = await jetstream.pull_subscribe(f"devpocket.terminal.{environment_id}.*", stream=EVENTS_STREAM)
    found: list[EventData] = []
    while len(found) < count:
        messages = await subscription.fetch(count - len(found), timeout=TIMEOUT_S)
        found.extend(Event.model_validate_json(message.data).payload() for message in messages)
    await subscription.unsubscribe()
    return found


async def closed_event(service: Service, environment_id: str) -> TerminalSessionClosed:
    opened, closed = await story(service, environment_id, 2)
    assert isinstance(opened, TerminalSessionOpened)
    assert isinstance(closed, TerminalSessionClosed)
    assert opened.session_id == closed.session_id
    return closed


class TestEvents:
    async def test_opening_and_exit_are_told(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            await shell.type("exit 4\n")
            assert await shell.closed() == 1000
        closed = await closed_event(service, environment_id)
        assert (closed.reason, closed.exit_code, closed.user_id) == ("exit", 4, user_id)
        assert closed.output_bytes == shell.offset


class TestRevocation:
    async def test_sockets_of_a_revoked_login_close_at_once_and_others_stay(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token, other_token = service.issuer.token(user_id), service.issuer.token(user_id)
        principal = await service.app.state.platform.tokens.verify(token)
        async with AsyncExitStack() as stack:
            shell = await stack.enter_async_context(service.shell(environment_id, token))
            shared = await stack.enter_async_context(service.shell(environment_id, token))
            guest = await stack.enter_async_context(
                service.shell(environment_id, other_token, session=shared.session_id)
            )
            data = UserSessionsRevoked(user_id=user_id, session_ids=[principal.session_id], reason="logout")
            event = Event.new(data, subject=user_id, source="auth", cause=Cause())
            bus = service.app.state.platform.bus
            async with asyncio.timeout(TIMEOUT_S):
                await bus.client.publish(event.nats_subject, event.model_dump_json().encode())
                assert await shell.closed() == 4401
                assert await shared.closed() == 4401
            assert (await shell.frame("error"))["code"] == "session_revoked"
            await guest.run("echo =$((6*7))=", "=42=")
        url = service.url(f"terminal/{environment_id}", token=other_token, session=shell.session_id)
        assert (await service.refusal(url)).status_code == 404

    async def test_a_client_that_reads_nothing_is_out_as_well(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        principal = await service.app.state.platform.tokens.verify(token)
        async with service.shell(environment_id, token, lazy=True) as shell:
            await shell.type("yes\n")
            connections = service.app.state.terminal.connections

            async def is_stuck() -> bool:
                return any(c.stalled_for() > 0.1 for c in connections._open if c.environment_id == environment_id)

            await eventually(is_stuck)
            service.app.state.platform.revocations.add([principal.session_id])

            async def is_gone() -> bool:
                return environment_id not in connections.environment_ids()

            await eventually(is_gone)
        assert (await closed_event(service, environment_id)).reason == "revoked"


class TestEnvironmentEnds:
    @pytest.mark.parametrize(
        ("status", "code", "reason"),
        [
            (EnvironmentStatus.STOPPING, 4409, "environment_stopped"),
            (EnvironmentStatus.RESTARTING, 4409, "environment_stopped"),
            (EnvironmentStatus.TERMINATING, 4404, "environment_deleted"),
        ],
    )
    async def test_shells_end_when_their_environment_does(
        self, service: Service, status: EnvironmentStatus, code: int, reason: str
    ) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            await service.status(environment_id, user_id, status, version=3, generation=2)
            assert await shell.closed() == code
            assert (await shell.frame("error"))["code"] == reason
        closed = await closed_event(service, environment_id)
        assert (closed.reason, closed.exit_code) == (reason, None)

    async def test_a_restart_that_is_over_already_ends_older_shells_only(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        async with service.shell(environment_id, token) as shell:
            await service.status(environment_id, user_id, EnvironmentStatus.RUNNING, version=5, generation=2)
            assert await shell.closed() == 4409
        async with service.shell(environment_id, token) as fresh:
            await service.status(environment_id, user_id, EnvironmentStatus.STOPPED, version=4, generation=1)
            await fresh.run("echo =$((6*7))=", "=42=")

    async def test_a_shell_killed_with_its_workspace_is_no_exit(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # For how long the news may be late is not what is asked here.
        monkeypatch.setattr(sessions, "_NEWS_SECONDS", TIMEOUT_S)
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            service.runtime.streams[-1].kill(signal.SIGKILL)
            await service.runtime.streams[-1].wait()
            await service.status(environment_id, user_id, EnvironmentStatus.STOPPED, version=3)
            assert await shell.closed() == 4409
        assert (await closed_event(service, environment_id)).reason == "environment_stopped"

    async def test_a_shell_killed_alone_exits_with_its_signal(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            service.runtime.streams[-1].kill(signal.SIGKILL)
            assert (await shell.frame("exit"))["code"] == 137
            assert await shell.closed() == 1000


class TestTimeouts:
    async def test_a_shell_that_is_left_alone_ends(self, backend: Servers) -> None:
        async with running_service(backend, terminal_detached_seconds=0.3) as service:
            user_id = new_id()
            environment_id = await service.environment(user_id)
            token = service.issuer.token(user_id)
            async with service.shell(environment_id, token) as shell:
                pass
            assert (await closed_event(service, environment_id)).reason == "idle"
            url = service.url(f"terminal/{environment_id}", token=token, session=shell.session_id)
            assert (await service.refusal(url)).status_code == 404

    async def test_the_shell_left_alone_the_longest_makes_room_for_new_ones(self, backend: Servers) -> None:
        async with running_service(backend, terminal_sessions_per_user=2) as service:
            user_id = new_id()
            environment_id = await service.environment(user_id)
            token = service.issuer.token(user_id)
            async with service.shell(environment_id, token) as held:
                async with service.shell(environment_id, token) as left:
                    pass

                async def is_left() -> bool:
                    return bool(service.app.state.terminal.sessions.attached == 1)

                await eventually(is_left)
                async with service.shell(environment_id, token):
                    await held.run("echo =$((6*7))=", "=42=")
                url = service.url(f"terminal/{environment_id}", token=token, session=left.session_id)
                assert (await service.refusal(url)).status_code == 404

    async def test_a_client_that_takes_nothing_is_given_up_and_its_shell_stays(
        self, backend: Servers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running_service(backend, terminal_stalled_seconds=0.2) as service:
            user_id = new_id()
            environment_id = await service.environment(user_id)
            token = service.issuer.token(user_id)
            async with service.shell(environment_id, token, lazy=True) as shell:
                await shell.type("yes\n")
                connections = service.app.state.terminal.connections

                async def is_gone() -> bool:
                    return len(connections) == 0

                await eventually(is_gone)
            # From here on nobody is too slow, however slow this machine is.
            monkeypatch.setattr(Attachment, "stalled_for", lambda _: 0.0)
            async with service.shell(environment_id, token, session=shell.session_id, offset=0) as again:
                await again.type("\x03")
                await again.run("echo =$((6*7))=", "=42=")


class TestDeadReplicas:
    async def test_sessions_of_a_killed_replica_are_closed_as_lost(self, service: Service) -> None:
        user_id, environment_id, owner = new_id(), new_id(), new_id()
        database = service.app.state.platform.database
        session: dict[str, Any] = {
            "environment_id": environment_id,
            "user_id": user_id,
            "state": "open",
            "opened_at": None,
        }
        dead, living = new_id(), new_id()
        await database["replicas"].insert_one({"_id": owner, "seen_at": _ago(0)})
        await database["sessions"].insert_one({**session, "_id": living, "owner": owner})
        await database["sessions"].insert_one({**session, "_id": dead, "owner": new_id()})
        (lost,) = await story(service, environment_id, 1)
        assert isinstance(lost, TerminalSessionClosed)
        assert (lost.session_id, lost.reason) == (dead, "lost")
        await database["replicas"].update_one({"_id": owner}, {"$set": {"seen_at": _ago(OWNER_DEAD_AFTER_SECONDS)}})
        _, second = await story(service, environment_id, 2)
        assert isinstance(second, TerminalSessionClosed)
        assert (second.session_id, second.reason) == (living, "lost")


class TestFlowControl:
    @pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
    async def test_a_client_that_does_not_read_pauses_the_shell_and_ctrl_c_works(
        self, service: Service, binary: bool
    ) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        async with service.shell(environment_id, token, binary=binary, lazy=True) as shell:
            await shell.type("yes\n")
            session = next(
                s for s in service.app.state.terminal.sessions._sessions.values() if s.environment_id == environment_id
            )
            (attachment,) = session.attachments

            async def is_paused() -> bool:
                return attachment.stalled_for() > 0.2 and session._room is not None

            await eventually(is_paused)
            assert session.ring.end - session.ring.start <= service.settings.terminal_ring_burst_bytes + 65536
            await shell.type("\x03")
            await shell.run("echo =$((6*7))=", "=42=")

    async def test_a_slow_viewer_does_not_slow_the_others(self, backend: Servers) -> None:
        async with running_service(
            backend, terminal_ring_bytes=128 * 1024, terminal_ring_burst_bytes=128 * 1024, terminal_window_bytes=65536
        ) as service:
            user_id = new_id()
            environment_id = await service.environment(user_id)
            token = service.issuer.token(user_id)
            async with AsyncExitStack() as stack:
                writer = await stack.enter_async_context(service.shell(environment_id, token))
                slow = await stack.enter_async_context(
                    service.shell(environment_id, token, session=writer.session_id, mode="ro", lazy=True)
                )
                await writer.run("head -c 12000000 /dev/zero | tr '\\0' x; echo =$((6*7))=", "=42=")
                gap = await slow.frame("gap")
                assert gap["to"] > gap["from"]
                await slow.expect("=42=")
                # The same place in the same output; what comes after it, each has read as much of as it has.
                assert slow.offset - len(slow.output) == writer.offset - len(writer.output)


def _ago(seconds: float) -> datetime:
    return utc_now() - timedelta(seconds=seconds)
