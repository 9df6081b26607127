"""Any other WebSocket path: 404, where the framework would say 403 without a word."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.websockets import WebSocket

from libs.common.errors import DevPocketError, ErrorKind
from services.terminal.api.handshake import RefusedError, refusing

router = APIRouter()


class NoSuchPathError(DevPocketError):
    """Nothing answers at this path."""

    kind = ErrorKind.NOT_FOUND
    code = "not_found"

    def __init__(self) -> None:
        super().__init__("There is no WebSocket at this path; see /api/v1/ws/terminal/ and /api/v1/ws/logs/")


@router.websocket("/{path:path}")
async def nowhere(websocket: WebSocket) -> None:
    """Public: says no to everybody. Must be the last route."""
    try:
        async with refusing(websocket):
            raise NoSuchPathError
    except RefusedError:
        return
