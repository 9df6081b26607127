"""What befalls a cluster: pods that go, nodes that fall silent, an API server that forgets, errs, or is not there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.chaos.cluster_api import ClusterApi, Obj, SwitchError
from tests.chaos.ground import Act, Begun, Dish, Do, MissedError

_NO_TIME = (0.0, 0.0)
_SHORT_S = (1.5, 8.0)
# Longer than a pod's grace and what the driver waits beyond it: only then is a lost pod taken off the books by force.
_NODE_S = (4.0, 20.0)
_TOUCH_EVERY_S = 0.02
_GRACES_S = (1, 5, None)


@dataclass(frozen=True, slots=True)
class Weather:
    """What is always the matter: a share of calls fails, answers are late, watches end, some are told 410."""

    seed: int
    errors: float
    latency_s: float = 0.02
    watch_seconds: float = 10.0
    gone_rate: float = 0.2


class ClusterFaults:
    """Everything that is done to one cluster, whose process is `pid`.

    `lost_pods`: uids of pods that were on a node when it was lost. Such a node's processes live on unseen, and when a
    new pod takes the place of theirs, that is nobody's mistake.
    """

    def __init__(self, api: ClusterApi, pid: int, weather: Weather) -> None:
        self.lost_pods: set[str] = set()
        self._api = api
        self._pid = pid
        self._weather = weather
        self._going_on: set[str] = set()

    def dishes(self) -> Sequence[Dish]:
        """See Ground."""
        menu: list[tuple[str, tuple[float, float], Do, float]] = [
            ("pod deleted", _NO_TIME, self._delete_pod, 6),
            ("pod evicted", _NO_TIME, self._end_pod("evict"), 2),
            ("pod out of memory", _NO_TIME, self._end_pod("oom_kill"), 2),
            ("pod ended", _NO_TIME, self._end_pod("kill_main"), 1),
            ("node lost", _NODE_S, self._lose_node, 1.5),
            ("watches dropped", _NO_TIME, self._turn("drop_watches"), 2),
            ("history compacted", _NO_TIME, self._compact, 3),
            ("api away", _SHORT_S, self._signals("api", signal.SIGUSR1, signal.SIGUSR2), 2),
            ("cluster paused", _SHORT_S, self._signals("api", signal.SIGSTOP, signal.SIGCONT), 1),
            ("network silent", _SHORT_S, self._between("freeze", "thaw"), 1),
            ("objects touched", _SHORT_S, self._meddle, 2),
            ("kubelet paused", _SHORT_S, self._between("pause_kubelet", "resume_kubelet"), 0.5),
            ("scheduler paused", _SHORT_S, self._between("pause_scheduler", "resume_scheduler"), 0.5),
            ("no new volumes", _SHORT_S, self._between("stop_provisioning", "resume_provisioning"), 0.5),
        ]
        return [(_maker(kind, seconds, do), weight) for kind, seconds, do, weight in menu]

    @asynccontextmanager
    async def weather(self, counts: Counter[str]) -> AsyncIterator[None]:
        """See Ground."""
        weather = self._weather
        await self._api.switch(
            "faults",
            seed=weather.seed,
            rate=weather.errors,
            latency=weather.latency_s,
            watch_seconds=weather.watch_seconds,
            gone_rate=weather.gone_rate,
        )
        try:
            yield
        finally:
            answer = await self._api.switch("faults")
            counts.update({f"api answer: {kind}": number for kind, number in answer["injected"].items()})

    async def _delete_pod(self, act: Act, begun: Begun) -> None:
        pod = await self._pod(act)
        grace = _GRACES_S[int(act.draw * 1000) % len(_GRACES_S)]
        if not await self._api.delete_pod(pod, grace):
            raise MissedError
        begun(_name(pod))

    def _end_pod(self, switch: str) -> Do:
        async def do(act: Act, begun: Begun) -> None:
            pod = await self._pod(act)
            meta = pod["metadata"]
            try:
                await self._api.switch(switch, namespace=meta["namespace"], name=meta["name"])
            except SwitchError as error:
                raise MissedError from error
            begun(_name(pod))

        return do

    async def _lose_node(self, act: Act, begun: Begun) -> None:
        node = (await self._pod(act))["spec"]["nodeName"]
        with _Once(self._going_on, "node"):
            await self._note_pods_on(node)
            try:
                # Whether the cluster gives up the node's pods meanwhile, as a real one does after minutes.
                await self._api.switch("lose_node", name=node, delete_pods=act.draw * 1000 % 2 < 1)
                await self._note_pods_on(node)
                begun(node)
                await asyncio.sleep(act.seconds)
            finally:
                await self._api.switch("restore_node", name=node)

    async def _note_pods_on(self, node: str) -> None:
        pods = await self._api.list("pods")
        self.lost_pods |= {pod["metadata"]["uid"] for pod in pods if pod["spec"].get("nodeName") == node}

    def _turn(self, switch: str) -> Do:
        async def do(act: Act, begun: Begun) -> None:
            await self._api.switch(switch)
            begun("")

        return do

    async def _compact(self, act: Act, begun: Begun) -> None:
        """Whoever watches hears of it at once, or when it comes back; as an event, or as the answer's status."""
        choice = int(act.draw * 1000)
        await self._api.switch("compact", drop=bool(choice & 1), http_status=bool(choice & 2))
        begun("")

    def _between(self, start: str, end: str) -> Do:
        async def do(act: Act, begun: Begun) -> None:
            with _Once(self._going_on, start):
                try:
                    await self._api.switch(start)
                    begun("")
                    await asyncio.sleep(act.seconds)
                finally:
                    await self._api.switch(end)

        return do

    def _signals(self, what: str, start: signal.Signals, end: signal.Signals) -> Do:
        async def do(act: Act, begun: Begun) -> None:
            with _Once(self._going_on, what):
                os.kill(self._pid, start)
                try:
                    begun("")
                    await asyncio.sleep(act.seconds)
                finally:
                    os.kill(self._pid, end)

        return do

    async def _meddle(self, act: Act, begun: Begun) -> None:
        """Somebody's tool writes to every object: writes that depend on a version meet conflicts."""
        with _Once(self._going_on, "touched"):
            begun("")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(act.seconds), asyncio.TaskGroup() as group:
                    for resource in ("namespaces", "configmaps", "pods"):
                        group.create_task(self._touch(resource))

    async def _touch(self, resource: str) -> None:
        while True:
            for item in await self._api.list(resource):
                await self._api.annotate(resource, item, touched=str(time.time_ns()))
            await asyncio.sleep(_TOUCH_EVERY_S)

    async def _pod(self, act: Act) -> Obj:
        """One on a node. Raises MissedError when there is none."""
        pods = [pod for pod in await self._api.list("pods") if pod["spec"].get("nodeName")]
        if not pods:
            raise MissedError
        return pods[int(act.draw * len(pods))]


class _Once:
    """Does not begin again what goes on. Raises MissedError."""

    def __init__(self, going_on: set[str], what: str) -> None:
        self._going_on = going_on
        self._what = what

    def __enter__(self) -> None:
        if self._what in self._going_on:
            raise MissedError
        self._going_on.add(self._what)

    def __exit__(self, *_: object) -> None:
        self._going_on.discard(self._what)


def _maker(kind: str, seconds: tuple[float, float], do: Do) -> Callable[[random.Random], Act]:
    return lambda choose: Act(kind, choose.random(), choose.uniform(*seconds), do)


def _name(pod: Obj) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
