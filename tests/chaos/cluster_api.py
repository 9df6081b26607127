"""The administrator of the fake cluster: reads and changes objects, turns switches, and does not give up easily."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from pathlib import Path
from typing import Any

import httpx

from libs.runtime.kubernetes.names import OURS

Obj = dict[str, Any]


class SwitchError(Exception):
    """The fake does not turn this switch, e.g. because the pod it is about is gone."""


# Longer than the API server is ever away or silent.
_PATIENCE_S = 45.0
_PAUSE_S = 0.1
_CALL_TIMEOUT_S = 20.0
# Reading the machine's certificates for each call would cost more than the call.
_TLS = ssl.create_default_context()
_MERGE_PATCH = "application/merge-patch+json"


class ClusterApi:
    """Calls by name of a resource of the core API. Every one is repeated until the server has answered it."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        self._url: str = config["clusters"][0]["cluster"]["server"]
        self._headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}

    async def list(self, resource: str) -> list[Obj]:
        """All objects of ours, in all namespaces."""
        answer = await self._call("GET", f"/api/v1/{resource}", params={"labelSelector": OURS})
        items: list[Obj] = answer.json()["items"]
        return items

    async def delete_pod(self, pod: Obj, grace_s: int | None) -> bool:
        """As `kubectl delete pod` does; None takes the pod's own grace. False when it was gone."""
        options: Obj = {"preconditions": {"uid": pod["metadata"]["uid"]}}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return (await self._call("DELETE", path_of("pods", pod), body=options)).is_success

    async def annotate(self, resource: str, item: Obj, **annotations: str) -> bool:
        """As `kubectl annotate` does. False when it was gone."""
        patch = {"metadata": {"annotations": annotations}}
        headers = {"Content-Type": _MERGE_PATCH}
        return (await self._call("PATCH", path_of(resource, item), body=patch, headers=headers)).is_success

    async def switch(self, name: str, /, **arguments: Any) -> Obj:
        """Turn a switch of the fake. Raises SwitchError."""
        answer = await self._call("POST", f"/fake/{name}", body=arguments, is_switch=True)
        if not answer.is_success:
            raise SwitchError(f"{name}: {answer.status_code} {answer.text}")
        return dict(answer.json())

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        is_switch: bool = False,
    ) -> httpx.Response:
        """Any answer below 500; a switch answers 500 when it cannot be turned. Raises TimeoutError."""
        deadline = time.monotonic() + _PATIENCE_S
        async with httpx.AsyncClient(
            base_url=self._url, timeout=_CALL_TIMEOUT_S, headers=self._headers, verify=_TLS
        ) as http:
            while time.monotonic() < deadline:
                content = None if body is None else json.dumps(body)
                try:
                    answer = await http.request(method, path, content=content, params=params, headers=headers)
                except httpx.TransportError:
                    pass
                else:
                    if is_switch or (answer.status_code < 500 and answer.status_code != 429):
                        return answer
                await asyncio.sleep(_PAUSE_S)
        raise TimeoutError(f"the fake cluster does not answer {method} {path}")


def path_of(resource: str, item: Obj) -> str:
    """Where an object of the core API is."""
    namespace, name = item["metadata"].get("namespace"), item["metadata"]["name"]
    return f"/api/v1/namespaces/{namespace}/{resource}/{name}" if namespace else f"/api/v1/{resource}/{name}"
