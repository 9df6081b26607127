"""pods/log."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.fakes.kube.errors import Cause, StatusError, bad_request, internal, invalid
from tests.fakes.kube.node.container import Container
from tests.fakes.kube.node.logs import LogQuery
from tests.fakes.kube.resources import PODS, Resource
from tests.fakes.kube.web.context import Context, Target
from tests.fakes.kube.web.exec import chosen_container

Obj = dict[str, Any]
_OPTIONS = Resource("", "v1", "pods", "PodLogOptions", None)


async def read_log(context: Context, request: web.Request, target: Target) -> web.StreamResponse:
    """Plain text; with `follow` until the container ends."""
    query = _query(target.name, request)
    pod = context.api.get(PODS, target.namespace or "", target.name)
    name = chosen_container(pod, request.query.get("container", ""))
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    container = _container(context, pod, name, previous=_flag(request, "previous"))
    response.enable_chunked_encoding()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        async with context.following():
            if container is not None:
                async with aclosing(container.log.read(query)) as lines:
                    async for data in lines:
                        await response.write(data)
        await response.write_eof()
    return response


def _container(context: Context, pod: Obj, name: str, *, previous: bool) -> Container | None:
    node = pod["spec"].get("nodeName")
    if not node:
        return None
    if node in context.kubelet.lost:
        raise internal(f'Get "https://10.0.0.10:10250/containerLogs/{name}": dial tcp 10.0.0.10:10250: i/o timeout')
    worker = context.kubelet.container(pod, name)
    who = f'container "{name}" in pod "{pod["metadata"]["name"]}"'
    if previous:
        last = worker.last if worker else None
        if last is None:
            raise bad_request(f"previous terminated {who} not found")
        return last
    found = (worker.current or worker.last) if worker else None
    if found is None:
        reason = worker.waiting[0] if worker and worker.waiting else "ContainerCreating"
        words = {
            "ErrImagePull": "image can't be pulled",
            "ImagePullBackOff": "trying and failing to pull image",
            "CreateContainerConfigError": "CreateContainerConfigError",
        }.get(reason, reason)
        raise bad_request(f"{who} is waiting to start: {words}")
    return found


def _query(pod: str, request: web.Request) -> LogQuery:
    numbers = {name: _number(request, name) for name in ("tailLines", "limitBytes", "sinceSeconds")}
    since_time = request.query.get("sinceTime")
    causes = [
        Cause(name, "FieldValueInvalid", f"Invalid value: {value}: must be greater than {low - 1}")
        for name, low in (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1))
        if (value := numbers[name]) is not None and value < low
    ]
    if since_time is not None and numbers["sinceSeconds"] is not None:
        causes.append(
            Cause("", "FieldValueForbidden", "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified")
        )
    if causes:
        raise invalid(_OPTIONS, pod, causes)
    return LogQuery(
        follow=_flag(request, "follow"),
        timestamps=_flag(request, "timestamps"),
        tail=numbers["tailLines"],
        since=_since(since_time, numbers["sinceSeconds"]),
        limit_bytes=numbers["limitBytes"],
    )


def _since(text: str | None, seconds: int | None) -> int | None:
    if seconds is not None:
        return int((datetime.now(UTC).timestamp() - seconds) * 1e9)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise bad_request(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse') from error
    if moment.tzinfo is None:
        raise bad_request(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00"')
    # The API keeps whole seconds of a metav1.Time.
    return int(moment.timestamp()) * 1_000_000_000


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    try:
        return None if text is None else int(text)
    except ValueError as error:
        raise StatusError(400, "BadRequest", f'strconv.ParseInt: parsing "{text}": invalid syntax') from error


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true")
