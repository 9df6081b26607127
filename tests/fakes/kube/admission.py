"""The admission chain, in the order of the real one: lifecycle, mutation, validation, quota last."""

from __future__ import annotations

from typing import Any

from tests.fakes.kube import limits, quota
from tests.fakes.kube.errors import forbidden, not_found
from tests.fakes.kube.pod_security import violation
from tests.fakes.kube.resources import CLAIMS, NAMESPACES, PODS, SERVICE_ACCOUNTS, STORAGE_CLASSES, Resource
from tests.fakes.kube.rules import validate_new
from tests.fakes.kube.store import Store

Obj = dict[str, Any]
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


class Admission:
    """Lets new objects in, or raises 403, 404 or 422. Changes them on the way."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def namespace_is_open(self, resource: Resource, namespace: str, name: str) -> None:
        """Raises 404 where there is no such namespace, 403 while it is going away."""
        found = self._store.get(NAMESPACES, "", namespace)
        if found is None:
            raise not_found(NAMESPACES, namespace)
        if "deletionTimestamp" in found["metadata"]:
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(resource, name, why, [cause])

    def mutate(self, resource: Resource, namespace: str, obj: Obj) -> None:
        """Defaults that depend on other objects."""
        if resource is PODS:
            limits.fill_defaults(self._store, namespace, obj)
            self._service_account(namespace, obj)
        elif resource is CLAIMS and "storageClassName" not in obj["spec"]:
            for candidate in self._store.list(STORAGE_CLASSES):
                if (candidate["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true":
                    obj["spec"]["storageClassName"] = candidate["metadata"]["name"]

    def validate(self, resource: Resource, namespace: str, obj: Obj, *, charge: bool = True) -> None:
        """Meaning, limits, security and quota, which is only checked without `charge`."""
        validate_new(resource, obj)
        if not resource.namespaced:
            return
        limits.check_bounds(self._store, resource, namespace, obj)
        if resource is PODS:
            self.pod_security(namespace, obj)
        quota.admit(self._store, resource, namespace, obj, charge=charge)

    def pod_security(self, namespace: str, pod: Obj) -> None:
        """Raises 403 when the namespace's standard refuses the pod."""
        labels = self._store.get(NAMESPACES, "", namespace)["metadata"].get("labels") or {}  # type: ignore[index]
        why = violation(labels, pod)
        if why is not None:
            raise forbidden(PODS, pod["metadata"]["name"], why)

    def _service_account(self, namespace: str, pod: Obj) -> None:
        name = pod["spec"]["serviceAccountName"]
        if self._store.get(SERVICE_ACCOUNTS, namespace, name) is None:
            why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
            raise forbidden(PODS, pod["metadata"].get("name", ""), why)
        if pod["spec"].get("automountServiceAccountToken", True):
            self._mount_token(pod)

    @staticmethod
    def _mount_token(pod: Obj) -> None:
        volume = f"kube-api-access-{(pod['metadata'].get('name') or 'x')[-5:]}"
        sources = [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]
        projected = {"sources": sources, "defaultMode": 420}
        pod["spec"].setdefault("volumes", []).append({"name": volume, "projected": projected})
        for container in pod["spec"].get("containers", []):
            container.setdefault("volumeMounts", []).append(
                {"name": volume, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
            )
