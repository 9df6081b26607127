"""The volume of an environment: made once, never replaced, gone only with the environment."""

from __future__ import annotations

from libs.runtime.kubernetes.api import KubeApi, Object
from libs.runtime.kubernetes.manifests import workspace as manifests
from libs.runtime.kubernetes.mapping import VOLUME_ENDING, VOLUME_LOST, is_terminating, is_volume_lost
from libs.runtime.kubernetes.names import workspace_name
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.kubernetes.records import Record, Records
from libs.runtime.kubernetes.settling import create_or_find
from libs.runtime.kubernetes.watches import wait_until_gone
from libs.runtime.port import RuntimeUnavailableError, WorkspaceRejectedError, WorkspaceSpec

RESOURCE = "persistentvolumeclaims"
# The storage driver needs seconds to take a volume back; more means that something holds it.
_GONE_S = 60.0


class Volumes:
    """The volumes of one cluster."""

    def __init__(self, api: KubeApi, options: KubernetesOptions, records: Records) -> None:
        self._api = api
        self._options = options
        self._records = records

    async def ensure(self, namespace: str, record: Record, spec: WorkspaceSpec) -> Record:
        """Make the volume the first time, and never again. Raises WorkspaceRejectedError when it was lost."""
        if record.volume_uid is not None:
            volume = await self._api.find(RESOURCE, namespace, workspace_name(spec.ref.environment_id))
            if is_volume_lost(record.item, volume):
                why = VOLUME_LOST if volume is None or not is_terminating(volume) else VOLUME_ENDING
                raise WorkspaceRejectedError(why.message, reason=why.reason)
            return record
        volume = await self._create(namespace, spec)
        return await self._records.note_volume(namespace, spec.ref.environment_id, volume["metadata"]["uid"])

    async def delete(self, namespace: str, environment_id: str) -> None:
        """Remove the volume and wait until it is gone. Fine when there is none."""
        name = workspace_name(environment_id)
        if await self._api.delete(RESOURCE, namespace, name):
            await self._wait_until_gone(namespace, name)

    async def _create(self, namespace: str, spec: WorkspaceSpec) -> Object:
        manifest = manifests.volume_claim(self._options, spec)
        volume, is_new = await create_or_find(self._api, RESOURCE, namespace, manifest)
        if not is_new and is_terminating(volume):
            # No record knows it, so it is what an environment of this id left when it was deleted.
            await self._wait_until_gone(namespace, manifest["metadata"]["name"])
            volume, _ = await create_or_find(self._api, RESOURCE, namespace, manifest)
        return volume

    async def _wait_until_gone(self, namespace: str, name: str) -> None:
        if not await wait_until_gone(self._api, RESOURCE, namespace, name, seconds=_GONE_S):
            raise RuntimeUnavailableError(
                "The cluster does not let go of the workspace's volume; something may still use it.",
                reason="VolumeStuck",
            )
