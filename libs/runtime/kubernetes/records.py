"""The record of an environment: a ConfigMap that outlives the pod and holds nothing secret.

It is the first thing made and the last one removed. Its annotations say whose the environment is, which generation is
wanted, whether a pod was made for it, and the uid of its volume. With that uid on record, a volume that is missing, or
is another one, was lost; it is never replaced by an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from libs.runtime.kubernetes.api import KubeApi, Object
from libs.runtime.kubernetes.errors import ApiError
from libs.runtime.kubernetes.manifests import workspace as manifests
from libs.runtime.kubernetes.mapping import WISH_RUNNING, WISH_STARTING, WISH_STOPPED, generation_of
from libs.runtime.kubernetes.names import ENVIRONMENT_NAME, GENERATION, VOLUME_UID, WISH, workspace_name
from libs.runtime.port import WorkspaceSpec

RESOURCE = "configmaps"


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read."""

    item: Object

    @property
    def generation(self) -> int:
        """The newest wish that was worked on."""
        return generation_of(self.item)

    @property
    def volume_uid(self) -> str | None:
        """The volume the environment has, once it has one."""
        return self._annotations().get(VOLUME_UID) or None

    @property
    def wish(self) -> str:
        """starting, running or stopped."""
        return self._annotations().get(WISH) or ""

    def _annotations(self) -> dict[str, str]:
        return cast("dict[str, str]", self.item.get("metadata", {}).get("annotations") or {})


class Records:
    """The records of one cluster."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def find(self, namespace: str, environment_id: str) -> Record | None:
        """The record, or None."""
        item = await self._api.find(RESOURCE, namespace, workspace_name(environment_id))
        return Record(item) if item is not None else None

    async def create(self, namespace: str, spec: WorkspaceSpec) -> bool:
        """A new record; False when there is one already."""
        try:
            await self._api.create(RESOURCE, namespace, manifests.record(spec, WISH_STARTING))
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    async def begin(self, namespace: str, record: Record, spec: WorkspaceSpec) -> Record | None:
        """Note that `spec` is being worked on; None when somebody noted something else at the same time."""
        if record.generation == spec.generation and record.wish != WISH_STOPPED:
            return record
        annotations = {GENERATION: str(spec.generation), WISH: WISH_STARTING, ENVIRONMENT_NAME: spec.name}
        metadata = record.item["metadata"]
        try:
            return await self._annotate(namespace, metadata["name"], annotations, metadata["resourceVersion"])
        except ApiError as error:
            if error.status == 409:
                return None
            raise

    async def note_volume(self, namespace: str, environment_id: str, uid: str) -> Record:
        """From now on the environment has this volume."""
        return await self._annotate(namespace, workspace_name(environment_id), {VOLUME_UID: uid})

    async def note_pod(self, namespace: str, record: Record) -> None:
        """A pod was made: from now on its absence is a loss. Nothing when somebody noted something newer."""
        if record.wish == WISH_RUNNING:
            return
        metadata = record.item["metadata"]
        try:
            await self._annotate(namespace, metadata["name"], {WISH: WISH_RUNNING}, metadata["resourceVersion"])
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def note_stop(self, namespace: str, environment_id: str) -> bool:
        """No pod is wanted: its absence is what was asked for. False when there is no record."""
        try:
            await self._annotate(namespace, workspace_name(environment_id), {WISH: WISH_STOPPED})
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    async def _annotate(
        self, namespace: str, name: str, annotations: dict[str, str], only_if_version: str | None = None
    ) -> Record:
        metadata: Object = {"annotations": annotations}
        if only_if_version is not None:
            # Refused with 409 when the record has changed since it was read.
            metadata["resourceVersion"] = only_if_version
        return Record(await self._api.patch(RESOURCE, namespace, name, {"metadata": metadata}))
