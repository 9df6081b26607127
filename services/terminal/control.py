"""Asking the replica that owns a session about it: `term.<session>.control` on core NATS, JSON both ways.

Every replica hears every request, and the one that is named as owner answers, also that it holds the session no more.
One subscription for each replica costs less than one for each of thousands of idle sessions. Only the services can
reach the bus; whose session it is was checked before anybody asks.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from libs.common.messaging.broker import Bus
from libs.common.telemetry import continued_trace, trace_headers
from libs.runtime.port import TerminalSize
from services.terminal.domain import OwnerSilentError
from services.terminal.ports import LiveSession, OpenedSession
from services.terminal.service.sessions import Sessions

log = structlog.get_logger(__name__)


class NatsControl:
    """Sessions of other replicas. `answer_seconds` bounds each call."""

    def __init__(self, bus: Bus, *, answer_seconds: float) -> None:
        self._bus = bus
        self._answer_seconds = answer_seconds

    async def describe(self, session: OpenedSession) -> LiveSession | None:
        """None when its owner holds it no more. Raises OwnerSilentError."""
        live = (await self._ask(session, "describe")).get("live")
        return None if live is None else _live(live)

    async def attach(self, session_id: str, owner: str, request: dict[str, Any]) -> dict[str, Any]:
        """Ask for the other end of a bridge; the answer is the owner's. Raises OwnerSilentError."""
        return await self._ask_owner(session_id, owner, "attach", request=request)

    async def close(self, session: OpenedSession) -> bool:
        """End the shell; False when its owner holds it no more. Raises OwnerSilentError."""
        return bool((await self._ask(session, "close"))["found"])

    async def _ask(self, session: OpenedSession, what: str) -> dict[str, Any]:
        return await self._ask_owner(session.id, session.owner, what)

    async def _ask_owner(self, session_id: str, owner: str, what: str, **more: Any) -> dict[str, Any]:
        if not self._bus.connected:
            raise OwnerSilentError
        question = json.dumps({"owner": owner, "do": what, **more}).encode()
        try:
            message = await self._bus.client.request(
                _subject(session_id), question, timeout=self._answer_seconds, headers=trace_headers()
            )
        except (NatsError, TimeoutError) as error:
            log.warning("owner does not answer", session_id=session_id, owner=owner, error=repr(error))
            raise OwnerSilentError from error
        answer: dict[str, Any] = json.loads(message.data)
        return answer


Attach = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


async def answer_others(bus: Bus, sessions: Sessions, replica_id: str, attach: Attach) -> None:
    """Answer the other replicas about sessions of this one; `attach` begins a bridge to one.

    Call after the bus has started.
    """

    async def on_request(message: Msg) -> None:
        question = json.loads(message.data)
        if question["owner"] != replica_id:
            return
        with continued_trace(f"session.{question['do']}", message.headers or {}):
            answer = await _answer(message.subject.split(".")[1], question)
            await message.respond(json.dumps(answer).encode())

    async def _answer(session_id: str, question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "close":
            return {"found": sessions.close(session_id)}
        if question["do"] == "attach":
            return await attach(session_id, question["request"])
        live = sessions.describe(session_id)
        return {"live": None if live is None else _fields(live)}

    await bus.client.subscribe(_subject("*"), cb=on_request)


def _subject(session_id: str) -> str:
    return f"term.{session_id}.control"


def _fields(live: LiveSession) -> dict[str, Any]:
    return {
        "connections": live.connections,
        "offset": live.offset,
        "last_active_at": live.last_active_at.isoformat(),
        "cols": live.size.cols,
        "rows": live.size.rows,
    }


def _live(fields: dict[str, Any]) -> LiveSession:
    return LiveSession(
        connections=fields["connections"],
        offset=fields["offset"],
        last_active_at=datetime.fromisoformat(fields["last_active_at"]),
        size=TerminalSize(fields["cols"], fields["rows"]),
    )
