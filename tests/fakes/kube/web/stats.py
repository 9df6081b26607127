"""metrics.k8s.io and the kubelet's /stats/summary, measured from the real processes."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import psutil
from aiohttp import web

from tests.fakes.kube.errors import StatusError, not_found, unavailable
from tests.fakes.kube.node.container import Container
from tests.fakes.kube.node.volumes import Volumes
from tests.fakes.kube.quantity import parse
from tests.fakes.kube.resources import CLAIMS, NODES, PODS
from tests.fakes.kube.store import now
from tests.fakes.kube.web.context import Context, Target

Obj = dict[str, Any]


async def metrics(context: Context, request: web.Request, target: Target) -> web.Response:
    """`pods.metrics.k8s.io`: one or all. 404 where no metrics server is installed, 503 where it is down."""
    if context.metrics == "missing":
        return web.Response(status=404, text="404 page not found\n")
    if context.metrics == "unavailable":
        raise unavailable()
    if not target.name:
        items = [m for pod in context.store.list(PODS, target.namespace) if (m := _pod_metrics(context, pod))]
        head = {"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1"}
        return web.json_response({**head, "metadata": {}, "items": items})
    pod = context.store.get(PODS, target.namespace or "", target.name)
    found = _pod_metrics(context, pod) if pod else None
    if found is None:
        name = f"{target.namespace}/{target.name}"
        raise StatusError(
            404,
            "NotFound",
            f'podmetrics.metrics.k8s.io "{name}" not found',
            details={"name": name, "group": "metrics.k8s.io", "kind": "podmetrics"},
        )
    return web.json_response({"kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1", **found})


async def node_proxy(context: Context, volumes: Volumes, target: Target) -> web.Response:
    """`nodes/proxy`: only /stats/summary."""
    node = context.store.get(NODES, "", target.name)
    if node is None:
        raise not_found(NODES, target.name)
    if target.name in context.kubelet.lost:
        raise unavailable("error trying to reach service: dial tcp 10.0.0.10:10250: connect: no route to host")
    if target.rest.strip("/") != "stats/summary":
        return web.Response(status=404, text="404 page not found\n")
    pods = [p for p in context.store.list(PODS) if p["spec"].get("nodeName") == target.name]
    summaries = [s for pod in pods if (s := _summary(context, volumes, pod))]
    return web.json_response({"node": {"nodeName": target.name, "startTime": now()}, "pods": summaries})


def _running(context: Context, pod: Obj) -> list[tuple[str, Container]]:
    worker = context.kubelet.worker(pod)
    if worker is None:
        return []
    pairs = [(c.spec["name"], c.current) for c in worker.containers]
    return [(name, current) for name, current in pairs if current is not None and current.exit_code is None]


def _usage(container: Container) -> tuple[float, int]:
    """CPU seconds so far and resident bytes."""
    seconds, memory = 0.0, 0
    for process in container.processes():
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
            memory += process.memory_info().rss
    return seconds, memory


def _pod_metrics(context: Context, pod: Obj) -> Obj | None:
    running = _running(context, pod)
    if not running:
        return None
    containers = []
    for name, container in running:
        cores, (_, memory) = container.cpu_rate(_usage(container)[0]), _usage(container)
        containers.append({"name": name, "usage": {"cpu": f"{int(cores * 1e9)}n", "memory": f"{memory // 1024}Ki"}})
    meta = pod["metadata"]
    head = {"name": meta["name"], "namespace": meta["namespace"], "creationTimestamp": now()}
    head["labels"] = meta.get("labels", {})
    return {"metadata": head, "timestamp": now(), "window": "15s", "containers": containers}


def _summary(context: Context, volumes: Volumes, pod: Obj) -> Obj | None:
    running = _running(context, pod)
    if not running:
        return None
    containers, total_cpu, total_nanos, total_memory = [], 0, 0, 0
    for name, container in running:
        seconds, memory = _usage(container)
        nanos, rate = int(seconds * 1e9), int(container.cpu_rate(seconds) * 1e9)
        total_cpu, total_nanos, total_memory = total_cpu + nanos, total_nanos + rate, total_memory + memory
        containers.append(
            {"name": name, "startTime": container.started_at, "cpu": _cpu(nanos, rate), "memory": _memory(memory)}
        )
    meta = pod["metadata"]
    return {
        "podRef": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
        "startTime": pod["status"].get("startTime"),
        "containers": containers,
        "cpu": _cpu(total_cpu, total_nanos),
        "memory": _memory(total_memory),
        "volume": [v for volume in pod["spec"].get("volumes", []) if (v := _volume(context, volumes, pod, volume))],
    }


def _cpu(nanos: int, rate: int) -> Obj:
    return {"time": now(), "usageNanoCores": rate, "usageCoreNanoSeconds": nanos}


def _memory(memory: int) -> Obj:
    return {"time": now(), "usageBytes": memory, "workingSetBytes": memory, "rssBytes": memory}


def _volume(context: Context, volumes: Volumes, pod: Obj, volume: Obj) -> Obj | None:
    source = volume.get("persistentVolumeClaim")
    claim = context.store.get(CLAIMS, pod["metadata"]["namespace"], source["claimName"]) if source else None
    if claim is None or claim["status"].get("phase") != "Bound":
        return None
    used = 0
    for place, _, files in os.walk(volumes.claim_folder(claim)):
        for name in files:
            with contextlib.suppress(OSError):
                used += os.lstat(os.path.join(place, name)).st_blocks * 512
    capacity = int(parse(claim["status"]["capacity"]["storage"]))
    reference = {"name": claim["metadata"]["name"], "namespace": claim["metadata"]["namespace"]}
    sizes = {"capacityBytes": capacity, "usedBytes": used, "availableBytes": max(0, capacity - used)}
    return {"time": now(), "name": volume["name"], "pvcRef": reference, **sizes}
