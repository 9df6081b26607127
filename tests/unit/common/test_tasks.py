"""What goes on in the background ends when it has to, also where a cancellation is lost."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from nats.js.api import ConsumerConfig, ConsumerInfo

from libs.common.clock import utc_now
from libs.common.messaging.consumers import REVISION, ConsumerKeeper, described
from libs.common.settings import CommonSettings
from libs.common.tasks import end_tasks


async def test_one_that_loses_a_cancellation_ends_all_the_same_and_what_one_raises_is_no_news() -> None:
    async def deaf() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    async def broken() -> None:
        raise RuntimeError("a bug")

    tasks = [asyncio.create_task(work()) for work in (deaf, broken)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_tasks(tasks, again_after_s=0.01)
    assert all(task.done() for task in tasks)


class _Server:
    """Answers when told."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer: asyncio.Future[ConsumerInfo] = asyncio.get_running_loop().create_future()

    async def consumer_info(self, _stream: str, _name: str) -> ConsumerInfo:
        """As nats-py waits for an answer."""
        self.asked.set()
        return await asyncio.wait_for(self.answer, 60)


async def test_a_loop_ends_whose_answer_comes_together_with_its_end() -> None:
    server = _Server()
    keeper = ConsumerKeeper(CommonSettings(_env_file=None), look_every_s=0.01)
    keeper.add("envs-users", "devpocket.user.*.*", ConsumerConfig())
    keeper.start(cast("Any", server))
    await server.asked.wait()
    config = ConsumerConfig(description=described(REVISION))
    server.answer.set_result(ConsumerInfo("envs-users", "DEVPOCKET_EVENTS", config, utc_now()))
    async with asyncio.timeout(30):
        await keeper.stop()
