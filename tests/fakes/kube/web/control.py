"""POST /fake/<switch>: turns a switch of a cluster that runs as a process of its own. Not part of Kubernetes."""

from __future__ import annotations

import inspect
import json
from typing import Any

from aiohttp import web

from tests.fakes.kube.errors import bad_request, unknown_path
from tests.fakes.kube.faults import Fault, FaultPlan
from tests.fakes.kube.web.context import Context

PREFIX = "/fake/"
_SWITCHES = {
    *("add_image", "remove_image", "add_node", "resize_node", "lose_node", "restore_node", "evict", "oom_kill"),
    *("kill_main", "lose_volume", "stop_provisioning", "resume_provisioning", "pause_kubelet", "resume_kubelet"),
    *("pause_scheduler", "resume_scheduler", "drop_watches", "freeze", "thaw", "compact", "set_metrics"),
}


async def turn(context: Context, switches: object, request: web.Request) -> web.Response:
    """The body is an object of arguments; `faults` takes those of FaultPlan and answers what was injected so far."""
    name = request.path.removeprefix(PREFIX)
    body = await request.read()
    arguments: dict[str, Any] = json.loads(body) if body.strip() else {}
    if name == "faults":
        injected = dict(context.faults.injected)
        if "kinds" in arguments:
            arguments["kinds"] = [Fault(kind) for kind in arguments["kinds"]]
        context.faults = FaultPlan(**arguments)
        return web.json_response({"injected": injected})
    if name not in _SWITCHES:
        raise unknown_path()
    method = getattr(switches, name)
    try:
        inspect.signature(method).bind(**arguments)
    except TypeError as error:
        raise bad_request(f"{name}: {error}") from error
    method(**arguments)
    return web.json_response({})
