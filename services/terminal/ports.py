"""What the terminal service needs from outside. Workspaces come from `libs.runtime.port.ExecRuntime`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from libs.common.contracts.events import EventData
from libs.runtime.port import TerminalSize
from services.terminal.domain import Caller, CloseReason, Closing, Cluster, Environment, SocketKind, User
from services.terminal.protocol import Frame


class ChannelClosedError(Exception):
    """The client is gone."""


class Channel(Protocol):
    """The sending half of one WebSocket."""

    async def send(self, frame: Frame) -> None:
        """Waits while the client takes nothing. Raises ChannelClosedError."""
        ...

    def send_now(self, frame: Frame) -> bool:
        """Sends without waiting; False, and nothing is sent, when only `send` can."""
        ...

    async def close(self, socket_code: int, reason: str) -> None:
        """Send the close frame. Raises ChannelClosedError."""
        ...


class Connection(Protocol):
    """One open WebSocket, as far as those who may have to close it are concerned."""

    caller: Caller
    environment_id: str

    def close(self, closing: Closing) -> None:
        """Ask for the end; returns at once, and the socket is given up within a second."""
        ...

    def stalled_for(self) -> float:
        """For how many seconds the client has not taken what is being sent; 0.0 when nothing waits."""
        ...


class Environments(Protocol):
    """The read model of environments."""

    async def find(self, environment_id: str) -> Environment | None:
        """None when no event told of it."""
        ...

    async def find_many(self, environment_ids: Iterable[str]) -> Mapping[str, Environment]:
        """Those that are known, by id."""
        ...

    async def apply(self, data: EventData) -> None:
        """Keep what an event tells; older versions than the one held are ignored, and so are other events."""
        ...


class Users(Protocol):
    """The read model of users and their API keys."""

    async def find_many(self, user_ids: Iterable[str]) -> Mapping[str, User]:
        """Those that are known, by id."""
        ...

    async def apply(self, data: EventData) -> None:
        """Keep what an event tells; older versions than the one held are ignored, and so are other events."""
        ...


class Clusters(Protocol):
    """The read model of registered clusters."""

    async def find(self, cluster_id: str) -> Cluster | None:
        """None when no event told of it."""
        ...

    async def active_ids(self) -> Sequence[str]:
        """Ids of the clusters that are neither draining nor removed."""
        ...

    async def apply(self, data: EventData) -> None:
        """Keep what an event tells; older versions than the one held are ignored, and so are other events."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A shell that was started. `owner` is the replica that serves it, `login_id` what it was opened with.

    `is_held`: it outlives its owner, so another replica can take it over.
    """

    id: str
    environment_id: str
    user_id: str
    owner: str
    opened_at: datetime
    login_id: str = ""
    generation: int = 0
    is_held: bool = False
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class LiveSession:
    """What only the owner of a session knows: how many are connected now, and how many bytes it has put out."""

    connections: int
    offset: int
    last_active_at: datetime
    size: TerminalSize


@dataclass(frozen=True, slots=True)
class Shell:
    """An open session as its user sees it; `live` is None when its owner does not answer."""

    session: OpenedSession
    live: LiveSession | None

    @property
    def is_attachable(self) -> bool:
        """Whether somebody can connect to it now."""
        return self.live is not None or self.session.is_held


@dataclass(frozen=True, slots=True)
class ClosedSession:
    """How a session ended; `exit_code` is None when the shell was ended from our side."""

    id: str
    environment_id: str
    user_id: str
    reason: CloseReason
    exit_code: int | None
    output_bytes: int


class SessionStore(Protocol):
    """Sessions of all replicas, with the events about them in the same writes."""

    async def opened(self, session: OpenedSession) -> None:
        """Store it with its session_opened event."""
        ...

    async def closed(self, session: ClosedSession) -> None:
        """Close it with its session_closed event, once: nothing happens when it is closed already."""
        ...

    async def find(self, session_id: str) -> OpenedSession | None:
        """Also one that is closed, for some days."""
        ...

    async def claim(self, session: OpenedSession, owner: str) -> OpenedSession | None:
        """Make this replica its owner; None when it is closed, or not its last owner's any more."""
        ...

    async def open_of(self, user_id: str, environment_id: str | None) -> Sequence[OpenedSession]:
        """This user's open sessions, the newest first, at most 500; in this environment, if one is given."""
        ...

    async def living(self) -> AbstractSet[str]:
        """The owners that had a heartbeat not too long ago."""
        ...

    async def told(self, session_id: str) -> None:
        """The bus has its session_closed event, so nothing of it waits to be published."""
        ...

    async def forget(self, user_id: str) -> None:
        """Delete this user's sessions that `told` was called for."""
        ...

    async def publish(self, session_ids: Iterable[str]) -> None:
        """Take pending events of these sessions to the bus now, as far as it can be reached."""
        ...

    async def heartbeat(self, owner: str) -> None:
        """This replica lives."""
        ...

    async def retire(self, owner: str) -> None:
        """This replica is about to end and holds nothing any more."""
        ...

    async def lost(self, limit: int) -> Sequence[OpenedSession]:
        """Open sessions whose owners have had no heartbeat for too long."""
        ...


class SessionControl(Protocol):
    """Sessions of other replicas, by asking these. Each call is bounded in time and raises OwnerSilentError."""

    async def describe(self, session: OpenedSession) -> LiveSession | None:
        """None when its owner holds it no more."""
        ...

    async def close(self, session: OpenedSession) -> bool:
        """End the shell; False when its owner holds it no more."""
        ...


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket allows, once."""

    caller: Caller
    environment_id: str
    kind: SocketKind


class TicketStore(Protocol):
    """Short-lived single-use tickets."""

    async def put(self, key: str, ticket: Ticket, life_seconds: int) -> None:
        """Raises UnavailableError."""
        ...

    async def take(self, key: str) -> Ticket | None:
        """The ticket, to exactly one asker. Raises UnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class Grant:
    """What a preview's cookie allows, at most until then."""

    caller: Caller
    environment_id: str
    until: datetime


class GrantStore(Protocol):
    """Grants by the hashes of their secrets. All raise UnavailableError."""

    async def put(self, key: str, grant: Grant, idle_seconds: int) -> None:
        """It goes by itself when it is not looked for for so long."""
        ...

    async def find(self, key: str, idle_seconds: int) -> Grant | None:
        """The grant; from now it has so long again."""
        ...

    async def drop(self, key: str) -> None:
        """Fine when there is none."""
        ...


class ConnectionSlots(Protocol):
    """Counts the connections of each user over all replicas."""

    async def take(self, caller: Caller, connection_id: str) -> None:
        """Raises TooManyConnectionsError."""
        ...

    async def release(self, user_id: str, connection_id: str) -> None:
        """Give it back."""
        ...

    async def refresh(self) -> None:
        """Keep the slots that this process holds from expiring."""
        ...


class Allowance(Protocol):
    """Counts the messages of each user over all replicas."""

    async def draw(self, user_id: str, wanted: int, per_second: int, capacity: int) -> int | None:
        """Up to `wanted` messages, of `per_second` on average and `capacity` at once; None when it cannot be asked."""
        ...
