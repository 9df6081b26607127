"""The HTTP server: who is it, may he, what goes wrong, who answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import web

from tests.fakes.kube.errors import StatusError, unknown_path
from tests.fakes.kube.faults import Fault
from tests.fakes.kube.node.volumes import Volumes
from tests.fakes.kube.resources import ACCESS_REVIEWS, NODES, POD_METRICS
from tests.fakes.kube.web import control, discovery, logs, objects, portforward, reviews, stats
from tests.fakes.kube.web import exec as execs
from tests.fakes.kube.web.context import Context, Target, check_verb, fault_error, parse_target, status_response

_DAY_S = 86400
_CHANGING = ("create", "update", "patch", "delete", "deletecollection")
_METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}


class Server:
    """Routes requests of one cluster."""

    def __init__(self, context: Context, volumes: Volumes, switches: object) -> None:
        self._context = context
        self._volumes = volumes
        self._switches = switches

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request, from its token to its answer; failures become a Status."""
        try:
            return await self._answer(request)
        except StatusError as error:
            return status_response(error)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path in ("/readyz", "/livez", "/healthz"):
            return web.Response(text="ok")
        user = self._context.access.user_of(request.headers.get("Authorization"))
        if request.path.startswith(control.PREFIX) and request.method == "POST":
            return await control.turn(self._context, self._switches, request)
        document = discovery.document(request.path, metrics=self._context.metrics)
        if document is not None:
            return web.json_response(document)
        target = parse_target(request.path)
        verb = self._verb(request, target)
        for each in self._verbs_to_check(request, target, verb):
            self._context.access.authorize(
                user, each, target.resource, target.subresource, self._where(target), target.name
            )
        check_verb(target, verb)
        return await self._with_faults(request, target, verb, user)

    async def _with_faults(self, request: web.Request, target: Target, verb: str, user: str) -> web.StreamResponse:
        faults = self._context.faults
        await asyncio.sleep(faults.delay())
        fault = faults.draw(verb, target.resource.plural, target.subresource)
        changes = verb in _CHANGING and not target.subresource
        if fault is Fault.RESET or (fault is Fault.LOST_ANSWER and not changes):
            return _cut(request)
        if fault is Fault.HANG:
            async with self._context.following():
                await asyncio.sleep(_DAY_S)
        if fault is not None and fault is not Fault.LOST_ANSWER:
            raise fault_error(fault)
        handler = self._handler(target, verb, user)
        if fault is Fault.LOST_ANSWER:
            with contextlib.suppress(StatusError):
                await handler(request)
            return _cut(request)
        return await handler(request)

    def _handler(self, target: Target, verb: str, user: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        context = self._context
        if target.subresource == "exec":
            return lambda request: execs.exec_pod(context, request, target)
        if target.subresource == "portforward":
            return lambda request: portforward.forward(context, request, target)
        if target.subresource == "log":
            return lambda request: logs.read_log(context, request, target)
        if target.subresource == "eviction":
            return lambda request: objects.evict(context, request, target)
        if target.resource is NODES and target.subresource == "proxy":
            return lambda request: stats.node_proxy(context, self._volumes, target)
        if target.resource is POD_METRICS:
            return lambda request: stats.metrics(context, request, target)
        if target.resource is ACCESS_REVIEWS:
            return lambda request: reviews.review(context, request, user)
        handler = {
            "create": objects.create,
            "update": objects.update,
            "patch": objects.patch,
            "delete": objects.delete,
            "deletecollection": objects.delete,
        }.get(verb, objects.read)
        return lambda request: handler(context, request, target)

    @staticmethod
    def _verb(request: web.Request, target: Target) -> str:
        verb = _METHODS.get(request.method)
        if verb is None:
            raise unknown_path()
        if verb == "get" and not target.name:
            return "watch" if objects.wants_watch(request) else "list"
        if verb == "delete" and not target.name:
            return "deletecollection"
        if verb == "create" and target.name and not target.subresource:
            raise StatusError(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource", details={}
            )
        return verb

    @staticmethod
    def _verbs_to_check(request: web.Request, target: Target, verb: str) -> list[str]:
        """A WebSocket upgrade is a GET, and needs `create` as well, as a POST would."""
        return [verb, "create"] if target.subresource in ("exec", "portforward") and verb == "get" else [verb]

    @staticmethod
    def _where(target: Target) -> str | None:
        if target.resource.plural == "namespaces" and target.name:
            return None
        return target.namespace


def _cut(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
