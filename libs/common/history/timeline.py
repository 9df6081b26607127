"""What happened, step by step: who, what, because of what, and how long since the step before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.history.recorded import UNREADABLE, Recorded, in_order, iso

_FAILURES = (".failed", ".lost", ".locked")
_PREFIX = "devpocket."


@dataclass(frozen=True, slots=True)
class Step:
    """One row. `cause` is the sequence of the step that led to it, None when that is not among the rows.

    `depth` counts the steps of the chain before it; `seconds_since_previous` is measured between the times the events
    carry, so that clocks which differ may make it negative.
    """

    sequence: int
    time: datetime
    seconds_since_previous: float | None
    service: str
    what: str
    about: str | None
    actor: str | None
    cause: int | None
    depth: int
    status: str | None
    reason: str | None
    detail: str
    is_failure: bool
    id: str | None
    correlation_id: str | None
    causation_id: str | None
    problem: str | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "time": iso(self.time)}


def timeline(events: Iterable[Recorded]) -> list[Step]:
    """The rows in the order of the stream, each event once."""
    ordered = in_order(events)
    by_id = {item.id: item for item in ordered if item.id is not None}
    depths: dict[str, int] = {}
    steps: list[Step] = []
    previous: datetime | None = None
    for item in ordered:
        gap = None if previous is None else round((item.time - previous).total_seconds(), 6)
        steps.append(_step(item, gap, by_id, depths))
        previous = item.time
    return steps


def short_type(full: str) -> str:
    """`env.created` for `devpocket.env.created.v1`; another version than 1 is kept."""
    return full.removeprefix(_PREFIX).removesuffix(".v1")


def _step(item: Recorded, gap: float | None, by_id: Mapping[str, Recorded], depths: dict[str, int]) -> Step:
    event = item.event
    data = event.data if event is not None else {}
    cause = by_id.get(_text((item.envelope or {}).get("causationid")) or "")
    status, reason = _outcome(item, data)
    envelope = item.envelope or {}
    return Step(
        sequence=item.sequence,
        time=item.time,
        seconds_since_previous=gap,
        service=_text(envelope.get("source")) or "?",
        what=short_type(item.type),
        about=item.about,
        actor=_text(envelope.get("actor")),
        cause=cause.sequence if cause is not None and cause is not item else None,
        depth=_depth(item, by_id, depths),
        status=status,
        reason=reason,
        detail=_detail(item, data),
        is_failure=item.problem is not None or _is_failure(item.type, data),
        id=item.id,
        correlation_id=_text(envelope.get("correlationid")),
        causation_id=_text(envelope.get("causationid")),
        problem=item.problem,
    )


def _depth(item: Recorded, by_id: Mapping[str, Recorded], known: dict[str, int]) -> int:
    """Steps before it. A chain that bites its own tail, which only garbage can, ends where it does."""
    chain: list[str] = []
    current: Recorded | None = item
    while current is not None and current.id is not None and current.id not in known and current.id not in chain:
        chain.append(current.id)
        current = by_id.get(_text((current.envelope or {}).get("causationid")) or "")
    depth = known.get(current.id or "", -1) if current is not None else -1
    for name in reversed(chain):
        depth += 1
        known[name] = depth
    return known.get(item.id or "", 0)


def _is_failure(full: str, data: Mapping[str, Any]) -> bool:
    name = full.rpartition(".v")[0]
    return name.endswith(_FAILURES) or data.get("status") == EnvironmentStatus.ERROR


def _outcome(item: Recorded, data: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Status and reason, where the event says any."""
    status = _text(data.get("status"))
    if status is None and item.subject.startswith("devpocket.runtime."):
        status = short_type(item.type).rpartition(".")[2] if item.type != UNREADABLE else None
    reason = _text(data.get("status_reason")) or _text(data.get("message")) or _text(data.get("reason"))
    return status, reason


def _detail(item: Recorded, data: Mapping[str, Any]) -> str:
    """A few words that say what is special about this one."""
    if item.problem is not None:
        return item.problem
    spec = data.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    words = [
        _said("{} → {}", data.get("previous"), data.get("status")),
        _said("wants {} ({})", data.get("desired"), template) or _said("wants {}", data.get("desired")),
        _said("generation {}", data.get("generation")),
        _said("session {}", data.get("session_id")),
        _said("exit code {}", data.get("exit_code")),
        _said("{}", data.get("reason")),
        _said("{}", data.get("message") or data.get("status_reason")),
    ]
    return ", ".join(word for word in words if word)


def _said(form: str, *values: Any) -> str:
    """Nothing when a value is missing, or is no word or number."""
    return form.format(*values) if all(isinstance(value, str | int) and value != "" for value in values) else ""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
