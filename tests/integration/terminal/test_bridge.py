"""A session of another replica: to its clients it is like one of this replica."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from services.terminal.bridge.carrier import NatsCarrier
from services.terminal.bridge.link import WINDOW_BYTES
from services.terminal.domain import CLOSINGS, CloseReason
from tests.integration.terminal.harness import Service, Shell, left_alone, running_service
from tests.integration.terminal.retyping import ECHO, send, type_through_cuts, until_length
from tests.integration.terminal.test_handshake import problem
from tests.integration.terminal.test_process import replica
from tests.support.app import eventually
from tests.support.servers import Servers, nats_server

_PATH = "/api/v1/terminal/sessions"
_FLOOD = "PS1=; stty raw -echo; echo go$((1+1)); seq -f 'line %08.0f of a known stream' 1 {count}; echo THE-END"


@pytest.fixture(scope="module")
async def other(backend: Servers) -> AsyncIterator[Service]:
    """Another replica; it accepts the tokens of its own issuer only."""
    async with running_service(backend) as service:
        yield service


def connections_of(service: Service) -> int:
    """How many connections this replica has, those bridged to its sessions included."""
    return len(service.app.state.terminal.connections)


async def nobody_on(*replicas: Service) -> None:
    async def is_so() -> bool:
        return not any(connections_of(replica) for replica in replicas)

    await eventually(is_so)


@pytest.fixture(autouse=True)
async def _nothing_left(service: Service, other: Service) -> AsyncIterator[None]:
    yield
    await nobody_on(service, other)


class TestHops:
    @pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
    async def test_a_client_that_hops_between_replicas_misses_nothing(
        self, service: Service, other: Service, binary: bool
    ) -> None:
        user_id, chance, count = new_id(), random.Random(5), 100_000
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            await shell.run(_FLOOD.format(count=count), "go2")
            await shell.until(lambda: b"\n" in shell.output)
            received = shell.output.split(b"\n", 1)[1]
            session_id, offset = shell.session_id, shell.offset
            shell.socket.transport.abort()
        hops = 0
        while not received.endswith(b"THE-END\n"):
            replica = chance.choice([service, other, other])
            async with replica.shell(
                environment_id, replica.issuer.token(user_id), binary=binary, session=session_id, offset=offset
            ) as again:
                assert again.started_at == offset
                for _ in range(chance.randint(0, 12)):
                    if (received + again.output).endswith(b"THE-END\n"):
                        break
                    await again.receive()
                assert not [frame for frame in again.frames if frame["type"] in {"gap", "error"}]
                received += again.output
                offset = again.offset
                again.socket.transport.abort()
            hops += 1
        lines = b"".join(b"line %08d of a known stream\n" % number for number in range(1, count + 1))
        assert received == lines + b"THE-END\n"
        assert hops > 5

    @pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
    async def test_what_is_sent_again_elsewhere_is_typed_once(
        self, service: Service, other: Service, binary: bool
    ) -> None:
        await type_through_cuts([service, other], random.Random(3), count=120, binary=binary)


class TestLikeAtHome:
    async def test_it_types_resizes_pings_and_sees_the_exit(self, service: Service, other: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id), cols=80, rows=24) as shell:
            await shell.run("echo =$((6*7))=", "=42=")
            async with other.shell(
                environment_id, other.issuer.token(user_id), session=shell.session_id, cols=101, rows=31
            ) as far:
                await far.expect("=42=")
                await far.run("stty size", "31 101")
                await far.send(type="resize", cols=99, rows=29)
                await far.run("stty size", "29 99")
                await far.send(type="ping")
                await far.frame("pong")
                await shell.expect("29 99")
                (found,) = (await sessions_of(other, user_id)).values()
                assert (found["connections"], found["attachable"]) == (2, True)
                await far.type("exit 7\n")
                assert await far.closed() == 1000
                assert await far.frame("exit") == {"type": "exit", "code": 7}
            assert await shell.closed() == 1000

    async def test_who_comes_back_after_the_exit_still_gets_the_end(
        self, service: Service, other: Service, tmp_path: Path
    ) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            wait = f"until [ -e {tmp_path}/go ]; do sleep 0.02; done"
            await shell.run(f"echo go$((1+1)); {wait}; echo last-$((6*7)); exit 3", "go2")
            shell.socket.transport.abort()
        session = await left_alone(service, shell.session_id)
        (tmp_path / "go").touch()

        async def has_exited() -> bool:
            return session.exit_code is not None

        await eventually(has_exited)
        async with other.shell(
            environment_id, other.issuer.token(user_id), session=shell.session_id, offset=shell.offset
        ) as far:
            assert await far.closed() == 1000
            assert b"last-42" in far.output
            assert await far.frame("exit") == {"type": "exit", "code": 3}

    async def test_a_watcher_types_nothing(self, service: Service, other: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with (
            service.shell(environment_id, service.issuer.token(user_id)) as shell,
            other.shell(
                environment_id, other.issuer.token(user_id), session=shell.session_id, mode="ro", cols=11, rows=11
            ) as watcher,
        ):
            await watcher.type("echo watcher-$((1+1))\n")
            await watcher.send(type="ping")
            await watcher.frame("pong")
            await shell.run("stty size; echo =$((6*7))=", "24 80")
            await watcher.expect("=42=")
            await shell.expect("=42=")
            assert b"watcher" not in shell.output

    @pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
    async def test_a_paste_as_large_as_a_message_may_be(self, service: Service, other: Service, binary: bool) -> None:
        user_id, chance = new_id(), random.Random(2)
        environment_id = await service.environment(user_id)
        largest = other.settings.terminal_message_bytes
        letters = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz\x1b", k=4096))
        pasted = (letters * (largest // len(letters)))[: largest - 100]
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            await shell.run(ECHO, "go2")
            await shell.until(lambda: shell.output.endswith(b"\n"))
            async with other.shell(
                environment_id,
                other.issuer.token(user_id),
                binary=binary,
                session=shell.session_id,
                offset=shell.offset,
                client="laptop",
            ) as far:
                # The escape characters are one byte here, and six in JSON.
                data = pasted if binary else pasted[: len(pasted) // 2]
                await send(far, 1, data.encode())
                assert await far.frame("ack") == {"type": "ack", "seq": 1}
                await until_length(far, len(data))
                assert bytes(far.output) == data.encode()
                await far.socket.send("x" * (largest + 1))
                assert await far.closed() == 1009
            # It has read nothing of that, and would be waited for.
            shell.socket.transport.abort()

    async def test_what_is_too_fast_is_told_and_counted(self, backend: Servers, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with (
            running_service(backend, terminal_messages_per_second=5) as slow,
            service.shell(environment_id, service.issuer.token(user_id)) as shell,
            slow.shell(
                environment_id, slow.issuer.token(user_id), binary=True, session=shell.session_id, client="a"
            ) as far,
        ):
            for _ in range(30):
                await far.socket.send(b"x")
            assert (await far.frame("error"))["code"] == "rate_limited"
            await far.frame("ack")

    async def test_what_the_ring_has_forgotten_is_a_gap(self, backend: Servers, other: Service) -> None:
        user_id = new_id()
        limits: dict[str, Any] = {
            "terminal_ring_bytes": 64 * 1024,
            "terminal_ring_burst_bytes": 64 * 1024,
            "terminal_hold_seconds": 0,
        }
        async with running_service(backend, **limits) as small:
            environment_id = await small.environment(user_id)
            async with small.shell(environment_id, small.issuer.token(user_id), binary=True) as shell:
                await shell.run("head -c 400000 /dev/zero | tr '\\0' 'x'; echo =$((6*7))=", "=42=")
            async with other.shell(
                environment_id, other.issuer.token(user_id), binary=True, session=shell.session_id, offset=10
            ) as far:
                gap = await far.frame("gap")
                assert gap["from"] == 10 < gap["to"]
                await far.expect("=42=")


async def all_connected(*replicas: Service) -> bool:
    """To the bus."""
    return all(replica.app.state.platform.bus.connected for replica in replicas)


async def sessions_of(replica: Service, user_id: str) -> dict[str, dict[str, object]]:
    async with replica.http as http:
        answer = await http.get(_PATH, headers={"Authorization": f"Bearer {replica.issuer.token(user_id)}"})
    return {shell["id"]: shell for shell in answer.json()}


class TestAccess:
    async def test_what_is_not_there_or_not_theirs_is_404(self, service: Service, other: Service) -> None:
        user_id, stranger = new_id(), new_id()
        environment_id, elsewhere = await service.environment(user_id), await service.environment(user_id)
        strangers = await service.environment(stranger)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            for caller, environment, session in (
                (user_id, environment_id, new_id()),
                (user_id, elsewhere, shell.session_id),
                (stranger, strangers, shell.session_id),
            ):
                token = other.issuer.token(caller)
                url = other.url(f"terminal/{environment}", token=token, session=session)
                assert problem(await other.refusal(url)) == (404, "session_not_found")
            url = other.url(
                f"terminal/{environment_id}",
                token=other.issuer.token(user_id),
                session=shell.session_id,
                offset=10_000_000,
            )
            assert problem(await other.refusal(url)) == (422, "offset_beyond_end")
            assert connections_of(service) == 1

    @pytest.mark.parametrize(("ending", "code"), [("revoke", 4401), ("delete", 4404), ("close", 4404)])
    async def test_it_is_closed_with_what_closes_its_session_or_its_sign_in(
        self, service: Service, other: Service, ending: str, code: int
    ) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = other.issuer.token(user_id)
        login_id = (await other.app.state.platform.tokens.verify(token)).session_id
        async with (
            service.shell(environment_id, service.issuer.token(user_id)) as shell,
            other.shell(environment_id, token, session=shell.session_id) as far,
        ):
            if ending == "revoke":
                await service.revoke(user_id, login_id)
            elif ending == "delete":
                await service.delete(environment_id, user_id)
            else:
                async with service.http as http:
                    headers = {"Authorization": f"Bearer {service.issuer.token(user_id)}"}
                    await http.delete(f"{_PATH}/{shell.session_id}", headers=headers)
            assert await far.closed() == code
            if ending == "revoke":
                await shell.run("echo =$((6*7))=", "=42=")


class TestSlowness:
    async def test_who_takes_nothing_far_away_stalls_nobody_and_costs_no_memory(
        self, backend: Servers, other: Service
    ) -> None:
        user_id = new_id()
        limits: dict[str, Any] = {
            "terminal_ring_bytes": 128 * 1024,
            "terminal_ring_burst_bytes": 128 * 1024,
            "terminal_window_bytes": 65536,
        }
        async with running_service(backend, **limits) as small:
            environment_id, token = await small.environment(user_id), other.issuer.token(user_id)
            async with small.shell(environment_id, small.issuer.token(user_id)) as writer:
                where: dict[str, Any] = {"session": writer.session_id, "mode": "ro", "lazy": True}
                async with other.shell(environment_id, token, **where) as slow:
                    largest = 0

                    def measure() -> bool:
                        nonlocal largest
                        for guest in other.app.state.terminal.connections._open:
                            largest = max(largest, sum(len(payload) for _, payload in guest._link._inbox))
                        return b"=42=" in writer.output[-200:]

                    await writer.type("head -c 12000000 /dev/zero | tr '\\0' x; echo =$((6*7))=\n")
                    await writer.until(measure)
                    # The other replica holds what is on its way, and no more.
                    assert 64 * 1024 < largest <= WINDOW_BYTES + 128 * 1024
                    with suppress(ConnectionClosed):
                        await slow.until(lambda: b"=42=" in slow.output[-200:])
                # Taken through a gap, or disconnected and back: in either case behind what it has missed.
                assert slow.offset < writer.offset or [frame for frame in slow.frames if frame["type"] == "gap"]
                async with other.shell(environment_id, token, offset=slow.offset, **where) as again:
                    await writer.run("echo =$((7*7))=", "=49=")
                    await again.expect("=49=")
                    assert again.offset - len(again.output) == writer.offset - len(writer.output)

    async def test_a_shell_is_paused_when_only_a_slow_client_far_away_is_there(
        self, service: Service, other: Service
    ) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
            session = service.app.state.terminal.sessions._sessions[shell.session_id]
        async with other.shell(
            environment_id, other.issuer.token(user_id), session=shell.session_id, binary=True, lazy=True
        ) as lazy:
            await lazy.type("yes\n")
            ends: list[int] = []

            async def has_stopped() -> bool:
                await asyncio.sleep(0.1)
                ends.append(session.ring.end)
                return len(ends) > 3 and ends[-1] == ends[-4] > 256 * 1024

            await eventually(has_stopped, timeout_s=30)
            assert ends[-1] < 12_000_000
            await lazy.socket.send(b"\x03")
            await lazy.socket.send(b"echo =$((6*7))=\n")
            await lazy.until(lambda: b"=42=" in lazy.output[-200:])


class TestTrouble:
    @pytest.fixture(scope="class")
    async def owner(self, backend: Servers) -> AsyncIterator[Service]:
        async with running_service(backend, terminal_bridge_silent_seconds=0.6) as service:
            yield service

    @pytest.fixture(scope="class")
    async def near(self, backend: Servers) -> AsyncIterator[Service]:
        async with running_service(backend, terminal_bridge_silent_seconds=0.6) as service:
            yield service

    async def test_the_owner_checks_for_itself(self, owner: Service, near: Service) -> None:
        """What the other replica was wrong about."""
        user_id = new_id()
        environment_id = await owner.environment(user_id)
        async with owner.shell(environment_id, owner.issuer.token(user_id)) as shell:
            request = {
                "attachment": new_id(),
                "user_id": new_id(),
                "login_id": new_id(),
                "plan": "pro",
                "environment_id": environment_id,
                "mode": "rw",
                "binary": True,
                "offset": None,
                "client": None,
                "size": None,
            }
            bridges = near.app.state.terminal.bridges
            owner_id = (await near.app.state.terminal.takeovers._store.find(shell.session_id)).owner
            answer = await bridges._owners.attach(shell.session_id, owner_id, request)
            assert answer == {"refused": "session_not_found"}
            answer = await bridges._owners.attach(shell.session_id, owner_id, {**request, "user_id": user_id})
            assert answer == {"attached": True}

    async def test_silence_ends_it_on_both_sides(
        self, owner: Service, near: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user_id = new_id()
        environment_id = await owner.environment(user_id)
        async with owner.shell(environment_id, owner.issuer.token(user_id)) as shell:
            shell.socket.transport.abort()
        async with near.shell(environment_id, near.issuer.token(user_id), session=shell.session_id) as far:
            # Longer than the silence that would end it, and nothing else to hear.
            await asyncio.sleep(1.0)
            await far.run("echo =$((6*7))=", "=42=")

            async def loses_all(carrier: NatsCarrier, subject: str, message: bytes) -> None:
                return

            monkeypatch.setattr(NatsCarrier, "publish", loses_all)
            assert await far.closed() == 1001
            assert (await far.frame("error"))["code"] == "bridge_lost"
            await nobody_on(owner, near)

    async def test_a_lost_message_is_noticed_and_a_resume_misses_nothing(
        self, owner: Service, near: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user_id, chance, count = new_id(), random.Random(4), 30_000
        environment_id = await owner.environment(user_id)
        async with owner.shell(environment_id, owner.issuer.token(user_id)) as shell:
            await shell.run(_FLOOD.format(count=count), "go2")
            await shell.until(lambda: b"\n" in shell.output)
            received = shell.output.split(b"\n", 1)[1]
            session_id, offset = shell.session_id, shell.offset
            shell.socket.transport.abort()
        publish, lost = NatsCarrier.publish, 0

        async def loses_some(carrier: NatsCarrier, subject: str, message: bytes) -> None:
            nonlocal lost
            if lost < 5 and chance.random() < 0.2:
                lost += 1
            else:
                await publish(carrier, subject, message)

        monkeypatch.setattr(NatsCarrier, "publish", loses_some)
        codes = []
        while not received.endswith(b"THE-END\n"):
            url = near.url(
                f"terminal/{environment_id}",
                token=near.issuer.token(user_id, plan=Plan.ADMIN),
                session=session_id,
                offset=offset,
            )
            async with connect(url, proxy=None, max_size=None) as socket:
                again = Shell(socket)
                again.offset = offset
                with suppress(ConnectionClosed):
                    while not (received + again.output).endswith(b"THE-END\n"):
                        await again.receive()
                codes.append(socket.close_code)
            received += again.output
            offset = again.offset
        lines = b"".join(b"line %08d of a known stream\n" % number for number in range(1, count + 1))
        assert received == lines + b"THE-END\n"
        assert lost == 5
        assert set(codes[:-1]) == {1001}

    async def test_an_owner_that_dies(
        self, backend: Servers, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # It does not wait for us when we are held up.
        monkeypatch.setenv("TERMINAL_BRIDGE_SILENT_SECONDS", "2")
        user_id = new_id()
        environment_id = await service.environment(user_id)
        async with (
            replica(backend, service, user_id, tmp_path) as (owner, token, process),
            running_service(backend, terminal_bridge_silent_seconds=2) as near,
        ):
            async with owner.shell(environment_id, token) as shell:
                session_id = shell.session_id
            async with near.shell(environment_id, near.issuer.token(user_id), session=session_id) as far:
                await far.run("echo =$((6*7))=", "=42=")
                process.kill()
                assert await far.closed() == 1001
                assert (await far.frame("error"))["code"] == "bridge_lost"
        # Until its heartbeat is too old, nobody knows whether it lives.
        async with running_service(backend, terminal_owner_seconds=0.1) as hasty:
            url = hasty.url(f"terminal/{environment_id}", token=hasty.issuer.token(user_id), session=session_id)
            assert problem(await hasty.refusal(url)) == (503, "unavailable")

    async def test_an_owner_that_leaves_says_so(self, backend: Servers, near: Service) -> None:
        user_id = new_id()
        environment_id = await near.environment(user_id)
        async with running_service(backend) as owner:
            async with owner.shell(environment_id, owner.issuer.token(user_id)) as shell:
                session_id = shell.session_id
            async with near.shell(environment_id, near.issuer.token(user_id), session=session_id) as far:
                state = owner.app.state.terminal
                await asyncio.gather(
                    state.connections.close_all(CLOSINGS[CloseReason.SHUTDOWN]), state.sessions.drain()
                )
                assert await far.closed() == 1001
                assert (await far.frame("error"))["code"] == "shutting_down"

    async def test_a_bus_that_is_cut_for_a_moment(self, backend: Servers, tmp_path: Path) -> None:
        """Either what was kept crosses when it is back, or the client is told and comes back for it."""
        server = nats_server(tmp_path)
        server.start()
        servers, user_id = replace(backend, nats_url=f"nats://127.0.0.1:{server.port}"), new_id()
        try:
            async with (
                running_service(servers, database_name=f"test_{new_id()[-12:]}") as owner,
                running_service(servers, database_name=owner.settings.database_name) as near,
            ):
                environment_id = await owner.environment(user_id)
                async with owner.shell(environment_id, owner.issuer.token(user_id)) as shell:
                    await shell.run("PS1=; stty raw -echo; echo go$((1+1)); exec cat", "go2")
                    await shell.until(lambda: shell.output.endswith(b"\n"))
                    session_id, offset = shell.session_id, shell.offset
                token = near.issuer.token(user_id)
                where: dict[str, Any] = {"session": session_id, "client": "phone"}
                async with near.shell(environment_id, token, offset=offset, **where) as far:
                    await send(far, 1, b"one")
                    await far.expect("one")
                    server.kill()
                    await send(far, 2, b"two")
                    server.start()
                    with suppress(ConnectionClosed):
                        await until_length(far, 3)
                    seen, offset, code = bytes(far.output), far.offset, far.socket.close_code
                assert (seen, code) == (b"two", None) or code == 1001
                await eventually(lambda: all_connected(owner, near))
                async with near.shell(environment_id, token, offset=offset, **where) as again:
                    await send(again, 2, b"two")
                    await send(again, 3, b"three")
                    await until_length(again, 8 - len(seen))
                    assert seen + bytes(again.output) == b"twothree"
        finally:
            server.stop()
