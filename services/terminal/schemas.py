"""What the HTTP and WebSocket routes take and give."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from services.terminal.domain import Mode, SocketKind
from services.terminal.logs.position import POSITION_PATTERN
from services.terminal.ports import Shell

_LARGEST_OFFSET = 2**53 - 1

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_Side = Annotated[int, Field(ge=1, le=65535)]


def _plus_for_space(value: object) -> object:
    """A `+` that was not escaped in a URL arrives as a space; in a time stamp it can only be the offset's sign."""
    return re.sub(r" (?=\d\d:?\d\d$)", "+", value) if isinstance(value, str) else value


class PortAnswer(BaseModel):
    """A port that programs listen at."""

    port: int
    address: str = Field(description="Where its program listens: loopback, or any (0.0.0.0, ::)")
    url: str = Field(description="Where it can be looked at")


class TicketRequest(BaseModel):
    """What the ticket is for."""

    model_config = ConfigDict(extra="forbid")

    environment_id: Identifier
    kind: SocketKind = SocketKind.TERMINAL


class TicketAnswer(BaseModel):
    """`ticket` goes into the URL of a WebSocket or a preview within `expires_in` seconds, once."""

    ticket: str
    expires_in: int


class WindowSize(BaseModel):
    """In characters."""

    cols: int
    rows: int


class ShellAnswer(BaseModel):
    """An open shell. `connections`, `offset`, `last_active_at` and `size` are null when its machine does not answer."""

    id: str = Field(description="Goes into a terminal's WebSocket URL as `?session=`")
    environment_id: str
    opened_at: AwareDatetime
    connections: int | None = Field(description="How many are connected now")
    offset: int | None = Field(description="Bytes put out so far; as `&offset=` it skips what was shown before")
    last_active_at: AwareDatetime | None = Field(description="When something was last typed or put out")
    size: WindowSize | None
    attachable: bool = Field(description="Whether a terminal can be connected to it now")

    @classmethod
    def of(cls, shell: Shell) -> Self:
        """As the service knows it."""
        live = shell.live
        return cls(
            id=shell.session.id,
            environment_id=shell.session.environment_id,
            opened_at=shell.session.opened_at,
            connections=None if live is None else live.connections,
            offset=None if live is None else live.offset,
            last_active_at=None if live is None else live.last_active_at,
            size=None if live is None else WindowSize(cols=live.size.cols, rows=live.size.rows),
            attachable=shell.is_attachable,
        )


class MessageAnswer(BaseModel):
    """What was done, in a sentence."""

    message: str


class TerminalQuery(BaseModel):
    """The query of a terminal's WebSocket; what it does not know is ignored, credentials are read elsewhere."""

    model_config = ConfigDict(extra="ignore")

    cols: _Side | None = None
    rows: _Side | None = None
    session: Identifier | None = None
    offset: Annotated[int, Field(ge=0, le=_LARGEST_OFFSET)] | None = None
    mode: Mode = Mode.READ_WRITE
    client: Identifier | None = None


class LogsQuery(BaseModel):
    """The query of a log WebSocket. With `offset`, that of the last line seen, `tail` and `since` do not matter."""

    model_config = ConfigDict(extra="ignore")

    follow: bool = True
    tail: Annotated[int, Field(ge=0, le=10_000)] | None = None
    since: Annotated[AwareDatetime, BeforeValidator(_plus_for_space)] | None = None
    offset: Annotated[str, StringConstraints(pattern=POSITION_PATTERN)] | None = None
