"""From a pod's spec to what its container sees and who it is."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fakes.kube.node.images import Image
from tests.fakes.kube.node.sandbox import Mount, World, bubblewrap, etc_files
from tests.fakes.kube.node.volumes import Volumes
from tests.fakes.kube.resources import CONFIG_MAPS, SECRETS
from tests.fakes.kube.store import Store

Obj = dict[str, Any]


class ConfigError(Exception):
    """The kubelet's CreateContainerConfigError: the text is its message."""


def make_world(store: Store, volumes: Volumes, pod: Obj, container: Obj, image: Image) -> World:
    """Everything resolved. Raises ConfigError, VolumeNotReadyError."""
    security = pod["spec"].get("securityContext", {}) | container.get("securityContext", {})
    uid = security.get("runAsUser", image.user)
    if security.get("runAsNonRoot") and uid == 0:
        raise ConfigError(
            "container has runAsNonRoot and image will run as root "
            f'(pod: "{pod["metadata"]["name"]}_{pod["metadata"]["namespace"]}({pod["metadata"]["uid"]})", '
            f"container: {container['name']})"
        )
    # Without runAsGroup the image's /etc/passwd decides, which knows root and `dev`.
    gid = security.get("runAsGroup", uid if uid in (0, image.user) else 0)
    group = pod["spec"].get("securityContext", {}).get("fsGroup")
    env = dict(image.env) | _environment(store, pod, container)
    mounts = [Mount(path, target, read_only=True) for target, path in image.files.items()]
    mounts += volumes.mounts(pod, container)
    hostname = pod["spec"].get("hostname") or pod["metadata"]["name"][:63]
    etc = volumes.pod_folder(pod, f"etc-{container['name']}")
    for name, text in etc_files(uid, gid, hostname, knows_user=image.knows_user).items():
        (etc / name).write_text(text)
    command = container.get("command") or image.entrypoint
    arguments = container.get("args") or ([] if container.get("command") else image.command)
    world = World(
        argv=[_expand(part, env) for part in (*command, *arguments)],
        env=env,
        cwd=container.get("workingDir") or image.working_dir,
        uid=uid,
        gid=gid,
        groups=[group] if group is not None else [],
        hostname=hostname,
        mounts=mounts,
        read_only_root=security.get("readOnlyRootFilesystem", False),
        etc=etc,
        traps=_sets_trap(command) if container.get("command") else image.traps,
    )
    return world if bubblewrap() else _without_mounts(world)


def _sets_trap(command: Sequence[str]) -> bool:
    """Whether a shell text names a function to call at SIGTERM."""
    return any(re.search(r"trap \w+ TERM", part) for part in command)


def _environment(store: Store, pod: Obj, container: Obj) -> dict[str, str]:
    namespace = pod["metadata"]["namespace"]
    result: dict[str, str] = {}
    for source in container.get("envFrom", []):
        for kind, resource in (("secretRef", SECRETS), ("configMapRef", CONFIG_MAPS)):
            if kind in source:
                data = _data(store, resource, namespace, source[kind]["name"], source[kind].get("optional", False))
                result |= {source.get("prefix", "") + key: value for key, value in data.items()}
    for variable in container.get("env", []):
        if "valueFrom" not in variable:
            result[variable["name"]] = _expand(variable.get("value", ""), result)
            continue
        value = _referenced(store, pod, variable["valueFrom"])
        if value is not None:
            result[variable["name"]] = value
    return result


def _referenced(store: Store, pod: Obj, source: Obj) -> str | None:
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    for kind, resource in (("secretKeyRef", SECRETS), ("configMapKeyRef", CONFIG_MAPS)):
        if kind not in source:
            continue
        name, key, optional = source[kind]["name"], source[kind]["key"], source[kind].get("optional", False)
        data = _data(store, resource, pod["metadata"]["namespace"], name, optional)
        if key in data:
            return data[key]
        if not optional:
            word = "Secret" if resource is SECRETS else "ConfigMap"
            raise ConfigError(f"couldn't find key {key} in {word} {pod['metadata']['namespace']}/{name}")
    return None


def _field(pod: Obj, path: str) -> str:
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str(pod["metadata"].get(match.group(1), {}).get(match.group(2), ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)


def _data(store: Store, resource: Any, namespace: str, name: str, optional: bool) -> dict[str, str]:
    found = store.get(resource, namespace, name)
    if found is None:
        if optional:
            return {}
        raise ConfigError(f'{resource.kind.lower()} "{name}" not found')
    data: dict[str, str] = found.get("data") or {}
    if resource is CONFIG_MAPS:
        return dict(data)
    return {key: base64.b64decode(value).decode("utf-8", "surrogateescape") for key, value in data.items()}


def _expand(text: str, env: dict[str, str]) -> str:
    """`$(NAME)` becomes its value, `$$` a dollar; unknown names stay."""

    def replace(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return env.get(match.group(1), match.group(0))

    return re.sub(r"\$\$|\$\(([^)]+)\)", replace, text)


def _with_host_paths(world: World, script: str) -> str:
    for mount in world.mounts:
        script = script.replace(mount.target, str(mount.source))
    return script


def _without_mounts(world: World) -> World:
    """Where no sandbox can be made: paths below a mount become the host's."""
    real = world.on_host
    return World(
        argv=[_with_host_paths(world, part) if "\n" in part else real(part) for part in world.argv],
        env={name: real(value) for name, value in world.env.items()},
        cwd=real(world.cwd) if Path(real(world.cwd)).is_dir() else "/",
        uid=world.uid,
        gid=world.gid,
        groups=world.groups,
        hostname=world.hostname,
        mounts=world.mounts,
        read_only_root=world.read_only_root,
        etc=world.etc,
    )
