"""What the terminal service knows: environments (a read model), shell sessions, why they end, what can go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from libs.common.contracts.clusters import DEFAULT_CLUSTER, ClusterHealth, ClusterStatus
from libs.common.contracts.environments import DesiredState, EnvironmentStatus
from libs.common.contracts.identity import Plan, Scope
from libs.common.errors import DevPocketError, ErrorKind, ForbiddenError, UnavailableError
from libs.common.security.principal import Principal
from libs.runtime.port import WorkspaceRef

# A shell cannot go on in these: its workspace is being taken down, or is gone. `error` is not among them, because a
# failed wish may leave the old workspace running; if it does not, the shell's stream ends by itself.
_ENDS_SHELLS = frozenset(
    {
        EnvironmentStatus.STOPPING,
        EnvironmentStatus.STOPPED,
        EnvironmentStatus.RESTARTING,
        EnvironmentStatus.TERMINATING,
        EnvironmentStatus.TERMINATED,
    }
)


class SocketKind(StrEnum):
    """What a connection, and the ticket for it, is for."""

    TERMINAL = "terminal"
    LOGS = "logs"
    PREVIEW = "preview"


# Whoever reaches an application's port can do with it what its user can.
_SCOPES = {
    SocketKind.TERMINAL: Scope.TERMINAL,
    SocketKind.LOGS: Scope.READ,
    SocketKind.PREVIEW: Scope.TERMINAL,
}


class Mode(StrEnum):
    """What a connection may do with its session: type, or only watch."""

    READ_WRITE = "rw"
    READ_ONLY = "ro"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opened a connection: what of a `Principal` matters once the handshake is done.

    `login_id` is the sign-in the token belongs to, or the API key in its owner's present epoch; when it is revoked,
    its connections close.
    """

    user_id: str
    login_id: str
    plan: Plan

    @classmethod
    def of(cls, principal: Principal, kind: SocketKind) -> Caller:
        """From a checked token or key, for a connection of this kind. Raises ForbiddenError."""
        scope = _SCOPES[kind]
        if not principal.may(scope):
            raise ForbiddenError(f"This API key lacks the scope '{scope}'")
        return cls(principal.user_id, principal.session_id, principal.plan)


@dataclass(frozen=True, slots=True)
class User:
    """A user as the events told it."""

    id: str
    is_active: bool
    is_deleted: bool

    @property
    def may_connect(self) -> bool:
        """Whether the user may have anything open."""
        return self.is_active and not self.is_deleted


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment as the events told it; `desired` or `status` is None until the first event with it was heard.

    `generation` is that of the newest wish heard of. It rises only with wishes that replace or stop the workspace.
    """

    id: str
    user_id: str
    generation: int
    desired: DesiredState | None = None
    status: EnvironmentStatus | None = None
    cluster: str = DEFAULT_CLUSTER

    @property
    def ref(self) -> WorkspaceRef:
        """How the runtime calls its workspace."""
        return WorkspaceRef(environment_id=self.id, user_id=self.user_id, cluster=self.cluster)

    @property
    def is_deleted(self) -> bool:
        """Gone for its owner, whatever is still being torn down."""
        return self.desired is DesiredState.DELETED or self.status in {
            EnvironmentStatus.TERMINATING,
            EnvironmentStatus.TERMINATED,
        }

    @property
    def is_running(self) -> bool:
        """Whether a shell can be started."""
        return self.status is EnvironmentStatus.RUNNING and self.desired in {DesiredState.RUNNING, None}

    @property
    def is_going_down(self) -> bool:
        """Whether what runs in it is being ended."""
        return self.ends_shell(self.generation)

    def ends_shell(self, generation: int) -> bool:
        """Whether a shell that was opened in `generation` must end."""
        return (
            self.generation > generation
            or self.desired in {DesiredState.STOPPED, DesiredState.DELETED}
            or self.status in _ENDS_SHELLS
        )


@dataclass(frozen=True, slots=True)
class Cluster:
    """A registered cluster as the events told it; `connection_sealed` is gone with the cluster."""

    id: str
    status: ClusterStatus
    health: ClusterHealth
    message: str | None
    connection_sealed: str | None


class CloseReason(StrEnum):
    """Why a session ended; the `reason` of its session_closed event."""

    EXIT = "exit"
    ENVIRONMENT_STOPPED = "environment_stopped"
    ENVIRONMENT_DELETED = "environment_deleted"
    IDLE = "idle"
    EVICTED = "evicted"
    CLOSED = "closed"
    REVOKED = "revoked"
    SHUTDOWN = "shutdown"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Closing:
    """How a WebSocket is closed from our side: an `error` frame with `code` and `message`, then `socket_code`.

    Socket codes: 1000 the shell has exited, 1001 this replica goes away (RFC 6455, 7.4.1); otherwise 4000 plus the
    HTTP status that a handshake would get now (4401, 4404, 4408, 4409).
    """

    socket_code: int
    code: str
    message: str


CLOSINGS: dict[CloseReason, Closing] = {
    CloseReason.ENVIRONMENT_STOPPED: Closing(4409, "environment_stopped", "The environment was stopped"),
    CloseReason.ENVIRONMENT_DELETED: Closing(4404, "environment_deleted", "The environment was deleted"),
    CloseReason.IDLE: Closing(4408, "session_idle", "The session was left alone for too long"),
    CloseReason.EVICTED: Closing(4408, "session_evicted", "Newer sessions took the place of this one"),
    CloseReason.CLOSED: Closing(4404, "session_closed", "This terminal session was closed, please open a new one"),
    CloseReason.REVOKED: Closing(4401, "session_revoked", "You were signed out, please sign in again"),
    CloseReason.SHUTDOWN: Closing(1001, "shutting_down", "The terminal service restarts, please connect again"),
    CloseReason.LOST: Closing(1011, "terminal_lost", "The connection to the shell was lost, please open a new one"),
}
MOVED = Closing(1001, "session_moved", "Your terminal is served from elsewhere now, please connect again")
STALLED = Closing(4408, "client_stalled", "The connection took no data for too long, please connect again")
TOO_LARGE = Closing(1009, "message_too_large", "The message is larger than allowed")


class EnvironmentNotFoundError(DevPocketError):
    """Not there, or not the caller's: the two must not be told apart."""

    kind = ErrorKind.NOT_FOUND
    code = "environment_not_found"

    def __init__(self) -> None:
        super().__init__("Environment not found")


class EnvironmentNotRunningError(DevPocketError):
    """There, but no shell can be started in it now."""

    kind = ErrorKind.CONFLICT
    code = "environment_not_running"

    def __init__(self) -> None:
        super().__init__("The environment is not running, please start it first")


class SessionNotFoundError(DevPocketError):
    """No such session in this environment, or not the caller's, or over."""

    kind = ErrorKind.NOT_FOUND
    code = "session_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such terminal session any more, please open a new one")


class OwnerSilentError(UnavailableError):
    """The replica that holds a session is said to live, and does not answer."""

    def __init__(self) -> None:
        super().__init__("The machine that holds this session does not answer right now, please try again in a moment")


class OffsetBeyondEndError(DevPocketError):
    """A client claims to have seen output that was never there."""

    kind = ErrorKind.UNPROCESSABLE
    code = "offset_beyond_end"

    def __init__(self, offset: int, end: int) -> None:
        super().__init__(f"offset {offset} is beyond the {end} bytes that this session has put out")


class TooManyConnectionsError(DevPocketError):
    """The user holds as many connections as allowed."""

    kind = ErrorKind.TOO_MANY
    code = "too_many_connections"

    def __init__(self, limit: int) -> None:
        super().__init__(f"You have {limit} open connections, which is the limit; close one and try again")


class OriginRefusedError(ForbiddenError):
    """A browser page of another site."""

    code = "origin_not_allowed"

    def __init__(self) -> None:
        super().__init__("Pages of this origin may not connect; an operator can add it to ALLOWED_ORIGINS")


class StartingUpError(UnavailableError):
    """This replica is not known to the others yet."""

    code = "starting_up"

    def __init__(self) -> None:
        super().__init__("The terminal service starts, please try again in a moment")


class ShuttingDownError(UnavailableError):
    """This replica takes no new connections."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("The terminal service restarts, please try again in a moment")
