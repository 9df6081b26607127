"""nginx takes a new configuration without an end: new workers accept, the old ones finish what they have."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from libs.cli.stack.paths import write_private
from libs.cli.stack.programs import bare_environment
from libs.cli.stack.specs import RenewalError

_POLL_S = 0.02
_TIMEOUT_S = 20.0


def nginx_renewal(
    argv: Sequence[str], file: Path, render: Callable[[], str], workers: int
) -> Callable[[int], Awaitable[None]]:
    """What renews the nginx that `argv` has started with so many workers, by the pid of its master."""

    async def renew(master: int) -> None:
        """Raises RenewalError, with the old configuration in place."""
        before = _replace(file, render)
        try:
            await _check(argv)
            await _reload(master, workers)
        except RenewalError:
            write_private(file, before)
            raise

    return renew


def _replace(file: Path, render: Callable[[], str]) -> str:
    """What was there before."""
    before = file.read_text()
    try:
        write_private(file, render())
    except Exception as error:
        raise RenewalError(f"the gateway's configuration cannot be made: {error}") from error
    return before


async def _check(argv: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        "-t",
        env=bare_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RenewalError(f"nginx refuses the gateway's new configuration: {output.decode(errors='replace').strip()}")


async def _reload(master: int, workers: int) -> None:
    old = _children(master)
    os.kill(master, signal.SIGHUP)
    deadline = asyncio.get_running_loop().time() + _TIMEOUT_S
    # It starts them all before it tells the old ones to go.
    while len(_children(master) - old) < workers:
        if asyncio.get_running_loop().time() > deadline:
            raise RenewalError(f"the gateway has started no new workers within {_TIMEOUT_S:.0f} s; its old ones go on")
        await asyncio.sleep(_POLL_S)


def _children(pid: int) -> set[int]:
    try:
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError as error:
        raise RenewalError("the gateway does not run") from error
