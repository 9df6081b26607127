"""Every event on the bus: a CloudEvents 1.0 envelope and one data model per type.

Envelope: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md (JSON format). `correlationid`,
`causationid`, `actor` and `actoraddress` (the network address that a person acted from) are extension attributes. The
NATS subject follows from type and subject:
`devpocket.env.created.v1` about environment X travels on `devpocket.env.X.created`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.common.clock import utc_now
from libs.common.context import Cause
from libs.common.contracts.base import EventData as EventData  # noqa: PLC0414 - importers find all events here
from libs.common.contracts.clusters import CLUSTER_EVENTS, DEFAULT_CLUSTER
from libs.common.contracts.environments import DesiredState, EnvironmentStatus, PullPolicy, Resources
from libs.common.contracts.users import USER_EVENTS
from libs.common.ids import new_id


class UnknownEventError(ValueError):
    """The type is none we know, or its data does not fit the type."""


class WorkspaceTemplate(BaseModel):
    """What to run: a template's name and image, limits, variables (sealed, see libs.common.security.sealing).

    `image_pull_policy` None leaves it to the cluster's default.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    template: str
    image: str
    image_pull_policy: PullPolicy | None = None
    resources: Resources
    variables_sealed: str | None = Field(default=None, repr=False)
    startup_command: str | None = None
    web_port: int | None = None


class EnvironmentWish(EventData):
    """The whole desired state, so that a consumer keeps the newest `version` and may miss or repeat any other.

    `generation` rises with every wish that concerns the runtime; `version` with every write of the environment.
    """

    environment_id: str
    user_id: str
    name: str
    region: str | None = None
    desired: DesiredState
    generation: int
    version: int
    spec: WorkspaceTemplate


class EnvironmentCreated(EnvironmentWish):
    """A user asked for a new environment."""

    TYPE = "env.created.v1"


class EnvironmentStartRequested(EnvironmentWish):
    """A user asked to start a stopped environment."""

    TYPE = "env.start_requested.v1"


class EnvironmentStopRequested(EnvironmentWish):
    """A user asked to stop an environment."""

    TYPE = "env.stop_requested.v1"


class EnvironmentRestartRequested(EnvironmentWish):
    """A user asked to restart an environment."""

    TYPE = "env.restart_requested.v1"


class EnvironmentDeleteRequested(EnvironmentWish):
    """A user asked to delete an environment with its workspace."""

    TYPE = "env.delete_requested.v1"


class EnvironmentUpdated(EnvironmentWish):
    """Name, resources, variables or startup command changed; takes effect at the next start."""

    TYPE = "env.updated.v1"


class EnvironmentStatusChanged(EventData):
    """The status users see, or its reason, has changed. `cluster`: where its workspace is, as last reported."""

    TYPE = "env.status_changed.v1"

    environment_id: str
    user_id: str
    status: EnvironmentStatus
    previous: EnvironmentStatus
    status_reason: str | None = None
    cluster: str = DEFAULT_CLUSTER
    generation: int
    version: int


class RuntimeReport(EventData):
    """What the runtime has, for the wish `generation`. `reason` is CamelCase, `message` a sentence."""

    environment_id: str
    user_id: str
    generation: int
    runtime: str
    cluster: str = DEFAULT_CLUSTER
    reason: str | None = None
    message: str | None = None


class RuntimeProvisioning(RuntimeReport):
    """Work on a wish has begun."""

    TYPE = "runtime.provisioning.v1"


class RuntimeDelayed(RuntimeReport):
    """Something holds a wish up, or keeps us from seeing a workspace that should run; it is still being worked on."""

    TYPE = "runtime.delayed.v1"


class RuntimeRunning(RuntimeReport):
    """The workspace runs and commands can be executed in it."""

    TYPE = "runtime.running.v1"


class RuntimeStopped(RuntimeReport):
    """No process of the workspace is left; its volume is kept."""

    TYPE = "runtime.stopped.v1"


class RuntimeLost(RuntimeReport):
    """A workspace that should run is gone; it is being brought back."""

    TYPE = "runtime.lost.v1"


class RuntimeFailed(RuntimeReport):
    """The wish cannot be fulfilled; the reason says what a person can do."""

    TYPE = "runtime.failed.v1"


class RuntimeDeleted(RuntimeReport):
    """Nothing of the workspace is left, its volume included."""

    TYPE = "runtime.deleted.v1"


class TerminalSessionOpened(EventData):
    """A shell was started in an environment."""

    TYPE = "terminal.session_opened.v1"

    session_id: str
    environment_id: str
    user_id: str


class TerminalSessionClosed(EventData):
    """A shell has ended. `exit_code` is None when it was ended by us; `reason` says why."""

    TYPE = "terminal.session_closed.v1"

    session_id: str
    environment_id: str
    user_id: str
    exit_code: int | None = None
    reason: str
    output_bytes: int


_TYPES: tuple[type[EventData], ...] = (
    EnvironmentCreated,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    EnvironmentRestartRequested,
    EnvironmentDeleteRequested,
    EnvironmentUpdated,
    EnvironmentStatusChanged,
    RuntimeProvisioning,
    RuntimeDelayed,
    RuntimeRunning,
    RuntimeStopped,
    RuntimeLost,
    RuntimeFailed,
    RuntimeDeleted,
    TerminalSessionOpened,
    TerminalSessionClosed,
    *USER_EVENTS,
    *CLUSTER_EVENTS,
)
EVENT_TYPES: dict[str, type[EventData]] = {f"devpocket.{data.TYPE}": data for data in _TYPES}


class Event(BaseModel):
    """The CloudEvents envelope. `id` is a UUIDv7 and also the `Nats-Msg-Id`; `subject` the aggregate's id."""

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(min_length=1)
    type: str = Field(pattern=r"^devpocket\.[a-z]+\.[a-z_]+\.v[0-9]+$")
    source: str = Field(min_length=1)
    subject: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    correlationid: str | None = None
    causationid: str | None = None
    actor: str | None = None
    actoraddress: str | None = None
    data: dict[str, Any]

    @classmethod
    def new(cls, data: EventData, *, subject: str, source: str, cause: Cause) -> Event:
        """An event that happens now."""
        event_id = new_id()
        return cls(
            id=event_id,
            type=f"devpocket.{data.TYPE}",
            source=source,
            subject=subject,
            time=utc_now(),
            correlationid=cause.correlation_id or event_id,
            causationid=cause.causation_id,
            actor=cause.actor or source,
            actoraddress=cause.address,
            data=data.model_dump(mode="json"),
        )

    @property
    def nats_subject(self) -> str:
        """`devpocket.<aggregate>.<id>.<event>`."""
        _, aggregate, name, _ = self.type.split(".")
        return f"devpocket.{aggregate}.{self.subject}.{name}"

    def payload(self) -> EventData:
        """The typed data. Raises UnknownEventError."""
        model = EVENT_TYPES.get(self.type)
        if model is None:
            raise UnknownEventError(f"unknown event type {self.type}")
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            raise UnknownEventError(f"data does not fit {self.type}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
