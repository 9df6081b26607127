"""What the admin API gives about the event stream: the same JSON as `devpocket events … --json`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, description="UTC, to the microsecond")]
Cursor = Annotated[str | None, Field(description="For the next page; null at the end")]


class RecordedEvent(BaseModel):
    """An envelope (see docs/asyncapi.json) and its place. Garbage has the type `unreadable` and says why in `error`."""

    model_config = ConfigDict(extra="allow")

    sequence: int = Field(description="Its place in the stream; of an imported event, in the stream it came from")


class RecordedEventsResponse(BaseModel):
    """A page, oldest first. With a filter by type it may be short although more follow: `next_cursor` decides."""

    events: list[RecordedEvent]
    next_cursor: Cursor


class TimelineStep(BaseModel):
    """One step. `cause` is the sequence of the step that led to it, null when that is not in this timeline."""

    sequence: int
    time: Time
    seconds_since_previous: float | None
    service: str
    what: str
    about: str | None
    actor: str | None
    cause: int | None
    depth: int = Field(description="How many steps of its chain came before")
    status: str | None
    reason: str | None
    detail: str
    is_failure: bool
    id: str | None
    correlation_id: str | None
    causation_id: str | None
    problem: str | None = Field(description="Why it cannot be handled as an event")


class TimelineResponse(BaseModel):
    """Every service's events about one environment, in order."""

    environment_id: str
    steps: list[TimelineStep]


class FactResponse(BaseModel):
    """A value and since when it holds; `sequence` is the event that made it so."""

    value: Any
    since: Time
    sequence: int


class OpenSession(FactResponse):
    """A terminal; `value` is the user."""

    session_id: str


class ChangedResponse(BaseModel):
    """What the last event made of a value."""

    field: str
    before: Any
    after: Any


class LastEvent(BaseModel):
    """The last event that is counted in."""

    sequence: int
    time: Time
    type: str
    id: str | None


class StateResponse(BaseModel):
    """What an environment was. Every further field is a fact: status, desired, generation, report, image, …"""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, FactResponse]

    environment_id: str
    open_sessions: list[OpenSession]
    events: int
    not_understood: int = Field(description="Events that are garbage or of an unknown version")
    last_event: LastEvent
    changed: list[ChangedResponse]


class DeadLetterResponse(BaseModel):
    """An event that a consumer could not handle."""

    id: int
    time: Time
    service: str
    consumer: str
    subject: str
    type: str
    event_id: str | None
    original_sequence: int | None
    deliveries: int | None
    error_type: str | None
    error_message: str | None
    truncated_from_bytes: int | None = Field(description="The event's size when only its beginning is kept here")


class DeadLetterDetail(DeadLetterResponse):
    """With headers and payload: `event` when it can be read, else `text`."""

    headers: dict[str, str]
    event: dict[str, Any] | None
    text: str | None


class DeadLettersResponse(BaseModel):
    """A page, oldest first."""

    dead_letters: list[DeadLetterResponse]
    next_cursor: Cursor


class RedriveResponse(BaseModel):
    """The event is handled and the dead letter gone."""

    id: int
    handled: Literal[True]
