"""Coming back to a session: exactly the missing bytes, or a gap that says what is missing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from libs.common.ids import new_id
from services.terminal.domain import Caller, SocketKind
from services.terminal.sessions.session import TerminalSession
from tests.integration.terminal.harness import Service, left_alone, running_service
from tests.support.app import eventually
from tests.support.servers import Servers

# Numbered lines, so that a lost or doubled byte is seen; `stty raw` keeps the terminal from adding to them.
_FLOOD = "stty raw -echo; seq -f 'line %08.0f of a known stream' 1 {count}; echo THE-END\n"


def _expected(count: int) -> bytes:
    return b"".join(b"line %08d of a known stream\n" % number for number in range(1, count + 1)) + b"THE-END\n"


def _wait(folder: Path) -> str:
    """What a shell does until there is a file `go`."""
    return f"until [ -e {folder}/go ]; do sleep 0.02; done"


class TestResume:
    @pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
    async def test_a_client_that_is_cut_off_again_and_again_misses_nothing(
        self, service: Service, binary: bool
    ) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        chance, expected = random.Random(7), _expected(100_000)
        async with service.shell(environment_id, token, binary=binary) as shell:
            await shell.run("PS1=; echo ready-$((1+1))", "ready-2")
            await shell.until(lambda: shell.output.endswith(b"\n"))
            began_at = shell.offset
            await shell.type(_FLOOD.format(count=100_000))
            session_id, offset, received = shell.session_id, shell.offset, bytearray()
            shell.output.clear()
            await shell.receive()
            received += shell.output
            offset = shell.offset
            shell.socket.transport.abort()
        cuts = 0
        while not received.endswith(b"THE-END\n"):
            assert offset == began_at + len(received)
            async with service.shell(environment_id, token, binary=binary, session=session_id, offset=offset) as again:
                assert again.started_at == offset
                for _ in range(chance.randint(0, 12)):
                    if (received + again.output).endswith(b"THE-END\n"):
                        break
                    await again.receive()
                received += again.output
                offset = again.offset
                again.socket.transport.abort()
                cuts += 1
        typed = _FLOOD.format(count=100_000).replace("\n", "\r\n").encode()
        assert received.removeprefix(typed) == expected
        assert cuts > 5

    async def test_without_an_offset_everything_still_held_is_shown(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        async with service.shell(environment_id, token) as shell:
            await shell.run("echo =$((6*7))=", "=42=")
        async with service.shell(environment_id, token, session=shell.session_id) as again:
            assert again.started_at == 0
            await again.expect("=42=")

    async def test_work_goes_on_while_nobody_is_connected(self, service: Service, tmp_path: Path) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        async with service.shell(environment_id, token) as shell:
            await shell.run(f"echo go$((1+1)); ({_wait(tmp_path)}; echo while-away-$((2+2)))", "go2")
            await shell.until(lambda: shell.output.endswith(b"\n"))
            shell.socket.transport.abort()
        session = await left_alone(service, shell.session_id)
        (tmp_path / "go").touch()

        async def has_worked() -> bool:
            return session.ring.end >= shell.offset + len("while-away-4")

        await eventually(has_worked)
        async with service.shell(environment_id, token, session=shell.session_id, offset=shell.offset) as again:
            await again.expect("while-away-4")

    async def test_an_exit_while_away_is_told_on_return(self, service: Service, tmp_path: Path) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        async with service.shell(environment_id, token) as shell:
            await shell.run(f"echo go$((1+1)); {_wait(tmp_path)}; exit 9", "go2")
            shell.socket.transport.abort()
        session = await left_alone(service, shell.session_id)
        (tmp_path / "go").touch()

        async def has_exited() -> bool:
            return session.exit_code is not None

        await eventually(has_exited)
        async with service.shell(environment_id, token, session=shell.session_id) as again:
            assert (await again.frame("exit"))["code"] == 9
            assert await again.closed() == 1000
        url = service.url(f"terminal/{environment_id}", token=token, session=shell.session_id)
        assert (await service.refusal(url)).status_code == 404


class TestGap:
    @pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
    async def test_what_the_ring_has_lost_is_announced(self, backend: Servers, binary: bool) -> None:
        async with running_service(
            backend, terminal_ring_burst_bytes=64 * 1024, terminal_ring_bytes=64 * 1024, terminal_hold_seconds=0
        ) as service:
            user_id = new_id()
            environment_id = await service.environment(user_id)
            token = service.issuer.token(user_id)
            async with service.shell(environment_id, token, binary=binary) as shell:
                await shell.run("PS1=; echo go$((1+1))", "go2")
                left_at = shell.offset
                await shell.type(_FLOOD.format(count=20_000))
                shell.socket.transport.abort()
            principal = await service.app.state.platform.tokens.verify(token)
            caller = Caller.of(principal, SocketKind.TERMINAL)
            session: TerminalSession = service.app.state.terminal.sessions.find(
                caller, environment_id, shell.session_id
            )

            async def is_done() -> bool:
                return session.ring.read(max(session.ring.start, session.ring.end - 8), 8) == b"THE-END\n"

            await eventually(is_done)
            async with service.shell(
                environment_id, token, binary=binary, session=shell.session_id, offset=left_at
            ) as again:
                assert again.started_at == left_at
                gap = await again.frame("gap")
                assert gap["from"] == left_at
                await again.until(lambda: again.output.endswith(b"THE-END\n"))
                assert again.output == _expected(20_000)[-len(again.output) :]
                assert len(again.output) >= 64 * 1024
                assert gap["to"] + len(again.output) == again.offset == session.ring.end


class TestRefusals:
    async def test_an_offset_beyond_the_end_is_refused(self, service: Service) -> None:
        user_id = new_id()
        environment_id = await service.environment(user_id)
        token = service.issuer.token(user_id)
        async with service.shell(environment_id, token) as shell:
            url = service.url(f"terminal/{environment_id}", token=token, session=shell.session_id, offset=10**9)
            answer = await service.refusal(url)
            assert (answer.status_code, answer.json()["code"]) == (422, "offset_beyond_end")

    async def test_sessions_of_others_do_not_exist(self, service: Service) -> None:
        owner, other = new_id(), new_id()
        environment_id, second_id = await service.environment(owner), await service.environment(owner)
        foreign_id = await service.environment(other)
        async with service.shell(environment_id, service.issuer.token(owner)) as shell:
            for target, user in ((foreign_id, other), (second_id, owner), (environment_id, other)):
                url = service.url(f"terminal/{target}", token=service.issuer.token(user), session=shell.session_id)
                assert (await service.refusal(url)).status_code == 404
