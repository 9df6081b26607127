"""Validation of pods: what a new pod must have, and what an existing one may change."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from tests.fakes.kube.errors import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_value,
    required,
    unsupported,
)
from tests.fakes.kube.names import label_causes, subdomain_causes
from tests.fakes.kube.quantity import parse

Obj = dict[str, Any]

_IMMUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_ENV_NAME = re.compile(r"^[ -<>-~]+$")


def pod_causes(pod: Obj) -> list[Cause]:
    """What is wrong with a new pod's spec."""
    spec: Obj = pod["spec"]
    causes = list(_volume_causes(spec.get("volumes", [])))
    volumes = {volume.get("name") for volume in spec.get("volumes", [])}
    if not spec.get("containers"):
        causes.append(required("spec.containers"))
    seen: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind, [])):
            field = f"spec.{kind}[{index}]"
            if container.get("name") in seen:
                causes.append(duplicate(f"{field}.name", container["name"]))
            seen.add(container.get("name", ""))
            causes += _container_causes(field, container, volumes)
    causes += _spec_causes(spec)
    return causes


def pod_update_causes(old: Obj, new: Obj) -> list[Cause]:
    """What an update of the main resource must not change."""
    before, after = copy.deepcopy(old["spec"]), copy.deepcopy(new["spec"])
    causes: list[Cause] = []
    for kind in ("containers", "initContainers"):
        if len(before.get(kind, [])) != len(after.get(kind, [])):
            return [forbidden_field("spec.containers", "pod updates may not add or remove containers")]
        for index, container in enumerate(after.get(kind, [])):
            if not container.get("image"):
                causes.append(required(f"spec.{kind}[{index}].image"))
            container["image"] = before[kind][index]["image"]
    kept = before.get("tolerations", [])
    if all(toleration in after.get("tolerations", []) for toleration in kept):
        after["tolerations"] = kept
    for spec in (before, after):
        spec.pop("activeDeadlineSeconds", None)
    if before != after:
        changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        causes.append(forbidden_field("spec", f"{_IMMUTABLE}\n  core.PodSpec{{ changed: {', '.join(changed)} }}"))
    return causes


def _spec_causes(spec: Obj) -> Iterator[Cause]:
    allowed = {
        "restartPolicy": ("Always", "OnFailure", "Never"),
        "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    }
    for name, values in allowed.items():
        if spec[name] not in values:
            yield unsupported(f"spec.{name}", spec[name], values)
    if spec.get("activeDeadlineSeconds", 1) < 1:
        detail = "must be between 1 and 2147483647, inclusive"
        yield invalid_value("spec.activeDeadlineSeconds", spec["activeDeadlineSeconds"], detail)
    if spec.get("hostname"):
        yield from label_causes("spec.hostname", spec["hostname"])
    yield from subdomain_causes("spec.serviceAccountName", spec["serviceAccountName"])
    security = spec.get("securityContext", {})
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        if not 0 <= security.get(name, 0) <= 2147483647:
            detail = "must be between 0 and 2147483647, inclusive"
            yield invalid_value(f"spec.securityContext.{name}", security[name], detail)
    yield from _seccomp_causes("spec.securityContext", security)


def _seccomp_causes(field: str, security: Obj) -> Iterator[Cause]:
    profile = security.get("seccompProfile")
    kinds = ("Localhost", "RuntimeDefault", "Unconfined")
    if profile is not None and profile.get("type") not in kinds:
        yield unsupported(f"{field}.seccompProfile.type", profile.get("type", ""), kinds)


def _volume_causes(volumes: list[Obj]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        field = f"spec.volumes[{index}]"
        name = volume.get("name", "")
        if not name:
            yield required(f"{field}.name")
        else:
            yield from label_causes(f"{field}.name", name)
        if name in seen:
            yield duplicate(f"{field}.name", name)
        seen.add(name)
        sources = set(volume) - {"name"}
        for extra in sorted(sources)[1:]:
            yield forbidden_field(f"{field}.{extra}", "may not specify more than 1 volume type")
        if "persistentVolumeClaim" in volume and not volume["persistentVolumeClaim"].get("claimName"):
            yield required(f"{field}.persistentVolumeClaim.claimName")
        if "secret" in volume and not volume["secret"].get("secretName"):
            yield required(f"{field}.secret.secretName")


def _container_causes(field: str, container: Obj, volumes: set[Any]) -> Iterator[Cause]:
    if not container.get("name"):
        yield required(f"{field}.name")
    else:
        yield from label_causes(f"{field}.name", container["name"])
    image = container.get("image", "")
    if not image:
        yield required(f"{field}.image")
    elif image != image.strip():
        yield invalid_value(f"{field}.image", image, "must not have leading or trailing whitespace")
    policies = ("Always", "IfNotPresent", "Never")
    if container["imagePullPolicy"] not in policies:
        yield unsupported(f"{field}.imagePullPolicy", container["imagePullPolicy"], policies)
    yield from _env_causes(field, container)
    yield from _mount_causes(field, container.get("volumeMounts", []), volumes)
    yield from _port_causes(field, container.get("ports", []))
    yield from _resource_causes(f"{field}.resources", container["resources"])
    yield from _privilege_causes(f"{field}.securityContext", container.get("securityContext", {}))


def _privilege_causes(field: str, security: Obj) -> Iterator[Cause]:
    if security.get("privileged") and security.get("allowPrivilegeEscalation") is False:
        yield Cause(
            field, "FieldValueInvalid",
            "Invalid value: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        )  # fmt: skip
    yield from _seccomp_causes(field, security)


def _env_causes(field: str, container: Obj) -> Iterator[Cause]:
    for index, variable in enumerate(container.get("env", [])):
        here = f"{field}.env[{index}]"
        name = variable.get("name", "")
        if not name:
            yield required(f"{here}.name")
        elif not _ENV_NAME.match(name):
            yield invalid_value(
                f"{here}.name",
                name,
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            )
        if variable.get("value") and variable.get("valueFrom"):
            yield Cause(
                f"{here}.valueFrom", "FieldValueInvalid",
                'Invalid value: "": may not be specified when `value` is not empty',
            )  # fmt: skip
    for index, source in enumerate(container.get("envFrom", [])):
        kinds = [kind for kind in ("secretRef", "configMapRef") if kind in source]
        if not kinds:
            yield Cause(
                f"{field}.envFrom[{index}]", "FieldValueInvalid",
                'Invalid value: "": must specify one of: `configMapRef` or `secretRef`',
            )  # fmt: skip
        for kind in kinds:
            if not source[kind].get("name"):
                yield required(f"{field}.envFrom[{index}].{kind}.name")


def _mount_causes(field: str, mounts: list[Obj], volumes: set[Any]) -> Iterator[Cause]:
    paths: set[str] = set()
    for index, mount in enumerate(mounts):
        here = f"{field}.volumeMounts[{index}]"
        if not mount.get("name"):
            yield required(f"{here}.name")
        elif mount["name"] not in volumes:
            yield not_found_value(f"{here}.name", mount["name"])
        if not mount.get("mountPath"):
            yield required(f"{here}.mountPath")
        elif mount["mountPath"] in paths:
            yield invalid_value(f"{here}.mountPath", mount["mountPath"], "must be unique")
        paths.add(mount.get("mountPath", ""))
        path = mount.get("subPath", "")
        if path.startswith("/"):
            yield invalid_value(f"{here}.subPath", path, "must be a relative path")
        if ".." in path.split("/"):
            yield invalid_value(f"{here}.subPath", path, "must not contain '..'")


def _port_causes(field: str, ports: list[Obj]) -> Iterator[Cause]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        here = f"{field}.ports[{index}]"
        if "containerPort" not in port:
            yield required(f"{here}.containerPort")
        elif not 1 <= port["containerPort"] <= 65535:
            yield invalid_value(
                f"{here}.containerPort", port["containerPort"], "must be between 1 and 65535, inclusive"
            )
        if port.get("name") in names:
            yield duplicate(f"{here}.name", port["name"])
        names.update([port["name"]] if port.get("name") else [])
        if len(port.get("name", "")) > 15:
            yield invalid_value(f"{here}.name", port["name"], "must be no more than 15 characters")


def _resource_causes(field: str, resources: Obj) -> Iterator[Cause]:
    limits: dict[str, str] = resources.get("limits", {})
    requests: dict[str, str] = resources.get("requests", {})
    for kind, values in (("limits", limits), ("requests", requests)):
        for name, value in values.items():
            if "/" not in name and name not in ("cpu", "memory", "ephemeral-storage") and not name.startswith("hugep"):
                yield invalid_value(f"{field}.{kind}.{name}", name, "must be a standard resource for containers")
            if parse(value) < 0:
                yield invalid_value(f"{field}.{kind}.{name}", value, "must be greater than or equal to 0")
    for name, value in requests.items():
        if name in limits and parse(value) > parse(limits[name]):
            yield invalid_value(
                f"{field}.requests", value, f"must be less than or equal to {name} limit of {limits[name]}"
            )
