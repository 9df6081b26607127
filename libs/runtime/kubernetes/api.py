"""Requests to one API server: bounded in number, in time and in retries. Objects are the JSON the API speaks.

The official client serves as transport (credentials, TLS, proxies, exec). Its generated model classes are left out:
they cost every process 25 MB and more than a second, and would drop fields that a newer server has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import aiohttp

from libs.runtime.kubernetes.connection import Connection
from libs.runtime.kubernetes.errors import ApiError, ApiUnreachableError, api_error
from libs.runtime.tracing import answered, cluster_request

Object = dict[str, Any]
Query = Mapping[str, str]

CONNECT_S = 5.0  # a server that is there accepts within milliseconds; more means that it is not
REQUEST_S = 20.0  # etcd gives a request 10 s, and the server answers with an error after that
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0  # a server that asks for more gets its error passed on: whoever waits should know
_TRANSIENT = frozenset({429, 500, 502, 503, 504})
_TRANSPORT_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)
_PAGE = 500
_MERGE_PATCH = "application/merge-patch+json"

GROUPS = {
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "pods.metrics.k8s.io": "/apis/metrics.k8s.io/v1beta1",
}


def path_of(resource: str, namespace: str | None = None, name: str | None = None) -> str:
    """The path of a collection or an object."""
    parts = [GROUPS.get(resource, "/api/v1")]
    if namespace is not None:
        parts += ["namespaces", namespace]
    parts.append(resource.split(".", 1)[0])
    return "/".join(parts if name is None else [*parts, name])


def _jitter(pause_s: float) -> float:
    return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    query: Query
    body: Object | None
    headers: Mapping[str, str]


class KubeApi:
    """Every call raises ApiError for an answer of 400 or above, ApiUnreachableError when none came."""

    def __init__(
        self,
        connection: Connection,
        in_flight: int,
        *,
        page: int = _PAGE,
        jitter: Callable[[float], float] = _jitter,
    ) -> None:
        self._connection = connection
        self._slots = asyncio.Semaphore(in_flight)
        self._page = str(page)
        self._jitter = jitter

    async def get(self, resource: str, namespace: str | None, name: str) -> Object:
        """One object."""
        return await self.request("GET", path_of(resource, namespace, name))

    async def find(self, resource: str, namespace: str | None, name: str) -> Object | None:
        """One object, or None."""
        try:
            return await self.get(resource, namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, resource: str, namespace: str | None = None, **query: str) -> Object:
        """A whole collection, in pages; at once when the server forgets its state between two pages (410)."""
        path = path_of(resource, namespace)
        found = await self.request("GET", path, query={"limit": self._page, **query})
        items = found.get("items") or []
        while token := found.get("metadata", {}).get("continue"):
            try:
                found = await self.request("GET", path, query={**query, "limit": self._page, "continue": token})
            except ApiError as error:
                if error.status != 410:
                    raise
                found, items = await self.request("GET", path, query=query), []
            items.extend(found.get("items") or [])
        return {**found, "items": items}

    async def create(self, resource: str, namespace: str | None, manifest: Object) -> Object:
        """A new object; 409 when there is one of that name."""
        return await self.request("POST", path_of(resource, namespace), body=manifest)

    async def put(self, resource: str, namespace: str | None, manifest: Object) -> Object:
        """Create or replace, whatever was there."""
        try:
            return await self.create(resource, namespace, manifest)
        except ApiError as error:
            if error.status != 409:
                raise
        return await self.request("PUT", path_of(resource, namespace, manifest["metadata"]["name"]), body=manifest)

    async def patch(self, resource: str, namespace: str | None, name: str, patch: Object) -> Object:
        """A JSON merge patch."""
        return await self.request(
            "PATCH", path_of(resource, namespace, name), body=patch, headers={"Content-Type": _MERGE_PATCH}
        )

    async def delete(self, resource: str, namespace: str | None, name: str, **options: Any) -> bool:
        """Ask for an object's end; False when there was none."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
        try:
            await self.request("DELETE", path_of(resource, namespace, name), body=body)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Object | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Object:
        """One request with retries. Each may be repeated: to create twice is a 409, to delete twice a 404."""
        call = _Call(method, path, query or {}, body, headers or {})
        pause_s = _FIRST_PAUSE_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._slots:
                    return await self._once(call)
            except ApiUnreachableError:
                if attempt == _ATTEMPTS:
                    raise
                wait_s = self._jitter(pause_s)
            except ApiError as error:
                if attempt == _ATTEMPTS or not await self._may_repeat(error, attempt):
                    raise
                wait_s = max(error.retry_after_s or 0.0, self._jitter(pause_s))
                if wait_s > _LONGEST_PAUSE_S:
                    raise
            await asyncio.sleep(wait_s)
            pause_s *= 2
        raise AssertionError("unreachable")

    async def _may_repeat(self, error: ApiError, attempt: int) -> bool:
        if error.status == 401 and attempt == 1:
            await self._connection.refresh()
            return True
        return error.status in _TRANSIENT

    async def _once(self, call: _Call) -> Object:
        timeout = aiohttp.ClientTimeout(total=REQUEST_S, sock_connect=CONNECT_S)
        try:
            response = await self._send(call, timeout)
            content = await response.read()
        except _TRANSPORT_ERRORS as error:
            raise ApiUnreachableError(_words(error)) from error
        if response.status >= 400:
            raise api_error(response.status, content, response.headers.get("Retry-After"))
        try:
            return cast("Object", json.loads(content)) if content else {}
        except ValueError as error:
            raise ApiUnreachableError("something that is no API server answered") from error

    async def _send(self, call: _Call, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        client = self._connection.http
        method, url, headers, body, _ = await client.param_serialize(
            call.method,
            call.path,
            query_params=list(call.query.items()),
            header_params={"Accept": "application/json", **call.headers},
            body=call.body,
            auth_settings=["BearerToken"],
        )
        with cluster_request(call.method, call.path) as span:
            answer = await client.call_api(method, url, headers, body, _request_timeout=timeout)
            response = cast("aiohttp.ClientResponse", answer.response)
            answered(span, response.status)
            return response

    @contextlib.asynccontextmanager
    async def stream(self, path: str, query: Query, *, silence_s: float | None) -> AsyncIterator[aiohttp.StreamReader]:
        """An answer that is read as it comes. `silence_s`: a connection that says nothing for longer is dead."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)
        call = _Call("GET", path, query, None, {"Accept": "*/*"})
        try:
            response = await self._send(call, timeout)
            if response.status == 401:
                response.close()
                await self._connection.refresh()
                response = await self._send(call, timeout)
        except _TRANSPORT_ERRORS as error:
            raise ApiUnreachableError(_words(error)) from error
        try:
            if response.status >= 400:
                raise api_error(response.status, await response.read(), response.headers.get("Retry-After"))
            yield response.content
        except _TRANSPORT_ERRORS as error:
            raise ApiUnreachableError(_words(error)) from error
        finally:
            response.close()


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
