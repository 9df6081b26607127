"""Pods: made, waited for, and ended, also when nobody is left on their node who could end them."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing

from libs.runtime.kubernetes.api import KubeApi, Object
from libs.runtime.kubernetes.errors import ApiError
from libs.runtime.kubernetes.mapping import NODE_LOST, POD_GONE, is_over, is_ready, is_terminating
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.kubernetes.settling import create_or_find
from libs.runtime.kubernetes.trouble import Trouble, beside, from_events, why_ended, why_waiting
from libs.runtime.kubernetes.watches import DELETED, one_object, wait_until_gone
from libs.runtime.port import DriverError, RuntimeUnavailableError, WorkspaceRejectedError

RESOURCE = "pods"
# A node that is well ends a pod within the grace and a moment.
_MOMENT_S = 2.0
_FORCED_S = 10.0
# Even for an image that is being pulled.
_LONGEST_START_S = 120.0
_PROGRESS = frozenset({"ImagePulling", "StartTimeout"})


class Pods:
    """The pods of one cluster."""

    def __init__(self, api: KubeApi, options: KubernetesOptions) -> None:
        self._api = api
        self._patience_s = options.start_patience_s
        self._end_patience_s = options.end_patience_s

    async def create(self, namespace: str, manifest: Object) -> Object | None:
        """A new pod; None when there is one of that name."""
        pod, is_new = await create_or_find(self._api, RESOURCE, namespace, manifest)
        return pod if is_new else None

    async def wait_until_ready(self, namespace: str, pod: Object) -> Object:
        """The pod once `exec` works in it. Raises DriverError with the reason when that does not come.

        Now and then it is asked what it waits for: what makes progress may take its time, what does not is reported,
        and the next `ensure` goes on waiting.
        """
        clock = asyncio.get_running_loop().time
        latest = clock() + _LONGEST_START_S
        while not _is_done(pod):
            try:
                async with asyncio.timeout(self._patience_s):
                    pod = await self._next(namespace, pod)
                continue
            except TimeoutError:
                pod = await self._api.find(RESOURCE, namespace, pod["metadata"]["name"]) or {}
            if not pod:
                raise _trouble_error(POD_GONE)
            trouble = await self._what_holds(namespace, pod)
            if not _is_done(pod) and (trouble.reason not in _PROGRESS or clock() > latest):
                raise _trouble_error(trouble)
        return pod

    async def _next(self, namespace: str, pod: Object) -> Object:
        """The pod once it is ready."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        async with aclosing(one_object(self._api, RESOURCE, namespace, name).changes(after=pod)) as changes:
            async for change in changes:
                if change.item["metadata"]["uid"] != uid or change.kind == DELETED:
                    raise _trouble_error(POD_GONE)
                if _is_done(change.item):
                    return change.item
        raise AssertionError("a watch never ends by itself")

    async def delete(self, namespace: str, pod: Object, grace_s: float) -> None:
        """End this pod and wait until it is gone. Fine when it is already. Raises RuntimeUnavailableError."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        # Zero would take the pod off the books at once, with its processes still running on the node.
        grace = max(1, math.ceil(grace_s))
        if not await self._ask_to_end(namespace, name, uid, grace):
            return
        if await wait_until_gone(self._api, RESOURCE, namespace, name, uid=uid, seconds=grace + _MOMENT_S):
            return
        if await self._is_node_alive(pod):
            if await wait_until_gone(self._api, RESOURCE, namespace, name, uid=uid, seconds=self._end_patience_s):
                return
            raise RuntimeUnavailableError(
                "The node does not finish ending the workspace's pod.", reason="StuckTerminating"
            )
        # Nobody on that node will ever report the end, so only we can say that it has come.
        await self._ask_to_end(namespace, name, uid, 0)
        if not await wait_until_gone(self._api, RESOURCE, namespace, name, uid=uid, seconds=_FORCED_S):
            raise RuntimeUnavailableError(
                "Something in the cluster holds on to the workspace's pod (a finalizer).", reason="StuckTerminating"
            )

    async def _ask_to_end(self, namespace: str, name: str, uid: str, grace: int) -> bool:
        """False when it is gone already, or another one has taken its name."""
        try:
            return await self._api.delete(
                RESOURCE, namespace, name, gracePeriodSeconds=grace, preconditions={"uid": uid}
            )
        except ApiError as error:
            if error.status == 409:
                return False
            raise

    async def _is_node_alive(self, pod: Object) -> bool:
        name = pod.get("spec", {}).get("nodeName")
        if not name:
            return False
        node = await self._api.find("nodes", None, name)
        return node is not None and is_ready(node)

    async def _what_holds(self, namespace: str, pod: Object) -> Trouble:
        """What a pod that is not ready waits for: it says so itself, or its volume or the events about it do."""
        told = why_waiting(pod)
        if told is not None:
            return told
        metadata = pod["metadata"]
        selector = f"involvedObject.uid={metadata['uid']}"
        events = (await self._api.list("events", namespace, fieldSelector=selector))["items"]
        told = from_events(events)
        if told is None and not pod.get("spec", {}).get("nodeName"):
            told = await self._what_holds_the_volume(namespace, metadata["name"])
        return told or Trouble("StartTimeout", "The cluster takes too long to start the workspace.")

    async def _what_holds_the_volume(self, namespace: str, name: str) -> Trouble | None:
        """The volume has the pod's name. One that waits for its first pod is bound before that pod gets a node."""
        volume = await self._api.find("persistentvolumeclaims", namespace, name)
        if volume is None or volume.get("status", {}).get("phase") != "Pending":
            return None
        selector = f"involvedObject.uid={volume['metadata']['uid']}"
        events = (await self._api.list("events", namespace, fieldSelector=selector))["items"]
        said = events[-1].get("message") if events else None
        return Trouble("VolumePending", beside("The workspace's volume is not ready yet", said))


def _is_done(pod: Object) -> bool:
    """True when it is ready. Raises DriverError when it will never be."""
    if is_ready(pod):
        return True
    if is_over(pod):
        raise _trouble_error(why_ended(pod))
    if is_terminating(pod):
        raise _trouble_error(NODE_LOST if pod.get("status", {}).get("reason") == "NodeLost" else POD_GONE)
    trouble = why_waiting(pod)
    if trouble is not None and trouble.final:
        raise _trouble_error(trouble)
    return False


def _trouble_error(trouble: Trouble) -> DriverError:
    kind = WorkspaceRejectedError if trouble.final else RuntimeUnavailableError
    return kind(trouble.message, reason=trouble.reason)
