"""The Runtime port: what a workspace is, and what can be asked of the machine that holds it.

Two drivers implement it: `libs.runtime.local` (bubblewrap sandboxes) and `libs.runtime.kubernetes` (pods). The
orchestrator uses `WorkspaceRuntime` (the lifecycle half), the terminal service `ExecRuntime` (processes and logs).
Both halves of one driver may live in different processes: what they share is on disk or in the cluster, not in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


class WorkspacePhase(StrEnum):
    """What a runtime knows of a workspace; the volume exists in every phase."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WorkspaceRef:
    """Names one workspace. `cluster` tells drivers that span several clusters where it lives."""

    environment_id: str
    user_id: str
    cluster: str = "default"


@dataclass(frozen=True, slots=True)
class WorkspaceLimits:
    """Upper bounds: `cpu_millis` in thousandths of a core, the others in bytes."""

    cpu_millis: int
    memory_bytes: int
    storage_bytes: int


@dataclass(frozen=True, slots=True)
class WorkspaceSpec:
    """Everything needed to make a workspace.

    `generation` is the wish this spec belongs to. `variables` is left out of `repr` because it may hold secrets.
    `startup_command` runs once per start in a login shell inside /workspace; its output goes to the workspace's logs.
    `image_pull_policy` None leaves it to the driver.
    """

    ref: WorkspaceRef
    generation: int
    name: str
    image: str
    limits: WorkspaceLimits
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    startup_command: str | None = None
    image_pull_policy: PullPolicy | None = None


@dataclass(frozen=True, slots=True)
class ObservedWorkspace:
    """What the runtime has right now. `reason` is stable CamelCase, `message` a sentence for people."""

    ref: WorkspaceRef
    generation: int
    phase: WorkspacePhase
    reason: str | None = None
    message: str | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WorkspaceStats:
    """One sample. `cpu_millis` is the rate since the sample before it, or since start; the others are bytes."""

    cpu_millis: float
    memory_bytes: int
    storage_bytes: int
    sampled_at: datetime


@dataclass(frozen=True, slots=True)
class ListeningPort:
    """A TCP port that `connect` reaches; `address` is where its program listens: loopback, or any ("0.0.0.0", "::")."""

    port: int
    address: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line the workspace's main process wrote, without its newline."""

    timestamp: datetime
    stream: Literal["stdout", "stderr", "system"]
    message: str


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Columns and rows, each 1 to 65535."""

    cols: int = 80
    rows: int = 24


class DriverError(Exception):
    """Base of what a driver raises. `reason` is stable CamelCase, the text a sentence a person can act on."""

    reason = "RuntimeError"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class RuntimeUnavailableError(DriverError):
    """The runtime cannot be reached or is overloaded; the same call may work later."""

    reason = "RuntimeUnavailable"


class WorkspaceRejectedError(DriverError):
    """The runtime refuses this spec; the same call will fail again until somebody changes something."""

    reason = "WorkspaceRejected"


class WorkspaceNotFoundError(DriverError):
    """There is no such workspace."""

    reason = "WorkspaceNotFound"


class WorkspaceNotRunningError(DriverError):
    """The workspace exists but nothing can be executed in it now."""

    reason = "WorkspaceNotRunning"


class PortClosedError(DriverError):
    """Nothing of the workspace listens at this port."""

    reason = "NothingListens"


class ByteStream(Protocol):
    """A connection to a program inside a workspace. Several readers, or several writers, at a time are not allowed."""

    async def read(self, max_bytes: int = 65536) -> bytes:
        """At least one byte; `b""` once at the end. Not reading pauses the program (flow control).

        Raises PortClosedError where a refusal is told as late as this, ConnectionError when the connection broke.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send all of `data`, waiting while the program takes nothing. Raises BrokenPipeError when it never will."""
        ...

    async def write_eof(self) -> None:
        """Half-close; without effect where the way to the workspace has no word for it (Kubernetes)."""
        ...

    async def close(self) -> None:
        """Hang up; safe to call twice."""
        ...


class ExecStream(Protocol):
    """A process inside a workspace: bytes in, bytes out.

    With `tty`, stdout and stderr are one stream (`read`). Without, `read` gives stdout and `read_stderr` stderr.
    `close` ends the process and everything it started in its session, and is safe to call twice.
    """

    async def read(self, max_bytes: int = 65536) -> bytes:
        """The next output, at least one byte; `b""` once at the end. Not reading pauses the process (flow control)."""
        ...

    async def read_stderr(self, max_bytes: int = 65536) -> bytes:
        """As `read`, for standard error; always `b""` with a TTY."""
        ...

    async def write(self, data: bytes) -> None:
        """Send all of `data`, waiting while the process's input is full. Raises BrokenPipeError when it has ended."""
        ...

    def write_now(self, data: bytes) -> int:
        """Send as much of `data` as leaves without waiting, and say how much; 0 where that is not known.

        Nothing that a `write` has still to send is overtaken. Raises BrokenPipeError when the process has ended.
        """
        ...

    async def write_eof(self) -> None:
        """Half-close standard input (with a TTY: send the end-of-file character)."""
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Change the window size; the process gets SIGWINCH. No effect without a TTY."""
        ...

    async def wait(self) -> int:
        """The exit code once the process has ended; 128 + n when signal n ended it."""
        ...

    async def close(self) -> None:
        """Hang up: end the process with all its children, release everything."""
        ...


@runtime_checkable
class WorkspaceRuntime(Protocol):
    """The lifecycle half. Every call is idempotent and may be repeated after a crash at any instruction."""

    async def open(self) -> None:
        """Prepare for use. Raises RuntimeUnavailableError with a sentence that says what is missing."""
        ...

    async def close(self) -> None:
        """Release what this process holds; running workspaces stay as they are."""
        ...

    async def check(self) -> str:
        """Ask the runtime whether it can do its work; returns its version. Cheap, and done within a few seconds.

        Raises RuntimeUnavailableError with a sentence that says what is wrong.
        """
        ...

    async def ensure(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        """Make the workspace run with this spec; returns when it is ready for `exec`.

        A running workspace of the same generation is left alone; one of an older generation is replaced. The volume
        is created when missing and never emptied. Raises RuntimeUnavailableError or WorkspaceRejectedError.
        """
        ...

    async def stop(self, ref: WorkspaceRef, *, grace_seconds: float = 5.0) -> None:
        """End every process of the workspace, politely first; the volume stays. Fine when there is none."""
        ...

    async def delete(self, ref: WorkspaceRef) -> None:
        """Stop it and remove everything, the volume included. Fine when there is none."""
        ...

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        """What there is, or None when neither workspace nor volume exists."""
        ...

    async def list(self) -> Sequence[ObservedWorkspace]:
        """All workspaces of this runtime, in every phase."""
        ...

    def watch(self) -> AsyncIterator[ObservedWorkspace]:
        """Changes from now on, at least one per workspace that stopped by itself. May drop out: callers resync."""
        ...

    async def stats(self, ref: WorkspaceRef) -> WorkspaceStats:
        """One sample of a running workspace. Raises WorkspaceNotRunningError."""
        ...


@runtime_checkable
class ExecRuntime(Protocol):
    """The process half."""

    async def open(self) -> None:
        """Prepare for use. Raises RuntimeUnavailableError."""
        ...

    async def close(self) -> None:
        """Close every stream opened by this process."""
        ...

    async def exec(
        self,
        ref: WorkspaceRef,
        argv: Sequence[str] | None = None,
        *,
        tty: bool = True,
        size: TerminalSize = TerminalSize(),
        env: Mapping[str, str] | None = None,
    ) -> ExecStream:
        """Start `argv` in /workspace as the workspace's user; None means the user's login shell.

        Raises WorkspaceNotFoundError, WorkspaceNotRunningError, RuntimeUnavailableError. A missing program is no
        error here: the stream ends with code 127 and the runtime's words as output.
        """
        ...

    def logs(
        self,
        ref: WorkspaceRef,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: datetime | None = None,
    ) -> AsyncIterator[LogLine]:
        """Log lines, oldest first: the last `tail`, or all since `since`; `follow` goes on until cancelled."""
        ...

    async def connect(self, ref: WorkspaceRef, port: int) -> ByteStream:
        """Connect to a TCP port (1 to 65535) that a program of this workspace listens at, on loopback or any address.

        Never to another workspace's, or the host's own. Raises PortClosedError (now, or when first read from),
        WorkspaceNotFoundError, WorkspaceNotRunningError, RuntimeUnavailableError.
        """
        ...

    async def ports(self, ref: WorkspaceRef) -> Sequence[ListeningPort]:
        """What programs of this workspace listen at now, by port.

        Raises WorkspaceNotFoundError, WorkspaceNotRunningError, RuntimeUnavailableError.
        """
        ...


class Driver(WorkspaceRuntime, ExecRuntime, Protocol):
    """Both halves of one cluster."""
