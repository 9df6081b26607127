"""The measurements: bursts beside what the cluster itself needs, and what one create costs beyond its pod."""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import httpx

from libs.common.contracts.environments import Resources
from libs.runtime.port import WorkspaceLimits
from tests.bench.kube import environments
from tests.bench.kube.cluster import Cluster, connected, measured_cluster, until_gone
from tests.bench.kube.effort import Effort, warn_if_busy
from tests.bench.kube.environments import Environments, Single
from tests.bench.kube.pods import BarePods, Burst
from tests.bench.kube.watch import watched_pods
from tests.bench.measures import Result, percentile
from tests.bench.stack import OwnStack, own_stack

_COUNT = 20


def kube_results(quick: bool) -> list[Result]:
    """Everything, with a stack of its own on the cluster of KUBECONFIG or a fake one."""
    warn_if_busy()
    with measured_cluster() as cluster, own_stack(**cluster.settings) as stack:
        return asyncio.run(_measure(cluster, stack, rounds=1 if quick else 3, singles=5 if quick else _COUNT))


async def _measure(cluster: Cluster, stack: OwnStack, *, rounds: int, singles: int) -> list[Result]:
    async with (
        connected(cluster) as api,
        watched_pods(api, cluster.prefix) as watch,
        environments.signed_in(stack.url, stack.email, stack.password) as admin,
        environments.live_statuses(admin) as statuses,
    ):
        image = await _image(admin)
        bare = BarePods(api, watch, cluster.prefix, image, _limits())
        async with bare.prepared():
            _say(f"{_COUNT} bare pods, not counted: every node shall have {image}")
            await bare.burst(_COUNT)
            ours = Environments(watch, statuses)

            async def settled() -> None:
                # A user's namespace that is on its way out would hold up the next burst.
                await until_gone(api, cluster.prefix, besides=bare.namespace)

            bursts = await _bursts(bare, ours, stack, admin, rounds, settled)
        effort = Effort(stack.pids)
        samples, first = await _singles(ours, admin, effort, singles)
    return [*_burst_results(bursts, cluster.title), *_single_results(samples, first, effort, cluster.title)]


async def _bursts(
    bare: BarePods,
    ours: Environments,
    stack: OwnStack,
    admin: httpx.AsyncClient,
    rounds: int,
    settled: Callable[[], Awaitable[None]],
) -> dict[str, list[Burst]]:
    """Each kind in each round, so that what disturbs one disturbs all."""
    async with AsyncExitStack() as leaving:
        users = [await leaving.enter_async_context(environments.registered(stack.url)) for _ in range(_COUNT)]
        kinds: dict[str, Callable[[], Awaitable[Burst]]] = {
            "bare pods": lambda: bare.burst(_COUNT),
            "bare pods with volumes": lambda: bare.burst(_COUNT, with_volume=True),
            "environments of one user": lambda: ours.burst([admin] * _COUNT),
            "environments of as many users": lambda: ours.burst(users),
        }
        bursts: dict[str, list[Burst]] = {kind: [] for kind in kinds}
        for number in range(1, rounds + 1):
            for kind, measure in kinds.items():
                _say(f"{_COUNT} {kind} at once, {number} of {rounds}")
                bursts[kind].append(await measure())
                await settled()
        return bursts


async def _singles(
    ours: Environments, admin: httpx.AsyncClient, effort: Effort, times: int
) -> tuple[list[Single], Single]:
    """One after the other in a namespace that is there; and the first one, which makes it."""
    _say(f"{times} environments, one after the other")
    keeper, first = await ours.single(admin)
    samples: list[Single] = []
    for _ in range(times):
        with effort.measured():
            environment_id, single = await ours.single(admin)
        samples.append(single)
        await ours.delete(admin, environment_id)
    await ours.delete(admin, keeper)
    return samples, first


def _burst_results(bursts: dict[str, list[Burst]], title: str) -> list[Result]:
    results: list[Result] = []
    floor = statistics.median(burst.ready for burst in bursts["bare pods"])
    for kind, found in bursts.items():
        ends = [burst.ready if burst.running is None else burst.running for burst in found]
        middle = found[ends.index(statistics.median_low(ends))]
        end_s = statistics.median(ends)
        steps = f"last answered {middle.answered:.2f}, pod seen {middle.added:.2f}, ready {middle.ready:.2f}"
        if middle.running is not None:
            steps += f", running {middle.running:.2f} s"
        spread = f"{len(ends)} rounds {min(ends):.2f}–{max(ends):.2f} s; {steps}; {title}"
        results.append(Result(f"{_COUNT} {kind} at once", end_s, "s", "", spread))
        if middle.running is not None:
            results.append(Result(f"{_COUNT} {kind} : bare pods", end_s / floor, "x", "≤ 3", title))
    return results


def _single_results(samples: list[Single], first: Single, effort: Effort, title: str) -> list[Result]:
    own = [sample.own * 1000 for sample in samples]
    detail = (
        f"p90 {percentile(own, 90):.0f} ms, {len(own)} times; answered {_middle([each.answered for each in samples])}, "
        f"pod seen {_middle([each.added for each in samples])}, ready {_middle([each.ready for each in samples])}, "
        f"running {_middle([each.running for each in samples])} ms; ready → running "
        f"{_middle([each.running - each.ready for each in samples])} ms; {title}"
    )
    spent = effort.per_block
    processes = ", ".join(f"{name} {value:.0f}" for name, value in spent.items() if value >= 1)
    totals = [sample.running * 1000 for sample in samples]
    return [
        Result("create → running beyond the pod, p50", statistics.median(own), "ms", "≤ 300", detail),
        Result("create → running, p50", statistics.median(totals), "ms", "", f"p90 {percentile(totals, 90):.0f} ms"),
        Result("pod seen → ready, p50", statistics.median(each.pod * 1000 for each in samples), "ms", "", title),
        Result("the same beyond the pod, first of a user", first.own * 1000, "ms", "", "its namespace is made"),
        Result("CPU of the stack for one create", sum(spent.values()), "ms", "", processes),
    ]


async def _image(admin: httpx.AsyncClient) -> str:
    """What the stack's template says."""
    templates = (await admin.get("/api/v1/templates")).raise_for_status().json()
    image: str = next(each["docker_image"] for each in templates if each["name"] == environments.TEMPLATE)
    return image


def _limits() -> WorkspaceLimits:
    wanted = Resources.model_validate(environments.RESOURCES)
    return WorkspaceLimits(wanted.cpu_millis, wanted.memory_bytes, wanted.storage_bytes)


def _middle(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f}"


def _say(text: str) -> None:
    print(f"measuring {text} …", file=sys.stderr)
