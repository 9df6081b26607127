"""What the API server fills in: defaults, and the status a new object starts with."""

from __future__ import annotations

import base64
from typing import Any

from tests.fakes.kube.resources import CLAIMS, EVENTS, NAMESPACES, NETWORK_POLICIES, PODS, SECRETS, Resource
from tests.fakes.kube.store import now

Obj = dict[str, Any]
CLAIM_PROTECTION = "kubernetes.io/pvc-protection"


def apply_defaults(resource: Resource, obj: Obj) -> None:
    """Fill in what the real server would, in place; the caller owns `obj`."""
    setter = _DEFAULTS.get(resource)
    if setter is not None:
        setter(obj)


def prepare_create(resource: Resource, obj: Obj) -> None:
    """Status and system metadata of a new object, whatever the client sent."""
    for name in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        obj["metadata"].pop(name, None)
    obj["metadata"].pop("generation", None)
    if resource is PODS:
        obj["metadata"]["generation"] = 1
        obj["status"] = {"phase": "Pending", "qosClass": _qos(obj)}
    elif resource is CLAIMS:
        obj["status"] = {"phase": "Pending"}
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if CLAIM_PROTECTION not in finalizers:
            finalizers.append(CLAIM_PROTECTION)
    elif resource is NAMESPACES:
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    elif "status" in resource.subresources and resource.kind != "Node":
        obj.pop("status", None)
    if resource is NETWORK_POLICIES:
        obj["metadata"]["generation"] = 1


def _pod(obj: Obj) -> None:
    spec: Obj = obj.setdefault("spec", {})
    for name, value in {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
        "serviceAccountName": "default",
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "tolerations": [
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for key in ("not-ready", "unreachable")
        ],
    }.items():
        spec.setdefault(name, value)
    spec["serviceAccount"] = spec["serviceAccountName"]
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        _container(container)
    for volume in spec.get("volumes", []):
        _volume(volume)


def _container(container: Obj) -> None:
    tag = container.get("image", "").rsplit("/", 1)[-1]
    latest = "@" not in tag and (":" not in tag or tag.endswith(":latest"))
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resources = container.setdefault("resources", {})
    if "limits" in resources:
        requests = resources.setdefault("requests", {})
        for name, value in resources["limits"].items():
            requests.setdefault(name, value)
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
        if kind in container:
            defaults = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
            container[kind] = defaults | container[kind]
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")


def _volume(volume: Obj) -> None:
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}
    for kind in ("secret", "configMap", "projected", "downwardAPI"):
        if kind in volume:
            volume[kind].setdefault("defaultMode", 420)


def _claim(obj: Obj) -> None:
    obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _secret(obj: Obj) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if plain:
        data = obj.setdefault("data", {})
        for key, value in plain.items():
            data[key] = base64.b64encode(value.encode()).decode()


def _policy(obj: Obj) -> None:
    spec: Obj = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if "policyTypes" not in spec:
        spec["policyTypes"] = ["Ingress", *(["Egress"] if "egress" in spec else [])]
    for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
        for port in rule.get("ports", []):
            port.setdefault("protocol", "TCP")


def _event(obj: Obj) -> None:
    obj.setdefault("firstTimestamp", now())
    obj.setdefault("lastTimestamp", obj["firstTimestamp"])


def _qos(pod: Obj) -> str:
    containers = pod["spec"].get("containers", [])
    amounts = [container.get("resources", {}) for container in containers]
    if not any(amount.get("requests") or amount.get("limits") for amount in amounts):
        return "BestEffort"
    guaranteed = all(
        {"cpu", "memory"} <= set(amount.get("limits", {})) and amount.get("requests") == amount["limits"]
        for amount in amounts
    )
    return "Guaranteed" if guaranteed else "Burstable"


_DEFAULTS = {
    PODS: _pod,
    CLAIMS: _claim,
    SECRETS: _secret,
    NETWORK_POLICIES: _policy,
    EVENTS: _event,
}
