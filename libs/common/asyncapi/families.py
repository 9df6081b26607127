"""Families of subjects: which exist, what travels on them, and which of them a consumer's filter means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.contracts.events import EVENT_TYPES, EventData
from libs.common.contracts.telemetry import SIGHTING_SUBJECTS, USAGE_SUBJECTS

# Who publishes the events of an aggregate. A service publishes about nothing else.
PUBLISHERS = {
    "user": "auth",
    "owner": "envs",
    "env": "envs",
    "runtime": "orchestrator",
    "cluster": "orchestrator",
    "terminal": "terminal",
}
_ID = "id"


@dataclass(frozen=True, slots=True)
class Family:
    """Messages that share a subject but for their parameters.

    `publishers`: the services that send them. `messages`: the subject of each, by its name.
    """

    name: str
    address: str
    publishers: tuple[str, ...]
    messages: dict[str, str]

    def heard_by(self, subject_filter: str) -> list[str]:
        """Names of the messages that a consumer with this filter gets."""
        return [name for name, subject in self.messages.items() if _matches(subject_filter, subject)]


def families() -> list[Family]:
    """All of them: one per aggregate, and what travels on core NATS."""
    by_aggregate: dict[str, list[type[EventData]]] = {}
    for model in EVENT_TYPES.values():
        by_aggregate.setdefault(model.TYPE.split(".")[0], []).append(model)
    found = [_family(aggregate, models) for aggregate, models in by_aggregate.items()]
    usage = {"usage": USAGE_SUBJECTS.replace("*", _ID)}
    found.append(Family("telemetry", USAGE_SUBJECTS.replace("*", "{environment_id}"), ("orchestrator",), usage))
    seen = {"sighting": SIGHTING_SUBJECTS.replace("*", _ID)}
    address = SIGHTING_SUBJECTS.replace("*", "{user_id}")
    found.append(Family("sightings", address, tuple(sorted({*PUBLISHERS.values()})), seen))
    return sorted(found, key=lambda family: family.name)


def _family(aggregate: str, models: Sequence[type[EventData]]) -> Family:
    publisher = PUBLISHERS.get(aggregate)
    if publisher is None:
        raise LookupError(f"who publishes devpocket.{aggregate}.…? Say it in PUBLISHERS of {__name__}")
    return Family(
        name=aggregate,
        address=f"devpocket.{aggregate}.{{{models[0].AGGREGATE_FIELD}}}.{{event}}",
        publishers=(publisher,),
        messages={
            f"devpocket.{model.TYPE}": f"devpocket.{aggregate}.{_ID}.{model.TYPE.split('.')[1]}" for model in models
        },
    )


def _matches(subject_filter: str, subject: str) -> bool:
    wanted, given = subject_filter.split("."), subject.split(".")
    if wanted[-1] == ">" and len(given) >= len(wanted):
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
    return len(wanted) == len(given) and all(w in {"*", g} for w, g in zip(wanted, given, strict=True))
