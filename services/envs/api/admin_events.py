"""/api/v1/admin: the event stream for administrators, by the same code as `devpocket events`. Nothing secret leaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import StreamingResponse

from libs.common.errors import DevPocketError, ErrorKind, UnavailableError
from libs.common.history.dead_letters import DeadLetterQuery, DeadLetters, Redriven
from libs.common.history.ndjson import to_line
from libs.common.history.query import EventQuery, parse_time
from libs.common.history.recorded import Recorded
from libs.common.history.story import EventStream
from libs.common.http.auth import CurrentAdmin
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.envs.api.cursors import SEQUENCE, decode_cursor, encode_cursor
from services.envs.schemas.admin_events import (
    DeadLetterDetail,
    DeadLetterResponse,
    DeadLettersResponse,
    RecordedEvent,
    RecordedEventsResponse,
    RedriveResponse,
    StateResponse,
    TimelineResponse,
    TimelineStep,
)

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1/admin", tags=["admin"], responses=responses(401, 403))

_TIME = "30s, 10m, 2h, 7d (ago), or an ISO 8601 time"
_EXPORT_CHUNK_CHARS = 64 * 1024
_NDJSON = "application/x-ndjson"

log = structlog.get_logger(__name__)


async def _stream(request: Request) -> EventStream:
    return EventStream(request.app.state.jetstream())


async def _letters(request: Request) -> DeadLetters:
    return DeadLetters(request.app.state.jetstream())


# Ids become a part of a subject, where dots and wildcards mean something else.
Token = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
EnvironmentId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
Type = Annotated[str | None, Query(max_length=100, description="A full type, or a part of it such as `created`")]
Since = Annotated[str | None, Query(max_length=64, description=f"Stored since then: {_TIME}")]
Limit = Annotated[int, Query(ge=1, le=500)]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before")]
Stream = Annotated[EventStream, Depends(_stream)]
Letters = Annotated[DeadLetters, Depends(_letters)]
Number = Annotated[int, Path(ge=1, lt=10**18)]


class RedriveFailedError(DevPocketError):
    """The service tried again, and could not; or the event is nowhere any more."""

    kind = ErrorKind.CONFLICT
    code = "redrive_failed"


class NoReplicaError(UnavailableError):
    """Nobody is there who could try."""

    code = "no_replica"


@router.get("/events", summary="Read the event stream")
async def list_events(  # noqa: PLR0917 - FastAPI passes arguments by name
    _: CurrentAdmin,
    stream: Stream,
    env: Token = None,
    type: Type = None,  # noqa: A002 - the name in the URL
    since: Since = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> RecordedEventsResponse:
    """Oldest first, of all services; environment variables are left out."""
    after = decode_cursor(cursor, SEQUENCE)
    page = await stream.page(
        EventQuery(env, type, parse_time(since) if since else None),
        after=None if after is None else int(after),
        limit=limit,
    )
    return RecordedEventsResponse(
        events=[RecordedEvent(**item.as_json()) for item in page.events],
        next_cursor=None if page.next_after is None else encode_cursor(str(page.next_after)),
    )


@router.get(
    "/events/export",
    summary="Export events",
    response_class=StreamingResponse,
    responses={200: {"content": {_NDJSON: {"schema": {"type": "string"}}}}},
)
async def export_events(_: CurrentAdmin, stream: Stream, env: Token = None, since: Since = None) -> StreamingResponse:
    """NDJSON for `devpocket events import`, one object per line, without environment variables.

    Only the command line exports those, for which one needs access to the stream itself.
    """
    items = stream.all(EventQuery(env, since=parse_time(since) if since else None))
    # What goes wrong at the start still becomes a proper answer.
    first = await anext(items, None)
    headers = {"Content-Disposition": 'attachment; filename="events.ndjson"', "Cache-Control": "no-store"}
    return StreamingResponse(_lines(first, items), media_type=_NDJSON, headers=headers)


async def _lines(first: Recorded | None, items: AsyncGenerator[Recorded]) -> AsyncIterator[str]:
    async with aclosing(items):
        if first is None:
            return
        chunk = to_line(first, hide_secrets=True) + "\n"
        async for item in items:
            chunk += to_line(item, hide_secrets=True) + "\n"
            if len(chunk) > _EXPORT_CHUNK_CHARS:
                yield chunk
                chunk = ""
        yield chunk


@router.get("/events/{sequence}", summary="Get an event", responses=responses(404))
async def get_event(_: CurrentAdmin, stream: Stream, sequence: Number) -> RecordedEvent:
    """By its place in this system's stream."""
    return RecordedEvent(**(await stream.at(sequence)).as_json())


@router.get("/environments/{environment_id}/timeline", summary="An environment's timeline", responses=responses(404))
async def get_timeline(
    _: CurrentAdmin, stream: Stream, environment_id: EnvironmentId, since: Since = None
) -> TimelineResponse:
    """Who, what, because of what, and how long since the step before. Also of an environment that is gone."""
    query = EventQuery(environment_id, since=parse_time(since) if since else None)
    steps = await stream.timeline(query)
    return TimelineResponse(environment_id=environment_id, steps=[TimelineStep(**step.as_json()) for step in steps])


@router.get("/environments/{environment_id}/state", summary="An environment's state then", responses=responses(404))
async def get_state(
    _: CurrentAdmin,
    stream: Stream,
    environment_id: EnvironmentId,
    at: Annotated[str | None, Query(max_length=64, description=f"As it was then: {_TIME}")] = None,
    seq: Annotated[int | None, Query(ge=1, description="As it was when this event had happened")] = None,
) -> StateResponse:
    """Folded from the events; what the services themselves keep may differ, which is then a finding."""
    state = await stream.state(environment_id, at=parse_time(at) if at else None, sequence=seq)
    return StateResponse(**state.as_json())


@router.get("/dead-letters", summary="List dead letters")
async def list_dead_letters(  # noqa: PLR0917 - FastAPI passes arguments by name
    _: CurrentAdmin,
    letters: Letters,
    service: Token = None,
    env: Token = None,
    type: Type = None,  # noqa: A002 - the name in the URL
    limit: Limit = 100,
    cursor: Cursor = None,
) -> DeadLettersResponse:
    """Oldest first: events that a consumer could not handle, and why."""
    after = decode_cursor(cursor, SEQUENCE)
    found: list[DeadLetterResponse] = []
    items = letters.find(DeadLetterQuery(service, env, type), after=None if after is None else int(after))
    async with aclosing(items):
        async for letter in items:
            if len(found) == limit:
                return DeadLettersResponse(dead_letters=found, next_cursor=encode_cursor(str(found[-1].id)))
            found.append(DeadLetterResponse(**letter.as_json()))
    return DeadLettersResponse(dead_letters=found, next_cursor=None)


@router.get("/dead-letters/{number}", summary="Get a dead letter", responses=responses(404))
async def get_dead_letter(_: CurrentAdmin, letters: Letters, number: Number) -> DeadLetterDetail:
    """With its headers and what it holds."""
    return DeadLetterDetail(**(await letters.get(number)).in_full())


@router.post("/dead-letters/{number}/redrive", summary="Try a dead letter again", responses=responses(404, 409))
async def redrive_dead_letter(admin: CurrentAdmin, letters: Letters, number: Number) -> RedriveResponse:
    """A replica of its service handles it now, and it is gone; 409 says why it could not, 503 that none is running."""
    outcome = await letters.redrive(await letters.get(number))
    log.info("redrive", dead_letter=number, outcome=outcome.code, admin_id=admin.user_id)
    if not outcome.handled:
        raise _failure(outcome)
    return RedriveResponse(id=number, handled=True)


def _failure(outcome: Redriven) -> DevPocketError:
    if outcome.code == "no_replica":
        return NoReplicaError(outcome.message)
    reason = f"{outcome.error_type}: {outcome.message}" if outcome.error_type else outcome.message
    return RedriveFailedError(f"The event was not handled, the dead letter stays: {reason}")
