"""Ends the sandboxes of the local runtime when the stack stops; their workspaces stay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

StopSandboxes = Callable[[float], Awaitable[None]]


async def no_sandboxes(_grace_seconds: float) -> None:
    """For a stack whose workspaces run elsewhere."""


def sandbox_stopper(settings: Mapping[str, str]) -> StopSandboxes:
    """What to call, with the grace in seconds, once the orchestrator no longer repairs what it finds stopped."""
    if settings.get("RUNTIME") != "local":
        return no_sandboxes
    directory = Path(settings["LOCAL_RUNTIME_DIR"])

    async def stop(grace_seconds: float) -> None:
        if not await asyncio.to_thread(directory.exists):
            return
        from libs.runtime.local.isolation import IsolationPolicy
        from libs.runtime.local.runtime import LocalRuntime

        # Ending needs no isolation, so what this machine can isolate does not matter here.
        runtime = LocalRuntime(directory, IsolationPolicy.AUTO)
        await runtime.open()
        try:
            await runtime.stop_all(grace_seconds)
        finally:
            await runtime.close()

    return stop
