"""Binds pods to nodes, and says why when it cannot."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

from tests.fakes.kube.node.pace import Pace
from tests.fakes.kube.node.status import set_condition
from tests.fakes.kube.quantity import parse
from tests.fakes.kube.recorder import Recorder
from tests.fakes.kube.resources import CLAIMS, NODES, PODS, STORAGE_CLASSES
from tests.fakes.kube.store import Store

Obj = dict[str, Any]
SELECTED_NODE = "volume.kubernetes.io/selected-node"
_CLAIM = "persistentVolumeClaim"


class Scheduler:
    """Level-triggered: every write may make a pod fit."""

    def __init__(self, store: Store, recorder: Recorder, pace: Pace) -> None:
        self._store, self._recorder, self._pace = store, recorder, pace
        self.paused = False

    async def run(self) -> None:
        """Follow the API until cancelled."""
        while True:
            seen = self._store.version
            if not self.paused:
                for pod in self._store.list(PODS):
                    if not pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]:
                        self._place(pod)
            if self._store.version == seen:
                await self._store.changed(1.0)
            await asyncio.sleep(self._pace.step)

    def _place(self, pod: Obj) -> None:
        if pod["spec"].get("schedulingGates") or pod["spec"]["schedulerName"] != "default-scheduler":
            return
        nodes = self._store.list(NODES)
        claims = self._claims(pod)
        why = self._claim_problem(claims)
        if why is not None:
            self._refuse(pod, f"0/{len(nodes)} nodes are available: {why}.", len(nodes))
            return
        if self._binding(claims, nodes):
            return
        reasons: Counter[str] = Counter()
        for node in nodes:
            problems = self._problems(pod, node)
            if not problems:
                self._bind(pod, node["metadata"]["name"])
                return
            reasons.update(problems)
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        words = f": {listed}." if listed else ": no nodes available to schedule pods."
        self._refuse(pod, f"0/{len(nodes)} nodes are available{words}", len(nodes))

    def _problems(self, pod: Obj, node: Obj) -> list[str]:
        if node["spec"].get("unschedulable"):
            return ["node(s) were unschedulable"]
        for taint in node["spec"].get("taints", []):
            if taint["effect"] in ("NoSchedule", "NoExecute"):
                return ["node(s) had untolerated taint(s)"]
        wanted: dict[str, str] = pod["spec"].get("nodeSelector", {})
        labels = node["metadata"].get("labels", {})
        if any(labels.get(key) != value for key, value in wanted.items()):
            return ["node(s) didn't match Pod's node affinity/selector"]
        problems = []
        here = [p for p in self._store.list(PODS) if _on(p, node["metadata"]["name"])]
        capacity = node["status"]["allocatable"]
        if len(here) + 1 > int(capacity["pods"]):
            problems.append("Too many pods")
        for name in ("cpu", "memory"):
            used = sum((_requested(p, name) for p in here), Decimal(0))
            if used + _requested(pod, name) > parse(capacity[name]):
                problems.append(f"Insufficient {name}")
        return problems

    def _claims(self, pod: Obj) -> list[tuple[str, Obj | None]]:
        names = [v["persistentVolumeClaim"]["claimName"] for v in pod["spec"].get("volumes", []) if _CLAIM in v]
        return [(name, self._store.get(CLAIMS, pod["metadata"]["namespace"], name)) for name in names]

    def _claim_problem(self, claims: list[tuple[str, Obj | None]]) -> str | None:
        for name, claim in claims:
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if "deletionTimestamp" in claim["metadata"]:
                return f'persistentvolumeclaim "{name}" is being deleted'
            phase = claim["status"]["phase"]
            if phase == "Lost":
                volume = claim["spec"].get("volumeName", "")
                return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
            if phase != "Bound" and not self._waits_for_consumer(claim):
                return "pod has unbound immediate PersistentVolumeClaims"
        return None

    def _binding(self, claims: list[tuple[str, Obj | None]], nodes: list[Obj]) -> bool:
        """Whether a volume is still to be made; the first pod of a claim says where."""
        waiting = [claim for _, claim in claims if claim is not None and claim["status"]["phase"] != "Bound"]
        for claim in waiting:
            if nodes and SELECTED_NODE not in (claim["metadata"].get("annotations") or {}):
                name = nodes[0]["metadata"]["name"]
                self._store.edit(CLAIMS, claim, lambda found, node=name: _annotate(found, node))  # type: ignore[misc]
        return bool(waiting)

    def _waits_for_consumer(self, claim: Obj) -> bool:
        found = self._store.get(STORAGE_CLASSES, "", claim["spec"].get("storageClassName", ""))
        return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def _refuse(self, pod: Obj, message: str, nodes: int) -> None:
        words = (
            f"{message} preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
        )

        def change(found: Obj) -> None:
            set_condition(found, "PodScheduled", False, reason="Unschedulable", message=words)

        before = pod["metadata"]["resourceVersion"]
        changed = self._store.edit(PODS, pod, change)
        if changed is not None and changed["metadata"]["resourceVersion"] != before:
            self._recorder.event(PODS, pod, "Warning", "FailedScheduling", words, "default-scheduler")

    def _bind(self, pod: Obj, node: str) -> None:
        def change(found: Obj) -> None:
            found["spec"]["nodeName"] = node
            set_condition(found, "PodScheduled", True)

        self._store.edit(PODS, pod, change)
        meta = pod["metadata"]
        words = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        self._recorder.event(PODS, pod, "Normal", "Scheduled", words, "default-scheduler")


def _on(pod: Obj, node: str) -> bool:
    return pod["spec"].get("nodeName") == node and pod["status"].get("phase") not in ("Succeeded", "Failed")


def _requested(pod: Obj, name: str) -> Decimal:
    amounts = (c.get("resources", {}).get("requests", {}).get(name, "0") for c in pod["spec"]["containers"])
    return sum((parse(amount) for amount in amounts), Decimal(0))


def _annotate(claim: Obj, node: str) -> None:
    claim["metadata"].setdefault("annotations", {})[SELECTED_NODE] = node
