"""selfsubjectaccessreviews: may I?"""

from __future__ import annotations

import json

from aiohttp import web

from tests.fakes.kube.access import Call
from tests.fakes.kube.web.context import Context


async def review(context: Context, request: web.Request, user: str) -> web.Response:
    """Answers from the same rules that calls are checked with."""
    body = json.loads(await request.read())
    asked = body.get("spec", {}).get("resourceAttributes", {})
    call = Call(
        asked.get("verb", ""),
        asked.get("group", ""),
        asked.get("resource", ""),
        asked.get("subresource", ""),
        bool(asked.get("namespace")),
    )
    return web.json_response(
        {**body, "metadata": {}, "status": {"allowed": context.access.permits(user, call)}}, status=201
    )
