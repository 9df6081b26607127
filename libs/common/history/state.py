"""The state of one environment folded from its events, up to a time or a place in the stream. Pure.

The order in which events come does not matter, nor do repeats: wishes and status follow `version`, reports follow
(generation, sequence), exactly as the services decide it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentStatusChanged,
    EnvironmentWish,
    RuntimeReport,
    TerminalSessionClosed,
    TerminalSessionOpened,
)
from libs.common.history.recorded import Recorded, in_order, iso
from libs.common.history.timeline import short_type

Json = dict[str, Any]

# As people want to read them.
_ORDER = (
    *("name", "user_id", "desired", "status", "status_reason", "cluster", "generation", "version", "report"),
    *("template", "image", "region", "resources", "variables", "startup_command", "web_port"),
)


@dataclass(frozen=True, slots=True)
class Fact:
    """A value, and the event since which it holds."""

    value: Any
    since: datetime
    sequence: int

    def as_json(self) -> Json:
        """For programs."""
        return {"value": self.value, "since": iso(self.since), "sequence": self.sequence}


@dataclass(frozen=True, slots=True)
class Changed:
    """What the last event made of a value; None stands for: not known."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class EnvironmentState:
    """`facts` by name, in the order in which people want to read them. `sessions` are the open terminals."""

    environment_id: str
    facts: dict[str, Fact]
    sessions: dict[str, Fact]
    events: int
    not_understood: int
    last: Recorded
    changed: tuple[Changed, ...] = ()

    def as_json(self) -> Json:
        """For programs."""
        return {
            "environment_id": self.environment_id,
            **{name: fact.as_json() for name, fact in self.facts.items()},
            "open_sessions": [{"session_id": name, **fact.as_json()} for name, fact in self.sessions.items()],
            "events": self.events,
            "not_understood": self.not_understood,
            "last_event": {
                "sequence": self.last.sequence,
                "time": iso(self.last.time),
                "type": self.last.type,
                "id": self.last.id,
            },
            "changed": [{"field": item.field, "before": item.before, "after": item.after} for item in self.changed],
        }


def up_to(events: Iterable[Recorded], *, at: datetime | None = None, sequence: int | None = None) -> list[Recorded]:
    """What had happened by a time, or by a place in the stream, that place included."""
    return [
        item for item in events if (at is None or item.time <= at) and (sequence is None or item.sequence <= sequence)
    ]


def fold(environment_id: str, events: Iterable[Recorded]) -> EnvironmentState | None:
    """The state after all of them, with what the last one changed; None when there are none."""
    ordered = in_order(item for item in events if item.about == environment_id)
    if not ordered:
        return None
    facts, sessions = _facts(ordered), _sessions(ordered)
    before = {**_values(_facts(ordered[:-1])), **_values(_sessions(ordered[:-1]), "session ")}
    after = {**_values(facts), **_values(sessions, "session ")}
    names = dict.fromkeys([*after, *before])
    changed = tuple(
        Changed(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    )
    not_understood = sum(item.data is None for item in ordered)
    return EnvironmentState(environment_id, facts, sessions, len(ordered), not_understood, ordered[-1], changed)


def _values(facts: dict[str, Fact], prefix: str = "") -> Json:
    return {f"{prefix}{name}": fact.value for name, fact in facts.items()}


def _facts(ordered: list[Recorded]) -> dict[str, Fact]:
    facts: dict[str, Fact] = {}
    for item in _sorted(ordered, (EnvironmentWish, EnvironmentStatusChanged), lambda data: data.version):
        _learn(facts, item, _told_by(item.data))
    for item in _sorted(ordered, (RuntimeReport,), lambda data: data.generation):
        assert isinstance(item.data, RuntimeReport)
        _learn(facts, item, _reported(item.data))
    return {name: facts[name] for name in _ORDER if name in facts}


def _sorted(ordered: list[Recorded], kinds: tuple[type[Any], ...], rank: Callable[[Any], int]) -> list[Recorded]:
    """Those of these kinds, the newest last; of one rank, in the order of the stream."""
    return sorted((item for item in ordered if isinstance(item.data, kinds)), key=lambda item: rank(item.data))


def _learn(facts: dict[str, Fact], item: Recorded, news: Json) -> None:
    for name, value in news.items():
        known = facts.get(name)
        if known is None or known.value != value:
            facts[name] = Fact(value, item.time, item.sequence)


def _told_by(data: Any) -> Json:
    """What a wish or a change of status says."""
    common: Json = {"user_id": data.user_id, "generation": data.generation, "version": data.version}
    if isinstance(data, EnvironmentStatusChanged):
        return {**common, "status": data.status.value, "status_reason": data.status_reason, "cluster": data.cluster}
    news: Json = {**common, "name": data.name, "desired": data.desired.value, "region": data.region, **_spec(data)}
    if isinstance(data, EnvironmentCreated):
        news |= {"status": EnvironmentStatus.CREATING.value, "status_reason": None}
    return news


def _spec(wish: EnvironmentWish) -> Json:
    spec = wish.spec
    return {
        "template": spec.template,
        "image": spec.image,
        "resources": spec.resources.model_dump(),
        "variables": "sealed" if spec.variables_sealed else "none",
        "startup_command": spec.startup_command,
        "web_port": spec.web_port,
    }


def _reported(report: RuntimeReport) -> Json:
    said = short_type(f"devpocket.{report.TYPE}").rpartition(".")[2]
    return {
        "report": {
            "said": said,
            "generation": report.generation,
            "reason": report.reason,
            "message": report.message,
            "runtime": report.runtime,
            "cluster": report.cluster,
        }
    }


def _sessions(ordered: list[Recorded]) -> dict[str, Fact]:
    closed = {item.data.session_id for item in ordered if isinstance(item.data, TerminalSessionClosed)}
    return {
        item.data.session_id: Fact(item.data.user_id, item.time, item.sequence)
        for item in ordered
        if isinstance(item.data, TerminalSessionOpened) and item.data.session_id not in closed
    }
