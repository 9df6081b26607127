"""Events as the stream holds them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.common.contracts.environments import DesiredState, EnvironmentStatus, Resources
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentStatusChanged,
    EnvironmentWish,
    EventData,
    RuntimeFailed,
    RuntimeReport,
    RuntimeRunning,
    TerminalSessionClosed,
    TerminalSessionOpened,
    WorkspaceTemplate,
)
from libs.common.history.recorded import Recorded, recorded

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
ENV, USER = "e1", "u1"


def envelope(data: EventData, number: int, /, **changes: Any) -> dict[str, Any]:
    """The event that happened `number` seconds after three in the morning."""
    source = {"env": "envs", "runtime": "orchestrator", "terminal": "terminal"}[data.TYPE.split(".")[0]]
    return {
        "specversion": "1.0",
        "id": f"event-{number}",
        "type": f"devpocket.{data.TYPE}",
        "source": source,
        "subject": data.aggregate_id,
        "time": (NOW + timedelta(seconds=number)).isoformat(),
        "correlationid": "request-1",
        "actor": source,
        "data": data.model_dump(mode="json"),
        **changes,
    }


def stored(data: EventData, number: int, /, **changes: Any) -> Recorded:
    """The same, stored as number `number`."""
    _, name, _ = data.TYPE.split(".")
    subject = f"devpocket.{data.TYPE.split('.')[0]}.{data.aggregate_id}.{name}"
    return raw(json.dumps(envelope(data, number, **changes)).encode(), number, subject)


def raw(payload: bytes, number: int, subject: str = f"devpocket.env.{ENV}.created", **headers: str) -> Recorded:
    """Any bytes, stored as number `number`."""
    at = NOW + timedelta(seconds=number)
    return recorded(subject=subject, payload=payload, headers=headers, stored_sequence=number, stored_at=at)


def wish(
    kind: type[EnvironmentWish] = EnvironmentCreated,
    *,
    version: int = 1,
    generation: int = 1,
    name: str = "engine",
    variables: str | None = "SEALED-SECRET",
    desired: DesiredState = DesiredState.RUNNING,
) -> EnvironmentWish:
    """What a user wants."""
    return kind(
        environment_id=ENV,
        user_id=USER,
        name=name,
        desired=desired,
        generation=generation,
        version=version,
        spec=WorkspaceTemplate(
            template="python",
            image="devpocket/python:latest",
            resources=Resources(cpu="500m", memory="1Gi", storage="5Gi"),
            variables_sealed=variables,
        ),
    )


def status(
    now: str, before: str = "creating", *, version: int, generation: int = 1, reason: str | None = None
) -> EnvironmentStatusChanged:
    """What users see."""
    return EnvironmentStatusChanged(
        environment_id=ENV,
        user_id=USER,
        status=EnvironmentStatus(now),
        previous=EnvironmentStatus(before),
        status_reason=reason,
        generation=generation,
        version=version,
    )


def report(kind: type[RuntimeReport] = RuntimeRunning, *, generation: int = 1, **more: Any) -> RuntimeReport:
    """What the runtime has."""
    return kind(environment_id=ENV, user_id=USER, generation=generation, runtime="local", **more)


def opened(session: str = "s1") -> TerminalSessionOpened:
    """A terminal begins."""
    return TerminalSessionOpened(session_id=session, environment_id=ENV, user_id=USER)


def closed(session: str = "s1") -> TerminalSessionClosed:
    """A terminal ends."""
    return TerminalSessionClosed(
        session_id=session, environment_id=ENV, user_id=USER, exit_code=0, reason="exit", output_bytes=7
    )


def bad_night() -> list[Recorded]:
    """Created, ran, a terminal, failed; with who caused what."""
    return [
        stored(wish(), 1, actor=USER),
        stored(report(), 2, causationid="event-1"),
        stored(status("running", version=2), 3, causationid="event-2"),
        stored(opened(), 4, actor=USER, correlationid="request-2"),
        stored(report(RuntimeFailed, reason="CrashLoop", message="It keeps ending."), 5),
        stored(status("error", "running", version=3, reason="It keeps ending."), 6, causationid="event-5"),
    ]
