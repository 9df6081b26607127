"""Settings of the terminal service."""

from __future__ import annotations

from pydantic import Field

from libs.common.settings import CommonSettings
from libs.runtime.settings import RuntimeSettings


class TerminalSettings(CommonSettings, RuntimeSettings):
    """Times and sizes carry their unit in their name."""

    read_model_grace_seconds: float = Field(
        default=1.0, ge=0, description="How long a handshake waits for an event that the client may know of already"
    )
    ticket_life_seconds: int = Field(default=30, ge=1, description="A WebSocket ticket not used by then is void")

    terminal_connections_per_user: int | None = Field(
        default=None, ge=1, description="Terminals and logs together, for everybody; unset, as many as the plan allows"
    )
    terminal_sessions_per_user: int = Field(
        default=10, ge=1, description="Shells per replica, connected or not; beyond, the longest detached one ends"
    )
    terminal_hold_shells: bool = Field(
        default=True,
        description="Shells are held by a program beside them, so that they outlive this service",
    )
    terminal_detached_seconds: float = Field(
        default=600.0, gt=0, description="How long a shell lives without a connection"
    )
    terminal_hold_seconds: float = Field(
        default=30.0,
        ge=0,
        description="After a disconnect the shell is paused for so long rather than lose output to the ring",
    )
    terminal_stalled_seconds: float = Field(
        default=180.0, gt=0, description="A client that takes nothing for so long is disconnected; its shell stays"
    )
    terminal_ring_bytes: int = Field(
        default=1024 * 1024, ge=64 * 1024, description="Output kept per session for those who come back"
    )
    terminal_ring_burst_bytes: int = Field(
        default=12 * 1024 * 1024,
        ge=64 * 1024,
        description="The same while output flows: more than socket buffers on the way to a client hold",
    )
    terminal_window_bytes: int = Field(
        default=256 * 1024, ge=4096, description="The shell is paused when every client is behind by more than this"
    )
    terminal_detached_bytes_per_second: int = Field(
        default=8 * 1024 * 1024, ge=4096, description="How fast a shell may write while nobody is connected"
    )
    terminal_message_bytes: int = Field(
        default=1024 * 1024, ge=1024, description="Largest message of a client; a larger one closes with 1009"
    )
    terminal_messages_per_second: int | None = Field(
        default=None,
        ge=1,
        description="Messages of a user's connections on average, twice as many at once; unset, what the plan allows",
    )
    terminal_owner_seconds: float = Field(
        default=1.0, gt=0, description="How long another replica may take to answer about a session that it holds"
    )
    terminal_bridge_silent_seconds: float = Field(
        default=6.0,
        gt=0,
        description="Between replicas: one that gives no sign of life for so long has lost its end of a connection",
    )
    terminal_transfers_per_user: int = Field(
        default=8, ge=1, description="Files that a user reads, stores or deletes at the same time, per replica"
    )
    terminal_commands_per_user: int = Field(
        default=4, ge=1, description="Commands without a terminal that a user runs at the same time, per replica"
    )
    terminal_command_output_bytes: int = Field(
        default=1024 * 1024, ge=1024, description="Kept of a command's stdout, and as much of its stderr"
    )
    preview_origin: str = Field(
        default="",
        description="Origins of previews, with * for the environment's id; unset, they share the API's, in a sandbox",
        pattern=r"^(https?://\*\.[^/?#*\s]+)?$",
    )
    preview_life_seconds: int = Field(
        default=12 * 3600, ge=60, description="A preview's cookie is void after this, however much it is used"
    )
    preview_answer_seconds: float = Field(
        default=60.0, gt=0, description="How long an application may take to begin its answer"
    )
    preview_requests_per_user: int = Field(
        default=64, ge=1, description="Requests and WebSockets to applications at the same time, per user and replica"
    )
    terminal_upkeep_seconds: float = Field(
        default=5.0, gt=0, description="Between heartbeats and looks for sessions that timed out"
    )
    terminal_shutdown_seconds: float = Field(
        default=3.0, gt=0, description="What a shutdown takes at most for closing sessions and telling the bus"
    )
