"""The resources the fake serves: names, verbs, and the schema of each kind."""

from __future__ import annotations

from dataclasses import dataclass

from kubernetes.aio.client import models
from pydantic import BaseModel

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
READ_VERBS = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object. `returns_deleted`: DELETE answers with the object, not with a Status."""

    group: str
    version: str
    plural: str
    kind: str
    model: type[BaseModel] | None
    namespaced: bool = True
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[str, ...] = ()
    returns_deleted: bool = False
    short_names: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """`v1`, `networking.k8s.io/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version


NAMESPACES = Resource(
    "", "v1", "namespaces", "Namespace", models.V1Namespace, namespaced=False, subresources=("status", "finalize"),
    short_names=("ns",),
)  # fmt: skip
PODS = Resource(
    "", "v1", "pods", "Pod", models.V1Pod, subresources=("status", "exec", "portforward", "log", "eviction"),
    returns_deleted=True, short_names=("po",),
)  # fmt: skip
CLAIMS = Resource(
    "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", models.V1PersistentVolumeClaim,
    subresources=("status",), returns_deleted=True, short_names=("pvc",),
)  # fmt: skip
SECRETS = Resource("", "v1", "secrets", "Secret", models.V1Secret)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", models.V1ConfigMap, short_names=("cm",))
SERVICE_ACCOUNTS = Resource(
    "", "v1", "serviceaccounts", "ServiceAccount", models.V1ServiceAccount, returns_deleted=True, short_names=("sa",)
)
QUOTAS = Resource(
    "", "v1", "resourcequotas", "ResourceQuota", models.V1ResourceQuota, subresources=("status",),
    returns_deleted=True, short_names=("quota",),
)  # fmt: skip
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange", models.V1LimitRange, short_names=("limits",))
EVENTS = Resource("", "v1", "events", "Event", models.CoreV1Event, short_names=("ev",))
NODES = Resource(
    "", "v1", "nodes", "Node", models.V1Node, namespaced=False, subresources=("status", "proxy"), short_names=("no",)
)
NETWORK_POLICIES = Resource(
    "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", models.V1NetworkPolicy, short_names=("netpol",)
)
STORAGE_CLASSES = Resource(
    "storage.k8s.io", "v1", "storageclasses", "StorageClass", models.V1StorageClass, namespaced=False,
    returns_deleted=True, short_names=("sc",),
)  # fmt: skip
POD_METRICS = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", None, verbs=("get", "list"))
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview",
    models.V1SelfSubjectAccessReview, namespaced=False, verbs=("create",),
)  # fmt: skip

STORED = (
    *(NAMESPACES, PODS, CLAIMS, SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS, QUOTAS, LIMIT_RANGES, EVENTS, NODES),
    *(NETWORK_POLICIES, STORAGE_CLASSES),
)
ALL = (*STORED, POD_METRICS, ACCESS_REVIEWS)


def find(group: str, version: str, plural: str) -> Resource | None:
    """The resource of a path, or None."""
    for resource in ALL:
        if (resource.group, resource.version, resource.plural) == (group, version, plural):
            return resource
    return None
