"""/api/v1/environments/{environment_id}/files/{path}: files of a workspace, streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from libs.common.errors import DevPocketError
from libs.common.http.auth import CurrentUser
from libs.common.http.problems import problem_response, request_id_of, responses
from libs.common.http.routing import CallerFirstRoute
from libs.common.security.principal import Principal
from services.terminal.api import conditions
from services.terminal.api.file_addresses import path_of, running
from services.terminal.api.file_models import DirectoryAnswer, StoredAnswer
from services.terminal.api.file_reading import BINARY, Reading
from services.terminal.api.state import TerminalState
from services.terminal.domain import Caller, Environment, SocketKind
from services.terminal.service.files import Stored, check_announced
from services.terminal.workspace.errors import (
    BadUploadError,
    DiskFullError,
    FileChangedError,
    FileTooLargeError,
    RangeError,
)
from services.terminal.workspace.paths import WorkspacePath

_STATUSES: dict[type[DevPocketError], int] = {
    FileChangedError: 412,
    FileTooLargeError: 413,
    RangeError: 416,
    DiskFullError: 507,
}
# Nobody is there to read it; the access log is.
_CLIENT_GONE = 499

_Archive = Annotated[Literal["tar.gz"] | None, Query(description="The whole directory, packed")]
_Limit = Annotated[int, Query(ge=1, le=1000, description="Entries of a directory on a page")]
_Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before")]

_FILE_HEADERS = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "ETag": "Changes whenever the file does",
        "Last-Modified": "Of a file",
        "Accept-Ranges": "bytes, for a file",
        "Link": 'The next page of a directory, rel="next"',
    }.items()
}
_CONTENT: dict[str, Any] = {BINARY: {"schema": {"type": "string", "format": "binary"}}}
_FOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file; of a directory a page of what is in it, or all of it packed",
        "model": DirectoryAnswer,
        "content": {**_CONTENT, "application/gzip": {"schema": {"type": "string", "format": "binary"}}},
        "headers": _FILE_HEADERS,
    },
    206: {"description": "The part of the file that was asked for", "content": _CONTENT},
    304: {"description": "The client has this very file"},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            BINARY: {"schema": {"type": "string", "format": "binary"}},
            "application/gzip": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_STORED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Replaced what was there", "model": StoredAnswer},
    201: {"description": "Made", "model": StoredAnswer},
}

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1/environments/{environment_id}", tags=["files"])


@router.get(
    "/files/{path:names}",
    summary="Read a file or a directory",
    response_class=Response,
    responses={**_FOUND, **responses(401, 403, 404, 409, 416)},
)
async def read_file(  # noqa: PLR0917 - FastAPI passes arguments by name
    environment_id: str,
    path: str,
    user: CurrentUser,
    request: Request,
    archive: _Archive = None,
    limit: _Limit = 200,
    cursor: _Cursor = None,
) -> Response:
    """For any user, in an environment of their own that runs; any API key will do. `path` is below /workspace.

    A file comes as it is, with `Range` in part, so that a broken download can be resumed (with `If-Range`). A directory
    comes as a page of its entries, or with `archive=tar.gz` as a whole.
    """
    reading = Reading(request, environment_id, archive is not None, limit, cursor)
    return await _answered(request, partial(reading.answer, user))


@router.head("/files/{path:names}", include_in_schema=False)
async def look_at_file(environment_id: str, path: str, user: CurrentUser, request: Request) -> Response:
    """As GET, without the content."""
    reading = Reading(request, environment_id, False, 1, None)
    return await _answered(request, partial(reading.answer, user))


@router.get(
    "/files",
    summary="Read the workspace's top directory",
    response_class=Response,
    responses={**_FOUND, **responses(401, 403, 404, 409)},
)
async def read_workspace(  # noqa: PLR0917 - FastAPI passes arguments by name
    environment_id: str,
    user: CurrentUser,
    request: Request,
    archive: _Archive = None,
    limit: _Limit = 200,
    cursor: _Cursor = None,
) -> Response:
    """As for any other directory: a page of its entries, or with `archive=tar.gz` all of it."""
    reading = Reading(request, environment_id, archive is not None, limit, cursor)
    return await _answered(request, partial(reading.answer, user))


@router.head("/files", include_in_schema=False)
async def look_at_workspace(environment_id: str, user: CurrentUser, request: Request) -> Response:
    """As GET, without the content."""
    reading = Reading(request, environment_id, False, 1, None)
    return await _answered(request, partial(reading.answer, user))


@router.put(
    "/files/{path:names}",
    summary="Store a file, or unpack an archive",
    openapi_extra=_BODY,
    response_class=Response,
    responses={**_STORED, **responses(401, 403, 404, 409, 412, 507)},
)
async def store_file(
    environment_id: str, path: str, user: CurrentUser, request: Request, archive: _Archive = None
) -> Response:
    """For any user, in an environment of their own that runs; an API key needs the scope `terminal`.

    The file appears when all of it has arrived, never in part; directories on the way are made. `If-Match` and
    `If-None-Match: *` are heeded. With `archive=tar.gz` the body is unpacked into the directory: what it holds replaces
    what has the same name, and nothing else is touched. How large it may be is a matter of the plan.
    """
    return await _answered(request, partial(_store, request, environment_id, user, archive is not None))


@router.put(
    "/files",
    summary="Unpack an archive into the workspace's top directory",
    openapi_extra=_BODY,
    response_class=Response,
    responses={**_STORED, **responses(401, 403, 404, 409, 507)},
)
async def store_workspace(
    environment_id: str, user: CurrentUser, request: Request, archive: _Archive = None
) -> Response:
    """As for any other directory; only with `archive=tar.gz`."""
    return await _answered(request, partial(_store, request, environment_id, user, archive is not None))


@router.delete(
    "/files/{path:names}",
    status_code=204,
    summary="Delete a file or a directory",
    response_class=Response,
    responses=responses(401, 403, 404, 409),
)
async def delete_file(
    environment_id: str, path: str, user: CurrentUser, request: Request, recursive: bool = False
) -> Response:
    """For any user, in an environment of their own that runs; an API key needs the scope `terminal`.

    A directory with something in it needs `recursive=true`. Of a link, the link goes and not what it leads to.
    """
    return await _answered(request, partial(_delete, request, environment_id, user, recursive))


async def _answered(request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
    """The answer, or a problem with a status of its own."""
    try:
        return await answer()
    except tuple(_STATUSES) as error:
        return problem_response(
            _STATUSES[type(error)], error.code, error.message, request_id=request_id_of(request), headers=error.headers
        )
    except ClientDisconnect:
        return Response(status_code=_CLIENT_GONE)


async def _store(request: Request, environment_id: str, user: Principal, packed: bool) -> Response:
    caller = Caller.of(user, SocketKind.TERMINAL)
    path = path_of(request)
    if "content-range" in request.headers:
        raise BadUploadError("Content-Range cannot be stored: a file is sent as a whole")
    if path.is_root and not packed:
        raise BadUploadError("Only an archive can be stored here: add archive=tar.gz, or the name of a file")
    announced = request.headers.get("content-length", "")
    check_announced(caller, int(announced) if announced.isdigit() else None)
    state, environment = await running(request, caller, environment_id)
    stored = await _sent(state, caller, environment, path, request, packed=packed)
    answer = StoredAnswer.of(stored, path).model_dump(mode="json")
    return JSONResponse(answer, 201 if stored.is_new else 200, headers={"ETag": stored.attributes.etag})


async def _sent(
    state: TerminalState,
    caller: Caller,
    environment: Environment,
    path: WorkspacePath,
    request: Request,
    *,
    packed: bool,
) -> Stored:
    body: AsyncIterator[bytes] = request.stream()
    if packed:
        return await state.files.unpack(caller, environment, path, body)
    wants = partial(conditions.check_target, request.headers) if conditions.is_conditional(request.headers) else None
    return await state.files.store(caller, environment, path, body, wants=wants)


async def _delete(request: Request, environment_id: str, user: Principal, recursive: bool) -> Response:
    caller = Caller.of(user, SocketKind.TERMINAL)
    path = path_of(request)
    state, environment = await running(request, caller, environment_id)
    await state.files.delete(caller, environment, path, recursive=recursive)
    return Response(status_code=204)
