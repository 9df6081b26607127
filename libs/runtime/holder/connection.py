"""One connection to a workspace's holder, about one shell."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from libs.runtime.holder.inside import wire
from libs.runtime.holder.packing import COMMAND, introduction
from libs.runtime.holder.shells import HolderMissingError, ShellGoneError
from libs.runtime.port import ExecRuntime, ExecStream, WorkspaceRef

_HELLO_S = 15.0
_LINE_BYTES = 16 * 1024
_AT_ONCE_BYTES = 4096


class HolderConnection:
    """Make it with `connect`. Output is read from `stream` as it is; `hear` gives what the holder says besides."""

    def __init__(self, stream: ExecStream) -> None:
        self.stream = stream
        self.hello: dict[str, Any] = {}
        self._heard = b""

    @classmethod
    async def connect(
        cls, runtime: ExecRuntime, ref: WorkspaceRef, do: str, request: dict[str, Any]
    ) -> HolderConnection:
        """To `open` or `attach` a shell. Raises HolderMissingError, ShellGoneError, what ExecRuntime.exec raises."""
        stream = await runtime.exec(ref, COMMAND, tty=False)
        connection = cls(stream)
        try:
            async with asyncio.timeout(_HELLO_S):
                # Where nothing can read it, the answer says so.
                with contextlib.suppress(BrokenPipeError):
                    await stream.write(introduction(ref.environment_id, do, request))
                connection._greeted(await connection.hear())
        except TimeoutError as error:
            await stream.close()
            raise HolderMissingError("The workspace's holder does not answer.") from error
        except BaseException:
            await stream.close()
            raise
        return connection

    async def send(self, frame: bytes) -> None:
        """Raises BrokenPipeError."""
        await self.stream.write(frame)

    def send_now(self, frame: bytes) -> bool:
        """Without waiting; False, and nothing is sent, when it cannot. Raises BrokenPipeError."""
        # A pipe takes all of so little, or nothing (POSIX, PIPE_BUF).
        return len(frame) <= _AT_ONCE_BYTES and self.stream.write_now(frame) == len(frame)

    async def hear(self) -> dict[str, Any]:
        """The next thing the holder says; empty when it says no more."""
        while b"\n" not in self._heard:
            data = await self.stream.read_stderr(_LINE_BYTES)
            if not data:
                return {}
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        try:
            said = json.loads(line)
        except ValueError:
            return {"refused": line.decode("utf-8", "replace")[:200]}
        return said if isinstance(said, dict) else {}

    async def hang_up(self, seconds: float) -> None:
        """Have the shell ended with all it started, and wait until it is, or the time has passed."""
        with contextlib.suppress(BrokenPipeError, TimeoutError):
            async with asyncio.timeout(seconds):
                await self.send(wire.frame(wire.HANG_UP))
                # The holder lets go when the last process is gone.
                await self.stream.wait()

    def _greeted(self, said: dict[str, Any]) -> None:
        if "hello" in said:
            self.hello = said["hello"]
        elif said.get("refused") == "unknown_session":
            raise ShellGoneError("The shell has ended.")
        else:
            raise HolderMissingError(f"The workspace has no holder: {said.get('refused', 'no answer')}")
