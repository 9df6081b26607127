"""nginx takes a new configuration without an end: new workers accept, the old ones finish what they have.

First the file `leaving` is made, for which the configuration looks: answers then have their clients connect anew.
Without it, of twelve clients that were always at it one lost a request at each reload, on a busy machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from libs.cli.stack.paths import write_private
from libs.cli.stack.programs import bare_environment
from libs.cli.stack.specs import RenewalError

# In the folder of temporary files.
LEAVING = "leaving"
_POLL_S = 0.02
_TIMEOUT_S = 20.0
# Until whoever is at it has had an answer. Connections that rest for longer are rarely used just when they are closed.
_LEAVING_S = 1.0


def nginx_renewal(
    argv: Sequence[str], file: Path, render: Callable[[], str], *, workers: int, leaving: Path
) -> Callable[[int], Awaitable[None]]:
    """What renews the nginx that `argv` has started with so many workers, by the pid of its master."""

    async def renew(master: int) -> None:
        """Raises RenewalError, with the old configuration in place."""
        before = _replace(file, render)
        try:
            await _check(argv)
            with _existing(leaving):
                await asyncio.sleep(_LEAVING_S)
                await _reload(master, workers)
        except RenewalError:
            write_private(file, before)
            raise

    return renew


@contextmanager
def _existing(file: Path) -> Iterator[None]:
    file.touch()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


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
    # It starts them all before it tells the old ones to go, and those go on accepting until they hear of it.
    while len(_children(master) - old) < workers or not all(_is_going(pid) for pid in old):
        if asyncio.get_running_loop().time() > deadline:
            raise RenewalError(f"the gateway has started no new workers within {_TIMEOUT_S:.0f} s; its old ones go on")
        await asyncio.sleep(_POLL_S)


def _children(pid: int) -> set[int]:
    try:
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError as error:
        raise RenewalError("the gateway does not run") from error


def _is_going(worker: int) -> bool:
    """nginx says so in the command line."""
    try:
        return b"shutting down" in Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return True
