"""/version, /api and /apis: what the server has."""

from __future__ import annotations

from typing import Any

from tests.fakes.kube.resources import ALL

Obj = dict[str, Any]
VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.1",
    "gitCommit": "0" * 40,
    "gitTreeState": "clean",
    "buildDate": "2026-05-01T00:00:00Z",
    "goVersion": "go1.26.0",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def document(path: str, *, metrics: str) -> Obj | None:
    """The discovery document at `path`, or None."""
    path = path.rstrip("/")
    groups = sorted({(r.group, r.version) for r in ALL if r.group and (r.group != "metrics.k8s.io" or metrics == "on")})
    if path == "/version":
        return dict(VERSION)
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*pair) for pair in groups]}
    if path == "/api/v1":
        return _resources("", "v1")
    for group, version in groups:
        if path == f"/apis/{group}":
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, version)}
        if path == f"/apis/{group}/{version}":
            return _resources(group, version)
    return None


def _group(group: str, version: str) -> Obj:
    entry = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def _resources(group: str, version: str) -> Obj:
    resources = []
    for resource in ALL:
        if (resource.group, resource.version) != (group, version):
            continue
        entry = {"singularName": resource.kind.lower(), "namespaced": resource.namespaced, "kind": resource.kind}
        resources.append(
            {"name": resource.plural, **entry, "verbs": list(resource.verbs), "shortNames": list(resource.short_names)}
        )
        resources += [
            {"name": f"{resource.plural}/{sub}", **entry, "verbs": ["create", "get"]} for sub in resource.subresources
        ]
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}
