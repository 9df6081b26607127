"""The namespace of a user: made with the first environment, gone with the last one.

Two calls may meet here: one removes the last environment, another makes a new one. Whoever makes one writes the
environment's record first and changes the namespace after that. Whoever wants the namespace gone reads it, then looks
for records, then deletes exactly the version that was read. So either the record is seen, or the deletion is refused.
"""

from __future__ import annotations

import asyncio
import time

from libs.runtime.kubernetes.api import KubeApi, Object
from libs.runtime.kubernetes.errors import ApiError
from libs.runtime.kubernetes.manifests import namespace as manifests
from libs.runtime.kubernetes.mapping import is_terminating
from libs.runtime.kubernetes.names import CLAIMED, OURS, PART, POLICY, USER, namespace_of
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.kubernetes.watches import wait_until_gone
from libs.runtime.port import RuntimeUnavailableError, WorkspaceRejectedError

# A namespace takes some seconds to go, longer when its volumes do; then the caller is told to try again.
_GONE_S = 60.0
RESOURCE = "namespaces"
# How often others may change a namespace between our look and its deletion.
_TRIES = 5


class Namespaces:
    """The namespaces of one cluster."""

    def __init__(self, api: KubeApi, options: KubernetesOptions) -> None:
        self._api = api
        self._options = options

    def name(self, user_id: str) -> str:
        """The namespace of a user, whether it exists or not."""
        return namespace_of(self._options.namespace_prefix, user_id)

    async def ensure(self, user_id: str) -> str:
        """Make the namespace with all its policies. Raises RuntimeUnavailableError while the one before it goes."""
        name = self.name(user_id)
        found = await self._api.find(RESOURCE, None, name)
        if found is not None and is_terminating(found):
            await self.wait_until_gone(name)
            found = None
        if found is None:
            found = await self._create(user_id, name)
        annotations = found["metadata"].get("annotations") or {}
        if annotations.get(USER) != user_id:
            raise WorkspaceRejectedError(
                f"The namespace {name} exists in the cluster and is not this user's. An operator has to look at it.",
                reason="NamespaceTaken",
            )
        if annotations.get(POLICY) != manifests.policy_digest(self._options, user_id):
            await self._apply_policies(user_id, name)
        return name

    async def claim(self, name: str, environment_id: str) -> None:
        """Change the namespace, so that a deletion that did not see the environment's record yet is refused."""
        text = f"{environment_id} {time.time_ns()}"
        await self._api.patch(RESOURCE, None, name, {"metadata": {"annotations": {CLAIMED: text}}})

    async def delete_if_empty(self, user_id: str) -> bool:
        """Delete the namespace when no environment is left in it; True when it is on its way out.

        Raises RuntimeUnavailableError when somebody changes it all the time.
        """
        name = self.name(user_id)
        for _ in range(_TRIES):
            found = await self._api.find(RESOURCE, None, name)
            if found is None or is_terminating(found):
                return True
            if (found["metadata"].get("annotations") or {}).get(USER) != user_id:
                return False
            records = await self._api.list("configmaps", name, labelSelector=f"{OURS},{PART}=record", limit="1")
            if records["items"]:
                return False
            if await self._delete_as_seen(name, found):
                return True
            # Whoever changed it may make an environment in it, whose record is seen now, or may be anybody else.
        raise RuntimeUnavailableError("The user's namespace is being changed all the time.", reason="NamespaceBusy")

    async def _delete_as_seen(self, name: str, found: Object) -> bool:
        seen = {"uid": found["metadata"]["uid"], "resourceVersion": found["metadata"]["resourceVersion"]}
        try:
            await self._api.delete(RESOURCE, None, name, preconditions=seen)
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    async def wait_until_gone(self, name: str) -> None:
        """Wait for a deletion under way. Raises RuntimeUnavailableError when it takes too long."""
        if not await wait_until_gone(self._api, RESOURCE, None, name, seconds=_GONE_S):
            raise RuntimeUnavailableError(
                "Your space in the cluster is still being cleaned up after its last environment was deleted.",
                reason="NamespaceTerminating",
            )

    async def _create(self, user_id: str, name: str) -> Object:
        try:
            return await self._api.create(RESOURCE, None, manifests.namespace(self._options, user_id))
        except ApiError as error:
            if error.status != 409:
                raise
        return await self._api.get(RESOURCE, None, name)

    async def _apply_policies(self, user_id: str, name: str) -> None:
        """All at once; the note that they are there comes last."""
        wanted = manifests.policies(self._options, user_id)
        await asyncio.gather(*(self._api.put(resource, name, manifest) for resource, manifest in wanted))
        await self._api.patch(RESOURCE, None, name, manifests.policy_annotation(self._options, user_id))
