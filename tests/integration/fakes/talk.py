"""Objects for tests, and plain HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import pytest

from tests.fakes.kube.node.sandbox import bubblewrap

Obj = dict[str, Any]
Found = TypeVar("Found")
sandboxed = pytest.mark.skipif(bubblewrap() is None, reason="needs a pod with a world of its own")
IMAGE = "devpocket/ubuntu:latest"


class Plain:
    """`await plain.call("GET", "/api/v1/…")` gives (status, body)."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def __aenter__(self) -> Plain:
        self.session = aiohttp.ClientSession(headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    def url(self, path: str) -> str:
        """The whole address."""
        return self._url + path

    async def call(
        self, method: str, path: str, body: object = None, kind: str = "application/json", **query: str
    ) -> tuple[int, Obj]:
        """One request; an answer that is no JSON comes as `{"text": …}`."""
        data = body if isinstance(body, bytes) else (None if body is None else json.dumps(body).encode())
        headers = {"Content-Type": kind}
        async with self.session.request(method, self.url(path), data=data, headers=headers, params=query) as answer:
            text = await answer.text()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, {"text": text}


async def eventually(look: Callable[[], Awaitable[Found]], right: Callable[[Found], bool]) -> Found:
    """What `look` gives as soon as it is right."""
    async with asyncio.timeout(30):
        while not right(found := await look()):  # noqa: ASYNC110 - elsewhere, out of sight
            await asyncio.sleep(0.02)
    return found


def pod(name: str = "p", command: list[str] | None = None, **spec: Any) -> Obj:
    """A pod of one container `main` that idles, or runs `command`."""
    container: Obj = {"name": "main", "image": IMAGE}
    if command is not None:
        container["command"] = command
    container |= spec.pop("container", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **spec.pop("metadata", {})},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 2, **spec},
    }


def claim(name: str = "c", size: str = "1Gi", **spec: Any) -> Obj:
    """A volume claim."""
    amounts = {"requests": {"storage": size}}
    return {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": amounts, **spec}}


def with_claim(name: str = "c") -> Obj:
    """What a pod's spec needs to have the claim at /workspace."""
    mount = {"name": "work", "mountPath": "/workspace"}
    return {
        "container": {"volumeMounts": [mount]},
        "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": name}}],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
    }
