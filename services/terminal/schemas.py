"""What the HTTP and WebSocket routes take and give."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from services.terminal.domain import Mode, SocketKind

_LARGEST_OFFSET = 2**53 - 1

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_Side = Annotated[int, Field(ge=1, le=65535)]


def _plus_for_space(value: object) -> object:
    """A `+` that was not escaped in a URL arrives as a space; in a time stamp it can only be the offset's sign."""
    return re.sub(r" (?=\d\d:?\d\d$)", "+", value) if isinstance(value, str) else value


class TicketRequest(BaseModel):
    """Which WebSocket the ticket is for."""

    model_config = ConfigDict(extra="forbid")

    environment_id: Identifier
    kind: SocketKind = SocketKind.TERMINAL


class TicketAnswer(BaseModel):
    """`ticket` goes into the WebSocket URL within `expires_in` seconds, once."""

    ticket: str
    expires_in: int


class TerminalQuery(BaseModel):
    """The query of a terminal's WebSocket; what it does not know is ignored, credentials are read elsewhere."""

    model_config = ConfigDict(extra="ignore")

    cols: _Side | None = None
    rows: _Side | None = None
    session: Identifier | None = None
    offset: Annotated[int, Field(ge=0, le=_LARGEST_OFFSET)] | None = None
    mode: Mode = Mode.READ_WRITE


class LogsQuery(BaseModel):
    """The query of a log WebSocket."""

    model_config = ConfigDict(extra="ignore")

    follow: bool = True
    tail: Annotated[int, Field(ge=0, le=10_000)] | None = None
    since: Annotated[AwareDatetime, BeforeValidator(_plus_for_space)] | None = None
