"""The story of one environment, and live events of all that the caller may see."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import StreamingResponse

from libs.common.clock import utc_now
from libs.common.http.auth import CurrentUser
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.envs.api.collaborators import Environments, History, Live
from services.envs.api.cursors import SEQUENCE, decode_cursor, encode_cursor
from services.envs.ports import Gap, LiveStream, StoredEvent, StreamClosedError
from services.envs.schemas import EnvironmentEvent, EventsResponse

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1", tags=["events"], responses=responses(401))

# Proxies cut a silent connection after 60 s, phone networks sooner.
HEARTBEAT_S = 15.0
_RECONNECT_MS = 2_000
_SSE_HEADERS = {
    "Cache-Control": "no-store",
    # nginx would keep events in its buffer.
    "X-Accel-Buffering": "no",
}


@router.get("/environments/{environment_id}/events", summary="An environment's story", responses=responses(404))
async def list_environment_events(  # noqa: PLR0917 - FastAPI passes arguments by name
    user: CurrentUser,
    environments: Environments,
    history: History,
    environment_id: Annotated[str, Path(max_length=64)],
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
) -> EventsResponse:
    """Every event about it, from all services, oldest first."""
    environment = await environments.get(user, environment_id)
    after = int(decode_cursor(cursor, SEQUENCE) or 0)
    page = await history.page(environment.id, after=after, limit=limit)
    return EventsResponse(
        events=[EnvironmentEvent(**event.body) for event in page.events],
        next_cursor=encode_cursor(str(page.next_after)) if page.next_after is not None else None,
    )


@router.get(
    "/events",
    summary="Live events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def stream_events(
    user: CurrentUser,
    live: Live,
    last_event_id: Annotated[str | None, Header(description="Go on after this event")] = None,
) -> StreamingResponse:
    """Server-Sent Events about your environments (an admin: about all).

    `id` is the place in the stream, `event` the type, `data` the same JSON as in an environment's story.
    With `Last-Event-ID` exactly what came since follows. An event named `gap` says that some were missed that can no
    longer be delivered: load the environments again.
    """
    after = int(last_event_id) if last_event_id and SEQUENCE.fullmatch(last_event_id) else None
    stream = await live.open(user_id=user.user_id, session_id=user.session_id, sees_all=user.is_admin, after=after)
    return StreamingResponse(frames(stream, user.expires_at), media_type="text/event-stream", headers=_SSE_HEADERS)


async def frames(stream: LiveStream, until: datetime) -> AsyncIterator[str]:
    """The stream as text, with a sign of life where nothing happens. Ends with the token: a client needs a new one."""
    try:
        yield f"retry: {_RECONNECT_MS}\n\n"
        while (left_s := (until - utc_now()).total_seconds()) > 0:
            item = await stream.next(min(HEARTBEAT_S, left_s))
            yield ": still here\n\n" if item is None else _frame(item)
    except StreamClosedError:
        return
    finally:
        stream.close()


def _frame(item: StoredEvent | Gap) -> str:
    if isinstance(item, Gap):
        data = json.dumps({"data": {"seen": item.seen, "resumes_after": item.resumes_after}})
        return f"id: {item.resumes_after}\nevent: gap\ndata: {data}\n\n"
    # JSON has no bare line breaks, so an event is one data line.
    return f"id: {item.sequence}\nevent: {item.type}\ndata: {json.dumps(item.body, separators=(',', ':'))}\n\n"
