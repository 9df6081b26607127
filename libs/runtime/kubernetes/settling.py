"""Creates what counts against a quota, which the server refuses for a moment where it will accept it soon.

A new quota is not reckoned up yet ("status unknown"), and one that is full frees what a deleted object used a moment
after the object is gone.
"""

from __future__ import annotations

import asyncio

from libs.runtime.kubernetes.api import KubeApi, Object
from libs.runtime.kubernetes.errors import ApiError

_SETTLE_S = 8.0
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


async def create_or_find(api: KubeApi, resource: str, namespace: str, manifest: Object) -> tuple[Object, bool]:
    """The object, and whether it is new. Raises ApiError: 403 when the quota stays full."""
    deadline = asyncio.get_running_loop().time() + _SETTLE_S
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await api.create(resource, namespace, manifest), True
        except ApiError as error:
            if error.status != 409 and not (error.is_not_ready_yet or error.is_quota_exceeded):
                raise
            # Quotas are checked before names: what is there already may be refused for lack of room.
            found = await api.find(resource, namespace, manifest["metadata"]["name"])
            if found is not None:
                return found, False
            if asyncio.get_running_loop().time() + pause_s > deadline:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
