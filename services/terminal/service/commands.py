"""One command in a workspace, without a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from libs.runtime.port import ExecRuntime, ExecStream
from services.terminal.domain import Caller, Environment
from services.terminal.service.work import Workbench

_LOGIN_SHELL = 'exec "$([ -x "$SHELL" ] && echo "$SHELL" || echo /bin/sh)" -lc "$1"'
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """`argv`, or a line for the user's login shell. What may be secret is left out of `repr`."""

    command: Sequence[str] | str
    timeout_seconds: float
    stdin: bytes = field(default=b"", repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def argv(self) -> list[str]:
        """What is started."""
        if isinstance(self.command, str):
            return ["/bin/sh", "-c", _LOGIN_SHELL, "sh", self.command]
        return list(self.command)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went; `exit_code` is None when it was ended because its time was up.

    `is_truncated`: the command wrote more than is kept, to one of the two.
    """

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    duration_ms: int
    is_truncated: bool

    @property
    def timed_out(self) -> bool:
        """Whether its time was up."""
        return self.exit_code is None


class _Kept:
    """Reads a stream to its end and keeps the beginning."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.data = bytearray()
        self.is_truncated = False

    async def fill(self, read: Callable[[int], Awaitable[bytes]]) -> None:
        while data := await read(_PIECE_BYTES):
            room = self._limit - len(self.data)
            self.data += data[:room]
            self.is_truncated = self.is_truncated or len(data) > room


class Commands:
    """Runs them; of each output at most `output_bytes` are kept, and what is beyond is read and dropped."""

    def __init__(self, runtime: ExecRuntime, workbench: Workbench, *, output_bytes: int) -> None:
        self._runtime = runtime
        self._workbench = workbench
        self._output_bytes = output_bytes

    async def run(self, caller: Caller, environment: Environment, command: Command) -> Outcome:
        """To its end, or to that of its time. Then whatever it has started and left in its session is ended too, and
        so it is when this is cancelled. Raises TooManyAtOnceError, EnvironmentNotRunningError, UnavailableError."""
        async with self._workbench.working(caller, environment) as work:
            stream = work.holds(
                await self._runtime.exec(environment.ref, command.argv, tty=False, env=command.variables)
            )
            try:
                outcome = await self._outcome(stream, command)
            finally:
                await stream.close()
            if work.closing is not None:
                # Not an outcome of the command's own.
                raise BrokenPipeError
            return outcome

    async def _outcome(self, stream: ExecStream, command: Command) -> Outcome:
        loop = asyncio.get_running_loop()
        started = loop.time()
        out, err = _Kept(self._output_bytes), _Kept(self._output_bytes)
        feeding = asyncio.create_task(_feed(stream, command.stdin))
        reading = asyncio.gather(out.fill(stream.read), err.fill(stream.read_stderr))
        code: int | None = None
        try:
            async with asyncio.timeout(command.timeout_seconds):
                await reading
                code = await stream.wait()
        except TimeoutError:
            code = None
        finally:
            feeding.cancel()
            reading.cancel()
            await asyncio.gather(feeding, reading, return_exceptions=True)
        duration = round((loop.time() - started) * 1000)
        return Outcome(code, bytes(out.data), bytes(err.data), duration, out.is_truncated or err.is_truncated)


async def _feed(stream: ExecStream, data: bytes) -> None:
    try:
        if data:
            await stream.write(data)
        await stream.write_eof()
    except BrokenPipeError:
        # It need not read what it is given.
        return
