"""Addresses of files: what they name, and where it is."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from fastapi import Request
from starlette.convertors import Convertor, register_url_convertor

from services.terminal.api.state import TerminalState, terminal_state
from services.terminal.domain import Caller, Environment
from services.terminal.workspace.paths import WorkspacePath

STREAMED = re.compile(r"/api/v1/environments/[^/]+/files(?:/.*)?", re.DOTALL)
"""Paths whose bodies are limited here, by plan, and not as those of JSON calls are."""


class _Names(Convertor[str]):
    """A path in which names may hold line breaks as well, which Starlette's own `path` does not match."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """As it is; what counts are the bytes of the URL."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("names", _Names())

# /api/v1/environments/{environment_id}/files/…
_SEGMENTS_BEFORE = 6


async def running(request: Request, caller: Caller, environment_id: str) -> tuple[TerminalState, Environment]:
    """The environment, which must be the caller's. Raises EnvironmentNotFoundError, EnvironmentNotRunningError."""
    state = terminal_state(request)
    return state, await state.access.to_running(caller, environment_id)


def path_of(request: Request) -> WorkspacePath:
    """From the bytes of the URL: file names need not be UTF-8. Raises BadPathError."""
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    segments = unquote_to_bytes(raw).split(b"/", _SEGMENTS_BEFORE)
    return WorkspacePath.parse(segments[_SEGMENTS_BEFORE] if len(segments) > _SEGMENTS_BEFORE else b"")
