"""The bus: from publishing to handled, what a service sustains, and what a replay costs.

Handled means acknowledged: a plain subscription to the acknowledgements sees each one as it leaves the service.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import psutil
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from libs.common.context import Cause
from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import EnvironmentStatusChanged, Event, EventData
from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserPlanChanged
from libs.common.messaging.streams import EVENTS_STREAM, ensure_streams
from libs.common.settings import CommonSettings
from tests.bench.measures import Result, percentile
from tests.bench.stack import service_process
from tests.support.servers import Servers, local_servers

_ACKS = f"$JS.ACK.{EVENTS_STREAM}"
_AGGREGATES = 500
_PAUSE_S = 0.005
_PUBLISHING = 256
_TIMEOUT_S = 600.0

MakeData = Callable[[int], EventData]


@dataclass(frozen=True)
class Consumer:
    """A durable consumer, the process behind it, and events for it. `app` None: a handler that does nothing."""

    title: str
    name: str
    app: str
    make: MakeData
    budget: bool = False


def _plan_changed(number: int) -> EventData:
    return UserPlanChanged(
        user_id=f"user{number % _AGGREGATES}",
        username="bench",
        plan=Plan.FREE,
        is_active=True,
        is_verified=True,
        version=number + 1,
    )


def _status_changed(number: int) -> EventData:
    return EnvironmentStatusChanged(
        environment_id=f"env{number % _AGGREGATES}",
        user_id=f"user{number % _AGGREGATES}",
        status=EnvironmentStatus.RUNNING,
        previous=EnvironmentStatus.STARTING,
        generation=1,
        version=number + 1,
    )


CONSUMERS = (
    Consumer("bus alone, handler does nothing", "nothing-users", "tests.bench.idle:create_app", _plan_changed, True),
    Consumer("envs, account written", "envs-users", "services.envs.main:create_app", _plan_changed),
    Consumer("orchestrator, status looked at", "orchestrator-environments", "services.orchestrator.main:create_app",
             _status_changed),
    Consumer("terminal, status written", "terminal-environments", "services.terminal.main:create_app",
             _status_changed),
)  # fmt: skip


async def bus_results(quick: bool) -> list[Result]:
    """Everything, on servers of its own."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="devpocket-bench-bus-") as folder, local_servers(Path(folder)) as servers:
        settings = CommonSettings(nats_url=servers.nats_url, _env_file=None)
        client = await nats.connect(servers.nats_url)
        try:
            await ensure_streams(client.jetstream(), settings)
            for consumer in CONSUMERS:
                print(f"measuring {consumer.title} …", file=sys.stderr)
                results += await _measure(consumer, client, servers, Path(folder), quick)
            results += await _replay(client, servers, 10_000 if quick else 100_000)
        finally:
            await client.close()
    return results


async def _measure(consumer: Consumer, client: NatsClient, servers: Servers, folder: Path, quick: bool) -> list[Result]:
    acks = Acknowledgements()
    subscription = await client.subscribe(f"{_ACKS}.{consumer.name}.>", cb=acks.on_ack)
    async with service_process(consumer.app, servers, folder):
        samples = await _latency(client, acks, consumer.make, 200 if quick else 1_000)
    # What the embedded database takes part in is slower by far than the bus.
    count = (20_000 if consumer.budget else 4_000) // (10 if quick else 1)
    acks.at.clear()
    # A backlog, so that publishing takes no part in what is measured.
    await publish_many(client, consumer.make, count)
    async with service_process(consumer.app, servers, folder), asyncio.timeout(_TIMEOUT_S):
        await acks.until_count(count)
    await subscription.unsubscribe()
    rate = count / (max(acks.at.values()) - min(acks.at.values()))
    detail = f"p99 {percentile(samples, 99):.1f} ms"
    latency = Result(f"publish → handled, p50, {consumer.title}", statistics.median(samples), "ms", "≤ 5", detail)
    budget = "≥ 3,000" if consumer.budget else ""
    sustained = Result(f"sustained, {consumer.title}", rate, "events/s", budget, f"{count:,} events")
    return [latency, sustained]


class Acknowledgements:
    """When each message of one consumer was acknowledged, by its place in the stream."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self._changed = asyncio.Event()

    async def on_ack(self, message: Msg) -> None:
        """`$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.…`"""
        if message.data in {b"", b"+ACK"}:
            self.at[int(message.subject.split(".")[5])] = time.perf_counter()
            self._changed.set()

    async def until(self, sequence: int) -> None:
        """Until this one is handled."""
        while sequence not in self.at:
            self._changed.clear()
            await self._changed.wait()

    async def until_count(self, count: int) -> None:
        """Until so many are handled."""
        while len(self.at) < count:
            self._changed.clear()
            await self._changed.wait()


async def _publish(client: NatsClient, data: EventData) -> int:
    event = Event.new(data, subject=data.aggregate_id, source="bench", cause=Cause())
    headers = {"Nats-Msg-Id": event.id}
    payload = event.model_dump_json(exclude_none=True).encode()
    stored = await client.jetstream().publish(event.nats_subject, payload, stream=EVENTS_STREAM, headers=headers)
    return int(stored.seq)


async def _latency(client: NatsClient, acks: Acknowledgements, make: MakeData, times: int) -> list[float]:
    samples: list[float] = []
    async with asyncio.timeout(_TIMEOUT_S):
        for number in range(times):
            started = time.perf_counter()
            sequence = await _publish(client, make(number))
            await acks.until(sequence)
            samples.append((acks.at[sequence] - started) * 1000)
            await asyncio.sleep(_PAUSE_S)
    return samples


async def publish_many(client: NatsClient, make: MakeData, count: int) -> None:
    """As fast as the stream takes them."""
    room = asyncio.Semaphore(_PUBLISHING)

    async def one(number: int) -> None:
        async with room:
            await _publish(client, make(number))

    for start in range(0, count, 10_000):
        await asyncio.gather(*(one(number) for number in range(start, min(start + 10_000, count))))


async def _replay(client: NatsClient, servers: Servers, count: int) -> list[Result]:
    """`devpocket events replay --service terminal` over `count` events that it handles, and its memory on the way."""
    print(f"replaying {count:,} events …", file=sys.stderr)
    await client.jetstream().purge_stream(EVENTS_STREAM)
    await publish_many(client, _status_changed, count)
    settings = {"NATS_URL": servers.nats_url, "MONGODB_URL": servers.mongodb_url, "DATABASE_NAME": "bench_replay"}
    argv = [str(Path(sys.executable).with_name("devpocket")), "events", "replay", "--service", "terminal", "--json"]
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, **settings}, stdout=asyncio.subprocess.PIPE
    )
    reading = asyncio.create_task(process.communicate())
    memory = [size async for size in _memory(process.pid, reading)]
    await reading
    took_s = time.perf_counter() - started
    if process.returncode != 0:
        raise RuntimeError(f"the replay ended with code {process.returncode}")
    early, late = max(memory[: len(memory) // 4] or memory), max(memory)
    detail = f"{count:,} events; memory {early:.0f} MB in the first quarter, {late:.0f} MB at most, start included"
    return [Result("replay of a read model", count / took_s, "events/s", "memory flat", detail)]


async def _memory(pid: int, until: asyncio.Task[tuple[bytes, bytes]]) -> AsyncIterator[float]:
    process = psutil.Process(pid)
    while not until.done():
        for size in _resident_mb(process):
            yield size
        await asyncio.sleep(0.25)


def _resident_mb(process: psutil.Process) -> Iterator[float]:
    try:
        yield process.memory_info().rss / 1e6
    except psutil.Error:
        return
