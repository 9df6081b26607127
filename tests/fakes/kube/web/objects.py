"""GET, POST, PUT, PATCH and DELETE on objects, and WATCH."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from contextlib import aclosing
from typing import Any

from aiohttp import web

from tests.fakes.kube.errors import StatusError, bad_request, expired
from tests.fakes.kube.listing import list_objects, matcher, parse_version
from tests.fakes.kube.patches import APPLY
from tests.fakes.kube.resources import PODS
from tests.fakes.kube.schema import Decoded, decode
from tests.fakes.kube.watching import WatchOptions, watch
from tests.fakes.kube.web.context import Context, Target

Obj = dict[str, Any]
_MAX_BODY = 3 * 1024 * 1024


async def read(context: Context, request: web.Request, target: Target) -> web.StreamResponse:
    """GET of one object, a list or a watch."""
    if target.name:
        return web.json_response(context.api.get(target.resource, target.namespace or "", target.name))
    if wants_watch(request):
        return await _watch(context, request, target)
    return web.json_response(list_objects(context.store, target.resource, target.namespace, request.query))


def wants_watch(request: web.Request) -> bool:
    """Whether a list request is a watch."""
    return request.query.get("watch", "").lower() in ("1", "true")


async def create(context: Context, request: web.Request, target: Target) -> web.Response:
    """POST."""
    decoded = await _body(request, target)
    obj = context.api.create(target.resource, target.namespace or "", decoded.obj, dry_run=_dry_run(request))
    return web.json_response(obj, status=201, headers=_warnings(request, decoded))


async def update(context: Context, request: web.Request, target: Target) -> web.Response:
    """PUT."""
    decoded = await _body(request, target)
    obj = context.api.update(
        target.resource,
        target.namespace or "",
        target.name,
        decoded.obj,
        subresource=target.subresource,
        dry_run=_dry_run(request),
    )
    return web.json_response(obj, headers=_warnings(request, decoded))


async def patch(context: Context, request: web.Request, target: Target) -> web.Response:
    """PATCH."""
    body = await request.read()
    shape = request.content_type
    try:
        content = json.loads(body)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from error
    if shape == APPLY and not request.query.get("fieldManager"):
        raise bad_request(
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        )
    existed = context.store.get(target.resource, target.namespace or "", target.name) is not None
    obj = context.api.patch(
        target.resource,
        target.namespace or "",
        target.name,
        shape,
        content,
        subresource=target.subresource,
        dry_run=_dry_run(request),
        validation=request.query.get("fieldValidation", "Warn"),
    )
    return web.json_response(obj, status=200 if existed else 201)


async def delete(context: Context, request: web.Request, target: Target) -> web.Response:
    """DELETE of one object or of a list."""
    options = await _delete_options(request)
    namespace = target.namespace or ""
    if target.name:
        return web.json_response(
            context.api.delete(target.resource, namespace, target.name, options, dry_run=_dry_run(request))
        )
    matches = matcher(target.resource, request.query)
    found = [obj for obj in context.store.list(target.resource, target.namespace) if matches(obj)]
    for obj in found:
        context.api.delete(target.resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], options)
    listed = {"kind": f"{target.resource.kind}List", "apiVersion": target.resource.api_version}
    return web.json_response({**listed, "metadata": {"resourceVersion": str(context.store.version)}, "items": found})


async def evict(context: Context, request: web.Request, target: Target) -> web.Response:
    """POST pods/eviction: a deletion without disruption budgets."""
    assert target.resource is PODS
    await request.read()
    context.api.delete(PODS, target.namespace or "", target.name, {})
    return web.json_response(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, status=201
    )


async def _watch(context: Context, request: web.Request, target: Target) -> web.StreamResponse:
    version = parse_version(request.query.get("resourceVersion", ""))
    if context.gone_status and version and version < context.store.compacted:
        raise expired(f"too old resource version: {version} ({context.store.version})")
    matcher(target.resource, request.query)
    seconds = float(request.query.get("timeoutSeconds") or random.uniform(1800, 3600))
    options = WatchOptions(
        seconds=min(seconds, context.faults.watch_life() or seconds),
        bookmark_seconds=context.pace.bookmark,
        gone=bool(version) and context.faults.watch_is_gone(),
        thawed=context.until_thawed,
    )
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    # Whoever has seen that it is open is hung up on.
    epoch = context.watch_epoch
    await response.prepare(request)

    def dropped() -> bool:
        return context.stopping or context.watch_epoch != epoch

    events = watch(context.store, target.resource, target.namespace, request.query, options, dropped)
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        async with context.following(), aclosing(events):
            async for event in events:
                await response.write(json.dumps(event).encode() + b"\n")
        if context.watch_epoch == epoch:
            await response.write_eof()
        elif request.transport is not None:
            request.transport.abort()
    return response


async def _body(request: web.Request, target: Target) -> Decoded:
    if request.content_type not in ("application/json", "application/octet-stream", "*/*"):
        raise StatusError(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, "
            "application/yaml, application/vnd.kubernetes.protobuf",
        )
    body = await request.read()
    if len(body) > _MAX_BODY:
        raise StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {_MAX_BODY}")
    validation = request.query.get("fieldValidation", "Warn")
    if validation not in ("Strict", "Warn", "Ignore"):
        raise bad_request(f'fieldValidation: Unsupported value: "{validation}"')
    return decode(target.resource, body, validation)


def _warnings(request: web.Request, decoded: Decoded) -> list[tuple[str, str]]:
    if request.query.get("fieldValidation", "Warn") != "Warn":
        return []
    return [("Warning", f'299 - "{problem}"'.replace('"', '\\"')) for problem in decoded.problems]


def _dry_run(request: web.Request) -> bool:
    wanted = request.query.get("dryRun")
    if wanted not in (None, "", "All"):
        raise bad_request(f'Invalid value: "{wanted}": dryRun: Unsupported value: supported values: "All"')
    return wanted == "All"


async def _delete_options(request: web.Request) -> Obj:
    body = await request.read()
    options: Obj = json.loads(body) if body.strip() not in (b"", b"null") else {}
    if "gracePeriodSeconds" in request.query:
        options.setdefault("gracePeriodSeconds", int(request.query["gracePeriodSeconds"]))
    policy = options.get("propagationPolicy", request.query.get("propagationPolicy"))
    if policy not in (None, "Foreground", "Background", "Orphan"):
        raise bad_request(f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "{policy}"')
    return options
