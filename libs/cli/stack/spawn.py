"""Starting a child so that nothing can leave it behind."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


def _end_with(parent: int) -> Callable[[], None]:
    """What the child does before it becomes the program: ask for SIGTERM when its parent dies.

    A supervisor killed with SIGKILL cannot stop anything; its children would go on, unwatched and with nobody reading
    their output.
    """

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


async def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    output: int = asyncio.subprocess.DEVNULL,
    descriptors: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """A child in a session of its own (Ctrl-C reaches only the supervisor) that inherits `descriptors`; errors go
    where the output goes."""
    return await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        pass_fds=descriptors,
        preexec_fn=_end_with(os.getpid()),
    )


@asynccontextmanager
async def output_pipe() -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """A pipe for `output`, which the caller closes once the child has it, and its reader.

    asyncio's own pipes would not do: with them `wait()` returns only once everybody has closed the pipe, and a dead
    nginx's workers keep it open.
    """
    read_fd, write_fd = os.pipe()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", buffering=0)
    )
    try:
        yield write_fd, reader
    finally:
        transport.close()
