"""Numbered input through real sockets that are cut: what is sent again is typed once."""

from __future__ import annotations

import random
from collections import deque

import pytest

from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from tests.integration.terminal.harness import Service, Shell

# Without an echo of its own: what comes back is what `cat` was given, byte by byte.
_ECHO = "PS1=; stty raw -echo; echo go$((1+1)); exec cat\n"


async def send(shell: Shell, seq: int, data: bytes) -> None:
    if shell.binary:
        await shell.socket.send(data)
    else:
        await shell.send(type="input", data=data.decode(), seq=seq)


def forget_taken(shell: Shell, pending: deque[tuple[int, bytes]]) -> None:
    """Drop what `ready` and acknowledgements say was taken."""
    taken = max(frame["seq"] for frame in shell.frames if frame["type"] in {"ready", "ack"})
    while pending and pending[0][0] <= taken:
        pending.popleft()


async def output_of(shell: Shell, length: int) -> None:
    await shell.until(lambda: len(shell.output) >= length)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
async def test_a_client_that_is_cut_off_again_and_again_types_everything_once(service: Service, binary: bool) -> None:
    user_id, chance = new_id(), random.Random(11)
    environment_id = await service.environment(user_id)
    # Sending again and again what nobody acknowledges in time is more than the free plan's rate.
    token = service.issuer.token(user_id, plan=Plan.ADMIN)
    async with service.shell(environment_id, token) as first:
        await first.type(_ECHO)
        await first.expect("go2")
        await first.until(lambda: first.output.endswith(b"\n"))
        session_id, offset = first.session_id, first.offset
    pending: deque[tuple[int, bytes]] = deque()
    written, echoed, count, cuts = b"", b"", 0, 0
    while count < 150 or pending:
        async with service.shell(
            environment_id, token, binary=binary, session=session_id, offset=offset, client="phone"
        ) as shell:
            forget_taken(shell, pending)
            for seq, data in pending:
                await send(shell, seq, data)
            for _ in range(chance.randint(0, 20) if count < 150 else 0):
                count += 1
                data = b"<%d>" % count
                written += data
                pending.append((count, data))
                await send(shell, count, data)
                if chance.random() < 0.3:
                    await shell.receive()
            if count >= 150:
                while pending:
                    await shell.receive()
                    forget_taken(shell, pending)
                await output_of(shell, len(written) - len(echoed))
            assert not [frame for frame in shell.frames if frame["type"] == "error"]
            echoed += shell.output
            offset = shell.offset
            shell.socket.transport.abort()
            cuts += 1
    assert echoed == written
    assert cuts > 5


async def test_acknowledgements_follow_what_is_typed(service: Service) -> None:
    user_id = new_id()
    environment_id = await service.environment(user_id)
    async with service.shell(environment_id, service.issuer.token(user_id)) as shell:
        assert shell.frames[0]["seq"] == 0
        await shell.send(type="input", data="echo =$((6*7))=\n", seq=1)
        assert await shell.frame("ack") == {"type": "ack", "seq": 1}
        await shell.expect("=42=")
        await shell.send(type="input", data="lost", seq=3)
        assert (await shell.frame("error"))["code"] == "input_gap"
        assert await shell.frame("ack") == {"type": "ack", "seq": 1}
