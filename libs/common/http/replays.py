"""`POST /api/v1/admin/replays/<service>`: what `devpocket events replay --diff` does, by the same code, over HTTP.

Every service offers it for itself, because only it may read its database.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from libs.common import mongo
from libs.common.errors import DevPocketError, ErrorKind, UnavailableError
from libs.common.history.reader import StreamReader
from libs.common.history.rebuilding import ReplayJob, ReplayPlan, ReplayReport, scratch_database
from libs.common.history.replay import TargetFactory
from libs.common.http.auth import CurrentAdmin
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from libs.common.ids import new_id
from libs.common.platform import Platform

# Below every proxy's patience with a silent answer.
_TELL_EVERY_S = 2.0
_NDJSON = "application/x-ndjson"

log = structlog.get_logger(__name__)


class ReplayRunningError(DevPocketError):
    """One replay at a time: it reads the whole stream and writes a database."""

    kind = ErrorKind.CONFLICT
    code = "replay_running"

    def __init__(self) -> None:
        super().__init__("A replay is running already; ask again when it has ended")


def replay_router(service: str, make: TargetFactory) -> APIRouter:
    """The route of one service."""
    router = APIRouter(
        route_class=CallerFirstRoute, prefix="/api/v1/admin/replays", tags=["admin"], responses=responses(401, 403)
    )
    running = asyncio.Lock()

    @router.post(
        f"/{service}",
        summary=f"Rebuild the read models of {service} and compare them with the live ones",
        operation_id=f"replay_{service}",
        response_class=StreamingResponse,
        responses={
            **responses(409, 503),
            200: {"content": {_NDJSON: {"schema": {"type": "string"}}}},
        },
    )
    async def replay(
        request: Request,
        admin: CurrentAdmin,
        environment: Annotated[
            str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,128}$", description="Only this environment's events")
        ] = None,
    ) -> StreamingResponse:
        """Into a scratch database that is dropped afterwards, without any effect outside.

        The answer is one JSON object per line: `{"done", "of"}` while it goes on, at the end `{"report"}` with every
        field that differs, or `{"error"}`.
        """
        if running.locked():
            raise ReplayRunningError
        platform: Platform = request.app.state.platform
        if not platform.bus.connected:
            raise UnavailableError("The event stream is not reachable right now, please try again in a moment")
        log.info("replay asked for", user_id=admin.user_id, environment_id=environment)
        # As short as it can be: names of databases are bounded.
        name = f"{platform.settings.database_name}_replay_{service[:4]}_{new_id()[-8:]}"
        plan = ReplayPlan(service, name, environment, diff=True)
        return StreamingResponse(_lines(platform, plan, make, running), media_type=_NDJSON)

    return router


async def _lines(
    platform: Platform, plan: ReplayPlan, make: TargetFactory, running: asyncio.Lock
) -> AsyncIterator[str]:
    async with running:
        progress: dict[str, Any] = {"done": 0, "of": 0}
        work = asyncio.create_task(_replayed(platform, plan, make, progress))
        try:
            while not (await asyncio.wait((work,), timeout=_TELL_EVERY_S))[0]:
                yield _line(progress)
            try:
                yield _line({"report": work.result().as_json()})
            except DevPocketError as error:
                yield _line({"error": {"code": error.code, "detail": error.message}})
            except mongo.UNAVAILABLE_ERRORS:
                yield _line({"error": {"code": "unavailable", "detail": "The database is not reachable right now"}})
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def _replayed(
    platform: Platform, plan: ReplayPlan, make: TargetFactory, progress: dict[str, Any]
) -> ReplayReport:
    def tell(done: int, total: int) -> None:
        progress.update(done=done, of=total)

    try:
        scratch = await scratch_database(platform.mongo, platform.settings, plan.into)
        reader = StreamReader(platform.bus.jetstream)
        job = ReplayJob(reader, plan, make, live=platform.database, scratch=scratch)
        return await job.run(tell)
    finally:
        await platform.mongo.drop_database(plan.into)


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"
