"""Directories behind a pod's volumes: claims that outlive it, and what is made for it alone."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from typing import Any

from tests.fakes.kube.node.sandbox import Mount
from tests.fakes.kube.resources import CLAIMS, CONFIG_MAPS, SECRETS
from tests.fakes.kube.store import Store

Obj = dict[str, Any]


class VolumeNotReadyError(Exception):
    """The kubelet waits and tries again; the text goes into a FailedMount event."""


class Volumes:
    """Lays out everything below one folder."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def claim_folder(self, claim: Obj) -> Path:
        """Where the content of a bound claim is; it belongs to root until a pod's fsGroup says more."""
        folder: Path = self._folder / "volumes" / claim["metadata"]["uid"]
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(0o755)
        return folder

    def discard_claim(self, claim: Obj) -> None:
        """The claim is gone, and its content with it."""
        shutil.rmtree(self._folder / "volumes" / claim["metadata"]["uid"], ignore_errors=True)

    def discard_pod(self, uid: str) -> None:
        """The pod is gone."""
        shutil.rmtree(self._folder / "pods" / uid, ignore_errors=True)

    def pod_folder(self, pod: Obj, name: str) -> Path:
        """A folder of this pod alone."""
        folder: Path = self._folder / "pods" / pod["metadata"]["uid"] / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def mounts(self, pod: Obj, container: Obj) -> list[Mount]:
        """What the container sees. Raises VolumeNotReadyError."""
        sources = {volume["name"]: self._source(pod, volume) for volume in pod["spec"].get("volumes", [])}
        mounts = []
        for mount in container.get("volumeMounts", []):
            folder, read_only = sources[mount["name"]]
            if mount.get("subPath"):
                folder = folder / mount["subPath"]
                if not folder.exists():
                    folder.mkdir(parents=True)
                    self._give(pod, folder)
            mounts.append(Mount(folder, mount["mountPath"], read_only or mount.get("readOnly", False)))
        return mounts

    def _source(self, pod: Obj, volume: Obj) -> tuple[Path, bool]:
        namespace = pod["metadata"]["namespace"]
        if "persistentVolumeClaim" in volume:
            return self._claim(pod, volume["persistentVolumeClaim"])
        folder = self.pod_folder(pod, f"volumes/{volume['name']}")
        if "emptyDir" in volume:
            folder.chmod(0o777)
            self._give(pod, folder)
            return folder, False
        for kind, resource, key in (("secret", SECRETS, "secretName"), ("configMap", CONFIG_MAPS, "name")):
            if kind in volume:
                name = volume[kind][key]
                found = self._store.get(resource, namespace, name)
                if found is None and not volume[kind].get("optional"):
                    raise VolumeNotReadyError(
                        f'MountVolume.SetUp failed for volume "{volume["name"]}" : {kind.lower()} "{name}" not found'
                    )
                self._files(folder, found, volume[kind], encoded=kind == "secret")
        return folder, True

    def _claim(self, pod: Obj, source: Obj) -> tuple[Path, bool]:
        claim = self._store.get(CLAIMS, pod["metadata"]["namespace"], source["claimName"])
        if claim is None or claim["status"].get("phase") != "Bound":
            raise VolumeNotReadyError(
                f"Unable to attach or mount volumes: unmounted volumes=[{source['claimName']}], unattached volumes=[], "
                "failed to process volumes=[]: timed out waiting for the condition"
            )
        folder = self.claim_folder(claim)
        self._give(pod, folder)
        return folder, source.get("readOnly", False)

    @staticmethod
    def _give(pod: Obj, folder: Path) -> None:
        group = pod["spec"].get("securityContext", {}).get("fsGroup")
        if os.geteuid() != 0 or group is None or folder.stat().st_gid == group:
            return
        os.chown(folder, -1, group)
        folder.chmod(folder.stat().st_mode & 0o777 | 0o2775)
        for place, directories, files in os.walk(folder):
            for name in (*directories, *files):
                os.chown(os.path.join(place, name), -1, group, follow_symlinks=False)

    @staticmethod
    def _files(folder: Path, found: Obj | None, source: Obj, *, encoded: bool) -> None:
        for key, value in ((found or {}).get("data") or {}).items():
            path = folder / key
            path.write_bytes(base64.b64decode(value) if encoded else value.encode())
            path.chmod(source.get("defaultMode", 0o644))
