"""Readiness probes. Each answers None when the part works, else a phrase that says why not; none raises."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine

from libs.cli.stack.ports import LOOPBACK
from libs.cli.stack.specs import ReadyProbe

# A probe that takes longer counts as not ready; the supervisor asks again.
_PROBE_TIMEOUT_S = 3.0
_KNOCK_AFTER_S = 0.3
_KNOCK_EVERY_S = 0.1

Dialogue = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, str | None]]


def _any_certificate() -> ssl.SSLContext:
    """A probe asks whether the port answers, not who does, and tells nothing."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _talk(port: int, dialogue: Dialogue, tls: ssl.SSLContext | None = None) -> str | None:
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=tls)
            return await dialogue(reader, writer)
    except TimeoutError:
        return f"no answer on port {port} within {_PROBE_TIMEOUT_S:.0f} s"
    except (OSError, EOFError, ValueError) as error:
        return f"port {port}: {error or type(error).__name__}"
    finally:
        if writer is not None:
            writer.close()


def accepts_connections(port: int) -> ReadyProbe:
    """For servers that listen only once they can work."""

    async def connected(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> str | None:
        return None

    return lambda: _talk(port, connected)


def redis_answers(port: int, password: str) -> ReadyProbe:
    """PING with the password; Redis refuses while it loads its data."""

    async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
        writer.write(f"AUTH {password}\r\nPING\r\n".encode())
        answers = [(await reader.readline()).decode().strip() for _ in range(2)]
        return None if answers == ["+OK", "+PONG"] else " ".join(answers)

    return lambda: _talk(port, ping)


def nats_answers(port: int, user: str, password: str) -> ReadyProbe:
    """CONNECT and PING with the credentials, and JetStream is on."""
    options = json.dumps({"user": user, "pass": password, "verbose": False, "pedantic": False})

    async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
        info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        if not info.get("jetstream"):
            return "JetStream is not ready"
        writer.write(f"CONNECT {options}\r\nPING\r\n".encode())
        answer = (await reader.readline()).decode().strip()
        return None if answer == "PONG" else answer

    return lambda: _talk(port, ping)


def http_answers(port: int, path: str, *, tls: bool = False) -> ReadyProbe:
    """GET gives 200; otherwise the phrase is what the answer says."""
    context = _any_certificate() if tls else None

    async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}\r\n\r\n".encode())
        answer = (await reader.read(-1)).decode(errors="replace")
        head, _, body = answer.partition("\r\n\r\n")
        status = head.partition("\r\n")[0].split(" ")[1:2]
        return None if status == ["200"] else f"{path} answered {''.join(status) or 'nothing'}: {body.strip()[:500]}"

    return lambda: _talk(port, get, context)


@contextlib.asynccontextmanager
async def waking(port: int) -> AsyncIterator[None]:
    """Meanwhile, connect again and again, for a server that looks whether it should end only between connections.

    Not at once: in CPython, a thread that is being started for a connection may take the signal away from the main
    thread, which then sleeps on (seen in 1 of 5 stops).
    """

    async def knock() -> None:
        await asyncio.sleep(_KNOCK_AFTER_S)
        probe = accepts_connections(port)
        while await probe() is None:  # noqa: ASYNC110 - another process sets no events
            await asyncio.sleep(_KNOCK_EVERY_S)

    knocking = asyncio.create_task(knock())
    try:
        yield
    finally:
        knocking.cancel()
