"""Pod Security admission: the `baseline` and `restricted` standards, with the words of the real one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Obj = dict[str, Any]
ENFORCE = "pod-security.kubernetes.io/enforce"
_RESTRICTED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
_BASELINE_CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"),
    *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}


def violation(namespace_labels: dict[str, str], pod: Obj) -> str | None:
    """Why the namespace's enforced standard refuses this pod; None when it does not."""
    level = namespace_labels.get(ENFORCE, "privileged")
    version = namespace_labels.get(f"{ENFORCE}-version", "latest")
    found = list(_baseline(pod["spec"])) if level in ("baseline", "restricted") else []
    if level == "restricted":
        found += list(_restricted(pod["spec"]))
    return f'violates PodSecurity "{level}:{version}": {", ".join(found)}' if found else None


def _containers(spec: Obj) -> list[Obj]:
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def _named(containers: list[Obj]) -> str:
    names = ", ".join(f'"{container["name"]}"' for container in containers)
    return f"container {names}" if len(containers) == 1 else f"containers {names}"


def _context(container: Obj) -> Obj:
    context: Obj = container.get("securityContext", {})
    return context


def _baseline(spec: Obj) -> Iterator[str]:
    host = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if host:
        yield f"host namespaces ({', '.join(host)})"
    paths = [volume["name"] for volume in spec.get("volumes", []) if "hostPath" in volume]
    if paths:
        names = ", ".join(f'"{name}"' for name in paths)
        yield f"hostPath volumes ({'volume' if len(paths) == 1 else 'volumes'} {names})"
    if bad := [c for c in _containers(spec) if _context(c).get("privileged")]:
        yield f"privileged ({_named(bad)} must not set securityContext.privileged=true)"
    for container in _containers(spec):
        added = set(_context(container).get("capabilities", {}).get("add", [])) - _BASELINE_CAPABILITIES
        if added:
            listed = ", ".join(f'"{name}"' for name in sorted(added))
            yield (
                f"non-default capabilities ({_named([container])} must not include {listed} in "
                "securityContext.capabilities.add)"
            )
    ports = [c for c in _containers(spec) if any(port.get("hostPort") for port in c.get("ports", []))]
    if ports:
        yield f"hostPort ({_named(ports)} uses hostPorts)"
    if spec.get("securityContext", {}).get("seccompProfile", {}).get("type") == "Unconfined":
        yield 'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")'


def _restricted(spec: Obj) -> Iterator[str]:
    pod: Obj = spec.get("securityContext", {})
    containers = _containers(spec)
    if bad := [c for c in containers if _context(c).get("allowPrivilegeEscalation") is not False]:
        yield (
            f"allowPrivilegeEscalation != false ({_named(bad)} must set securityContext.allowPrivilegeEscalation=false)"
        )
    if bad := [c for c in containers if "ALL" not in _context(c).get("capabilities", {}).get("drop", [])]:
        yield f'unrestricted capabilities ({_named(bad)} must set securityContext.capabilities.drop=["ALL"])'
    for container in containers:
        extra = set(_context(container).get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}
        if extra:
            listed = ", ".join(f'"{name}"' for name in sorted(extra))
            yield (
                f"unrestricted capabilities ({_named([container])} must not include {listed} in "
                "securityContext.capabilities.add)"
            )
    kinds = {(v["name"], kind) for v in spec.get("volumes", []) for kind in set(v) - {"name"}}
    for name, kind in sorted(kinds):
        if kind not in _RESTRICTED_VOLUMES:
            yield f'restricted volume types (volume "{name}" uses restricted volume type "{kind}")'
    yield from _users(pod, containers)
    default = pod.get("seccompProfile", {}).get("type")
    allowed = ("RuntimeDefault", "Localhost")
    if bad := [c for c in containers if _context(c).get("seccompProfile", {}).get("type", default) not in allowed]:
        yield (
            f"seccompProfile (pod or {_named(bad)} must set securityContext.seccompProfile.type to "
            '"RuntimeDefault" or "Localhost")'
        )


def _users(pod: Obj, containers: list[Obj]) -> Iterator[str]:
    if bad := [c for c in containers if _context(c).get("runAsNonRoot", pod.get("runAsNonRoot")) is not True]:
        yield f"runAsNonRoot != true (pod or {_named(bad)} must set securityContext.runAsNonRoot=true)"
    if pod.get("runAsUser") == 0:
        yield "runAsUser=0 (pod must not set runAsUser=0)"
    if bad := [c for c in containers if _context(c).get("runAsUser") == 0]:
        yield f"runAsUser=0 ({_named(bad)} must not set runAsUser=0)"
