"""What holds the event loop up is seen and told."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from structlog.testing import capture_logs

from libs.common.loop_watch import LoopWatch
from tests.support.app import eventually


async def test_a_loop_that_was_held_up_is_told_once() -> None:
    watch = LoopWatch()
    with capture_logs() as lines:
        task = asyncio.create_task(watch.run())
        for _ in range(3):
            await asyncio.sleep(0)
            time.sleep(0.4)  # noqa: ASYNC251 - the mistake that is looked for

        async def seen() -> bool:
            return watch.worst_s > 0.1 and bool(lines)

        await eventually(seen)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    assert [line["event"] for line in lines] == ["event loop was held up"]
    assert lines[0]["late_ms"] > 100
