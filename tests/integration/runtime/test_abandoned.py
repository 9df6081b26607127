"""Work that nobody waits for any more does nothing later, when something newer has been done."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from pathlib import Path

from libs.runtime.local.layout import Layout
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import WorkspacePhase
from tests.runtime_contract.workspaces import Workspaces, make_spec


def waiting() -> int:
    """How many threads of ours wait for a workspace's lock."""
    mine = threading.get_ident()
    stacks = [traceback.extract_stack(frame) for thread, frame in sys._current_frames().items() if thread != mine]
    return sum(any(line.name == "lock" and line.filename.endswith("layout.py") for line in stack) for stack in stacks)


async def until_waiting(count: int) -> None:
    async with asyncio.timeout(30):
        while waiting() != count:  # noqa: ASYNC110 - threads give no event
            await asyncio.sleep(0.001)


async def test_a_start_that_was_cancelled_before_its_turn_never_happens(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    await runtime.stop(ref, grace_seconds=0)
    layout = Layout(runtime_dir)
    with layout.lock(ref.environment_id):
        starting = asyncio.create_task(runtime.ensure(spec))
        await until_waiting(1)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    await until_waiting(0)
    # Had it got its turn, it would have it now, and we would get ours after it.
    with layout.lock(ref.environment_id):
        observed = await runtime.inspect(ref)
    assert observed is not None
    assert observed.phase is WorkspacePhase.STOPPED


async def test_a_stop_that_finds_nothing_left_leaves_nothing(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    ref = await workspaces.start()
    layout = Layout(runtime_dir)
    lock = layout.locks / ref.environment_id
    other = LocalRuntime(runtime_dir)
    await other.open()
    with layout.lock(ref.environment_id):
        deleting = asyncio.create_task(other.delete(ref))
        stopping = asyncio.create_task(runtime.stop(ref, grace_seconds=0))
        await until_waiting(2)
    await asyncio.gather(deleting, stopping)
    assert not lock.exists()
    await other.close()
