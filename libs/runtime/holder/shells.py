"""Shells as the terminal service has them: held in the workspace, or, where nothing can hold them, its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from libs.runtime.port import DriverError, ExecStream, TerminalSize

Taken = Callable[[str, int], None]


class HolderMissingError(DriverError):
    """Nothing in this workspace can hold a shell; one that ends with its connection can be started still."""

    reason = "HolderMissing"


class ShellGoneError(DriverError):
    """The workspace's holder knows no such shell, or holds none any more."""

    reason = "ShellGone"


class ShellTakenError(DriverError):
    """Another service has taken the shell over."""

    reason = "ShellTaken"


class Shell(Protocol):
    """A login shell on a terminal.

    `offset` is that of the next byte that is read; where output was lost on the way it jumps. `backlog_end` is where
    output ended when the shell was found: reading up to there waits for nothing. `taken` are the highest numbers of
    each client's input when it was found, of which some may be missing when `has_forgotten`.
    """

    is_held: bool
    size: TerminalSize
    offset: int
    backlog_end: int
    taken: Mapping[str, int]
    has_forgotten: bool
    on_taken: Taken

    async def read(self, max_bytes: int) -> bytes:
        """The next output, `b""` at its end. Raises ShellGoneError, ShellTakenError."""
        ...

    def write_now(self, data: bytes) -> int:
        """Type what leaves without waiting, and say how many bytes that were. Raises BrokenPipeError."""
        ...

    def write_numbered_now(self, client: str, seq: int, data: bytes) -> bool:
        """As `write_numbered`, if all of it leaves without waiting; else False, and nothing is typed."""
        ...

    async def write(self, data: bytes) -> None:
        """Type, waiting while the shell takes nothing. Raises BrokenPipeError when it has ended."""
        ...

    async def write_numbered(self, client: str, seq: int, data: bytes) -> None:
        """Type once, however often it is sent; `on_taken` is called once the shell's terminal has it for sure."""
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Change the window size."""
        ...

    def forget(self, before: int) -> None:
        """Output before this offset will not be needed again."""
        ...

    async def wait(self) -> int:
        """The exit code, once there is no output left to read. Raises ShellGoneError, ShellTakenError."""
        ...

    async def release(self) -> None:
        """Let go. A held shell lives on; another one ends."""
        ...

    async def close(self) -> None:
        """End it with everything it started."""
        ...


class OwnShell:
    """A shell whose terminal this process has; it ends with it."""

    is_held = False
    backlog_end = 0
    has_forgotten = False

    def __init__(self, stream: ExecStream, size: TerminalSize) -> None:
        self.size = size
        self.offset = 0
        self.taken: Mapping[str, int] = {}
        self._stream = stream
        self.on_taken: Taken = nobody

    async def read(self, max_bytes: int) -> bytes:
        """See the protocol."""
        data = await self._stream.read(max_bytes)
        self.offset += len(data)
        return data

    def write_now(self, data: bytes) -> int:
        """See the protocol."""
        return self._stream.write_now(data)

    def write_numbered_now(self, client: str, seq: int, data: bytes) -> bool:
        """Never: a terminal may take a part."""
        return False

    async def write(self, data: bytes) -> None:
        """See the protocol."""
        await self._stream.write(data)

    async def write_numbered(self, client: str, seq: int, data: bytes) -> None:
        """See the protocol."""
        await self._stream.write(data)
        self.on_taken(client, seq)

    async def resize(self, size: TerminalSize) -> None:
        """See the protocol."""
        await self._stream.resize(size)

    def forget(self, before: int) -> None:
        """Nothing is kept here."""

    async def wait(self) -> int:
        """See the protocol."""
        return await self._stream.wait()

    async def release(self) -> None:
        """See the protocol."""
        await self._stream.close()

    async def close(self) -> None:
        """See the protocol."""
        await self._stream.close()


def nobody(client: str, seq: int) -> None:
    """Who listens to a shell before somebody else does."""
