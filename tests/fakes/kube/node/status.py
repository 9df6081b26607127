"""What the kubelet writes into a pod's status."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from tests.fakes.kube.node.container import Container
from tests.fakes.kube.node.worker import ContainerWorker
from tests.fakes.kube.store import now

Obj = dict[str, Any]


def container_status(worker: ContainerWorker) -> Obj:
    """One entry of containerStatuses."""
    running = worker.current
    status: Obj = {
        "name": worker.spec["name"],
        "image": worker.spec["image"],
        "imageID": "" if running is None and worker.last is None else image_id(worker.spec["image"]),
        "restartCount": worker.restarts,
        "ready": worker.ready,
        "started": running is not None and running.exit_code is None,
        "state": {},
        "lastState": {},
    }
    if worker.waiting is not None:
        reason, message = worker.waiting
        status["state"] = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        if worker.last is not None:
            status["lastState"] = {"terminated": ended(worker.last)}
    elif running is not None and running.exit_code is not None:
        status["state"] = {"terminated": ended(running)}
    elif running is not None:
        status["state"] = {"running": {"startedAt": running.started_at}}
        if worker.last is not None:
            status["lastState"] = {"terminated": ended(worker.last)}
    shown = running or worker.last
    if shown is not None:
        status["containerID"] = f"containerd://{shown.id}"
    return status


def ended(container: Container) -> Obj:
    """The `terminated` state."""
    code = container.exit_code or 0
    state: Obj = {
        "exitCode": code,
        "reason": container.reason or ("Completed" if code == 0 else "Error"),
        "startedAt": container.started_at,
        "finishedAt": container.finished_at or now(),
        "containerID": f"containerd://{container.id}",
    }
    return state | ({"message": container.message} if container.message else {})


def write_status(pod: Obj, workers: Sequence[ContainerWorker], node_ip: str) -> None:
    """Phase, conditions and containers of a pod that its node knows, in place."""
    status: Obj = pod["status"]
    status["containerStatuses"] = [container_status(worker) for worker in workers]
    status["hostIP"] = node_ip
    status["hostIPs"] = [{"ip": node_ip}]
    status.setdefault("startTime", now())
    status["phase"] = phase(pod, workers)
    started = any(worker.current is not None or worker.last is not None for worker in workers)
    if started:
        address = pod_ip(pod)
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    ready = all(worker.ready for worker in workers)
    over = status["phase"] in ("Succeeded", "Failed")
    words = {} if ready else _why_not_ready(status["phase"], workers)
    set_condition(pod, "PodReadyToStartContainers", started and not over)
    set_condition(pod, "Initialized", True)
    set_condition(pod, "Ready", ready, **words)
    set_condition(pod, "ContainersReady", ready, **words)


def phase(pod: Obj, workers: Sequence[ContainerWorker]) -> str:
    """Pending, Running, Succeeded or Failed."""
    if all(worker.finished for worker in workers):
        codes = [worker.current.exit_code if worker.current else 1 for worker in workers]
        return "Succeeded" if all(code == 0 for code in codes) else "Failed"
    if all(worker.current is None and worker.last is None for worker in workers):
        return "Pending"
    return "Running"


def set_condition(pod: Obj, kind: str, value: bool | str, **words: str) -> None:
    """Add or change a condition; its time moves only when its value does."""
    conditions: list[Obj] = pod["status"].setdefault("conditions", [])
    text = value if isinstance(value, str) else ("True" if value else "False")
    found = next((c for c in conditions if c["type"] == kind), None)
    fresh: Obj = {"type": kind, "status": text, "lastProbeTime": None, "lastTransitionTime": now(), **words}
    if found is None:
        conditions.append(fresh)
        return
    if found["status"] == text:
        fresh["lastTransitionTime"] = found["lastTransitionTime"]
    conditions[conditions.index(found)] = fresh


def image_id(image: str) -> str:
    """A digest that is always the same for a name."""
    return f"{image.rsplit(':', 1)[0]}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def pod_ip(pod: Obj) -> str:
    """An address that a pod keeps."""
    number = int(pod["metadata"]["uid"].replace("-", "")[:8], 16)
    return f"10.42.{number // 250 % 250}.{number % 250 + 2}"


def _why_not_ready(phase_name: str, workers: Sequence[ContainerWorker]) -> dict[str, str]:
    if phase_name in ("Succeeded", "Failed"):
        return {"reason": "PodCompleted" if phase_name == "Succeeded" else "PodFailed"}
    names = " ".join(worker.spec["name"] for worker in workers if not worker.ready)
    return {"reason": "ContainersNotReady", "message": f"containers with unready status: [{names}]"}
