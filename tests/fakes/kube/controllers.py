"""What kube-controller-manager and a volume provisioner do: accounts, namespaces, claims, quota."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.fakes.kube import quota
from tests.fakes.kube.api import Api
from tests.fakes.kube.defaults import CLAIM_PROTECTION
from tests.fakes.kube.node.pace import Pace
from tests.fakes.kube.node.volumes import Volumes
from tests.fakes.kube.recorder import Recorder
from tests.fakes.kube.resources import (
    CLAIMS,
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    PODS,
    QUOTAS,
    SERVICE_ACCOUNTS,
    STORAGE_CLASSES,
    STORED,
)
from tests.fakes.kube.scheduler import SELECTED_NODE
from tests.fakes.kube.store import Change, Store

Obj = dict[str, Any]


class Controllers:
    """Each is a level-triggered loop over the store."""

    def __init__(self, store: Store, api: Api, volumes: Volumes, recorder: Recorder, pace: Pace) -> None:
        self._store, self._api, self._volumes = store, api, volumes
        self._recorder, self._pace = recorder, pace
        self._dirty: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self.provisioning = True
        self.counting = True
        store.listen(self._on_change)

    async def run(self) -> None:
        """All of them until cancelled."""
        await asyncio.gather(
            self._loop(self._pace.service_account, self._accounts),
            self._loop(self._pace.step, self._namespaces),
            self._loop(self._pace.step, self._claims),
            self._loop(self._pace.quota_lag, self._quotas),
        )

    async def _loop(self, delay: float, work: Any) -> None:
        while True:
            seen = self._store.version
            work()
            if self._store.version == seen:
                await self._store.changed(1.0)
            await asyncio.sleep(delay)

    def _on_change(self, change: Change) -> None:
        sample = change.new or change.old
        if change.resource is CLAIMS and change.new is None and change.old is not None:
            self._volumes.discard_claim(change.old)
        if change.resource is EVENTS or sample is None:
            return
        self._dirty.add(sample["metadata"].get("namespace", ""))

    def _accounts(self) -> None:
        for namespace in self._store.list(NAMESPACES):
            name = namespace["metadata"]["name"]
            if "deletionTimestamp" in namespace["metadata"]:
                continue
            if self._store.get(SERVICE_ACCOUNTS, name, "default") is None:
                self._make(SERVICE_ACCOUNTS, name, "default")
            if self._store.get(CONFIG_MAPS, name, "kube-root-ca.crt") is None:
                self._make(CONFIG_MAPS, name, "kube-root-ca.crt", data={"ca.crt": "-----BEGIN CERTIFICATE-----\n"})

    def _make(self, resource: Any, namespace: str, name: str, **content: Any) -> None:
        head = {"kind": resource.kind, "apiVersion": resource.api_version}
        self._store.create(resource, {**head, "metadata": {"name": name, "namespace": namespace}, **content})

    def _namespaces(self) -> None:
        for namespace in self._store.list(NAMESPACES):
            if "deletionTimestamp" not in namespace["metadata"]:
                continue
            name = namespace["metadata"]["name"]
            for resource in STORED:
                if resource.namespaced:
                    for obj in self._store.list(resource, name):
                        if "deletionTimestamp" not in obj["metadata"]:
                            self._api.delete(resource, name, obj["metadata"]["name"], {})
            left = [obj for r in STORED if r.namespaced for obj in self._store.list(r, name)]
            if not left and not namespace["metadata"].get("finalizers"):
                self._store.remove(NAMESPACES, namespace)

    def _claims(self) -> None:
        for claim in self._store.list(CLAIMS):
            meta = claim["metadata"]
            if "deletionTimestamp" in meta:
                if CLAIM_PROTECTION in meta.get("finalizers", []) and not self._used(claim):
                    left = [name for name in meta["finalizers"] if name != CLAIM_PROTECTION]
                    changed = {**claim, "metadata": {**meta, "finalizers": left}}
                    self._api.update(CLAIMS, meta["namespace"], meta["name"], changed)
            elif claim["status"]["phase"] == "Pending":
                self._provision(claim)

    def lose(self, claim: Obj) -> None:
        """The volume behind a bound claim is gone."""

        def change(found: Obj) -> None:
            found["status"] = {"phase": "Lost"}

        self._store.edit(CLAIMS, claim, change)
        self._tell(
            claim, "Warning", "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        )

    def _used(self, claim: Obj) -> bool:
        for pod in self._store.list(PODS, claim["metadata"]["namespace"]):
            names = [v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["spec"].get("volumes", [])]
            ended = pod["status"].get("phase") in ("Succeeded", "Failed")
            if claim["metadata"]["name"] in names and pod["spec"].get("nodeName") and not ended:
                return True
        return False

    def _provision(self, claim: Obj) -> None:
        name = claim["spec"].get("storageClassName", "")
        found = self._store.get(STORAGE_CLASSES, "", name)
        if found is None:
            if name:
                words = f'storageclass.storage.k8s.io "{name}" not found'
                self._tell(claim, "Warning", "ProvisioningFailed", words)
            else:
                words = "no persistent volumes available for this claim and no storage class is set"
                self._tell(claim, "Normal", "FailedBinding", words)
            return
        waits = found.get("volumeBindingMode") == "WaitForFirstConsumer"
        if waits and SELECTED_NODE not in (claim["metadata"].get("annotations") or {}):
            words = "waiting for first consumer to be created before binding"
            self._tell(claim, "Normal", "WaitForFirstConsumer", words)
            return
        if not self.provisioning:
            words = (
                f"Waiting for a volume to be created either by the external provisioner '{found['provisioner']}' or "
                "manually by the system administrator. If volume creation is delayed, please verify that the "
                "provisioner is running and correctly registered."
            )
            self._tell(claim, "Normal", "ExternalProvisioning", words)
            return
        self._volumes.claim_folder(claim)
        self._store.edit(CLAIMS, claim, _bind)

    def _tell(self, claim: Obj, kind: str, reason: str, words: str) -> None:
        if (claim["metadata"]["uid"], reason) not in self._told:
            self._told.add((claim["metadata"]["uid"], reason))
            self._recorder.event(CLAIMS, claim, kind, reason, words, "persistentvolume-controller")

    def pause_quota(self) -> None:
        """Nobody counts any more."""
        self.counting = False

    def _quotas(self) -> None:
        if not self.counting:
            return
        dirty, self._dirty = self._dirty, set()
        for namespace in {q["metadata"]["namespace"] for q in self._store.list(QUOTAS)} & dirty:
            quota.recount(self._store, namespace)


def _bind(claim: Obj) -> None:
    claim["spec"]["volumeName"] = f"pvc-{claim['metadata']['uid']}"
    claim["metadata"].setdefault("annotations", {})["pv.kubernetes.io/bind-completed"] = "yes"
    claim["status"] = {
        "phase": "Bound",
        "accessModes": claim["spec"]["accessModes"],
        "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
    }
