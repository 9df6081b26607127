"""Answering with what is at an address: a file, a part of it, a page of a directory, or all of it packed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from email.utils import format_datetime
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from libs.common.security.principal import Principal
from services.terminal.api import conditions
from services.terminal.api.downloads import Download
from services.terminal.api.file_addresses import path_of, running
from services.terminal.api.file_models import DirectoryAnswer, decode_cursor
from services.terminal.domain import Caller, SocketKind
from services.terminal.service.files import Found
from services.terminal.workspace.errors import NotDirectoryError
from services.terminal.workspace.paths import WorkspacePath

BINARY = "application/octet-stream"
"""The type of every file: what it is, its owner knows."""


class Reading:
    """One GET or HEAD."""

    def __init__(self, request: Request, environment_id: str, packed: bool, limit: int, cursor: str | None) -> None:
        self._request = request
        self._environment_id = environment_id
        self._packed = packed
        self._limit = limit
        self._cursor = cursor
        self._is_head = request.method == "HEAD"

    async def answer(self, user: Principal) -> Response:
        """Whatever is there."""
        caller = Caller.of(user, SocketKind.LOGS)
        path, after = path_of(self._request), decode_cursor(self._cursor)
        state, environment = await running(self._request, caller, self._environment_id)
        async with AsyncExitStack() as held:
            found = await held.enter_async_context(state.files.found(caller, environment, path))
            if self._packed:
                return self._archive(found, path, held)
            if found.is_directory:
                return await self._directory(found, path, after)
            return self._file(found, path, held)

    def _archive(self, found: Found, path: WorkspacePath, held: AsyncExitStack) -> Response:
        if not found.is_directory:
            raise NotDirectoryError
        name = path.names[-1] if path.names else b"workspace"
        headers = {"Content-Type": "application/gzip", "Content-Disposition": _attachment(name + b".tar.gz")}
        return _download(found, found.archive(), held, status=200, headers=headers)

    async def _directory(self, found: Found, path: WorkspacePath, after: bytes | None) -> Response:
        if self._is_head:
            return Response(media_type="application/json")
        page = DirectoryAnswer.of(await found.list(after, self._limit), path)
        headers = {}
        if page.next_cursor is not None:
            query = urlencode({"limit": self._limit, "cursor": page.next_cursor})
            address = f"/api/v1/environments/{quote(self._environment_id)}/files/{path.url}".rstrip("/")
            headers["Link"] = f'<{address}?{query}>; rel="next"'
        return JSONResponse(page.model_dump(mode="json"), headers=headers)

    def _file(self, found: Found, path: WorkspacePath, held: AsyncExitStack) -> Response:
        asked, attributes = self._request.headers, found.attributes
        headers = {
            "Content-Type": BINARY,
            "ETag": attributes.etag,
            "Last-Modified": format_datetime(attributes.modified, usegmt=True),
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache",
            "Content-Disposition": _attachment(path.names[-1]),
        }
        if conditions.is_known(asked, attributes):
            return Response(status_code=304, headers=headers)
        part = conditions.wanted_part(asked, attributes)
        start, length = (0, attributes.size) if part is None else (part.start, part.length)
        headers["Content-Length"] = str(length)
        if part is not None:
            headers["Content-Range"] = part.content_range
        status = 200 if part is None else 206
        if self._is_head:
            return Response(status_code=status, headers=headers)
        return _download(found, found.content(start, length), held, status=status, headers=headers)


def _download(
    found: Found, pieces: AsyncGenerator[bytes], held: AsyncExitStack, *, status: int, headers: dict[str, str]
) -> Download:
    return Download(pieces, held.pop_all(), taken_away=found.taken_away(), status=status, headers=headers)


def _attachment(name: bytes) -> str:
    return f"attachment; filename*=UTF-8''{quote(name.decode('utf-8', 'replace'), safe='')}"
