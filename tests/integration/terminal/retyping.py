"""A client that numbers what it types, is cut off again and again, and sends again what was not acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from tests.integration.terminal.harness import Service, Shell

# Without an echo of its own: what comes back is what `cat` was given, byte by byte.
ECHO = "PS1=; stty raw -echo; echo go$((1+1)); exec cat"
_CLIENT = "phone"


async def send(shell: Shell, seq: int, data: bytes) -> None:
    """Binary frames count themselves from `ready` on."""
    if shell.binary:
        await shell.socket.send(data)
    else:
        await shell.send(type="input", data=data.decode(), seq=seq)


async def until_length(shell: Shell, length: int) -> None:
    """Until it has put out so much since it was connected."""
    await shell.until(lambda: len(shell.output) >= length)


async def type_through_cuts(replicas: Sequence[Service], chance: Random, *, count: int, binary: bool) -> None:
    """Type `count` messages through connections to any of the replicas; all come back once and in their order."""
    user_id = new_id()
    environment_id = await replicas[0].environment(user_id)
    # Sending again and again what nobody acknowledges in time is more than the free plan's rate. From the first
    # connection on: what the free plan's bucket holds is less than one draw of this plan's.
    async with replicas[0].shell(environment_id, replicas[0].issuer.token(user_id, plan=Plan.ADMIN)) as first:
        await first.run(ECHO, "go2")
        await first.until(lambda: first.output.endswith(b"\n"))
        where: dict[str, Any] = {"session": first.session_id, "offset": first.offset, "client": _CLIENT}
    pending: deque[tuple[int, bytes]] = deque()
    written, echoed, typed, cuts = b"", b"", 0, 0
    while typed < count or pending:
        replica = chance.choice(replicas)
        token = replica.issuer.token(user_id, plan=Plan.ADMIN)
        async with replica.shell(environment_id, token, binary=binary, **where) as shell:
            _forget_taken(shell, pending)
            for seq, data in pending:
                await send(shell, seq, data)
            for _ in range(chance.randint(0, 20) if typed < count else 0):
                typed += 1
                data = b"<%d>" % typed
                written += data
                pending.append((typed, data))
                await send(shell, typed, data)
                if chance.random() < 0.3:
                    await shell.receive()
            if typed >= count:
                while pending:
                    await shell.receive()
                    _forget_taken(shell, pending)
                await until_length(shell, len(written) - len(echoed))
            assert not [frame for frame in shell.frames if frame["type"] == "error"]
            echoed += shell.output
            where["offset"] = shell.offset
            shell.socket.transport.abort()
            cuts += 1
    assert echoed == written
    assert cuts > 5


def _forget_taken(shell: Shell, pending: deque[tuple[int, bytes]]) -> None:
    """Drop what `ready` and acknowledgements say was taken."""
    taken = max(frame["seq"] for frame in shell.frames if frame["type"] in {"ready", "ack"})
    while pending and pending[0][0] <= taken:
        pending.popleft()
