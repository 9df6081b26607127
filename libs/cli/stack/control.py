"""How a command asks a running supervisor for something: a socket in the data folder, which is its owner's alone.

The command sends one line of JSON and reads lines until the end: what has been done, then `{"done": true}` or an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from libs.cli.stack.supervisor import RestartError, Supervisor

# For the order itself; what it takes to carry it out is another matter.
_ORDER_TIMEOUT_S = 5.0


class ControlError(Exception):
    """It could not be asked, or has refused, or failed; the text says why. `log_tail`: of whom it concerns."""

    def __init__(self, message: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log_tail = tuple(log_tail)


@contextlib.asynccontextmanager
async def taking_orders(path: Path, supervisor: Supervisor) -> AsyncIterator[None]:
    """For the length of the block. What was begun goes on when the command that asked is gone."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_ORDER_TIMEOUT_S):
                order = json.loads(await reader.readline())
            await _carry_out(order["restart"], supervisor, writer)
        except (RestartError, TimeoutError, ValueError, KeyError, TypeError) as error:
            _say(writer, {"error": str(error) or repr(error), "log_tail": getattr(error, "log_tail", ())})
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, sock=_bound(path))
    try:
        yield
    finally:
        server.close()
        os.unlink(path)


def _bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _within_reach(path) as address:
        made.bind(address)
    return made


async def _carry_out(names: Sequence[str], supervisor: Supervisor, writer: asyncio.StreamWriter) -> None:
    async for item in supervisor.restart(names):
        _say(writer, {"name": item.name, **asdict(item.replacement)})
    _say(writer, {"done": True})


def _say(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(message).encode() + b"\n")


def restart(path: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Ask for a restart, and tell of each part when it is done. Raises ControlError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            with _within_reach(path) as address:
                connection.connect(address)
            connection.sendall(json.dumps({"restart": list(names)}).encode() + b"\n")
        except OSError as error:
            reason = "it is starting or stopping, or was started by an older version"
            raise ControlError(f"the supervisor cannot be asked ({error.strerror}): {reason}") from error
        with connection.makefile("rb") as answers:
            for line in answers:
                answer = json.loads(line)
                if "error" in answer:
                    raise ControlError(answer["error"], answer["log_tail"])
                if "done" in answer:
                    return
                yield answer
    raise ControlError("the supervisor has ended before the restart did; see `devpocket status`")


@contextlib.contextmanager
def _within_reach(path: Path) -> Iterator[str]:
    """Its address. The kernel takes 107 bytes of it at most, which a path may exceed."""
    folder = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
