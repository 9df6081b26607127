"""One replay from beginning to end: a scratch database, the events, and what differs from the live one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from libs.common.errors import DevPocketError, ErrorKind
from libs.common.history.drift import Drift, drifts
from libs.common.history.reader import Progress, StreamReader
from libs.common.history.replay import EventClock, ReadModel, ReplayCounts, Replayer, ReplayTarget, Step, TargetFactory
from libs.common.messaging.streams import EVENTS_STREAM, EVENTS_SUBJECTS
from libs.common.mongo import Client, Database
from libs.common.settings import CommonSettings

SERVICES = ("auth", "envs", "orchestrator", "terminal")
MAX_DRIFTS_SHOWN = 1_000
_MARK = "devpocket_replay"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
# The live service goes on while it is compared: what differs only for a moment is no drift.
_LOOKS = 5
_BETWEEN_LOOKS_S = 0.5


class BadScratchError(DevPocketError):
    """The database named for a replay must not be overwritten."""

    kind = ErrorKind.UNPROCESSABLE
    code = "bad_scratch_database"


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """`environment`: only its events. `until_sequence`: as the stream was when this one had come. `diff`: compare."""

    service: str
    into: str
    environment: str | None = None
    until_sequence: int | None = None
    diff: bool = False

    @property
    def subject(self) -> str:
        """What the server is asked for."""
        return f"devpocket.*.{self.environment}.>" if self.environment else EVENTS_SUBJECTS


@dataclass(slots=True)
class ReplayReport:
    """What came of a replay. `drifted` counts all differences, `drift` holds the first MAX_DRIFTS_SHOWN."""

    service: str
    into: str
    counts: ReplayCounts
    drifted: int = 0
    drift: list[Drift] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "service": self.service,
            "into": self.into,
            "events": self.counts.events,
            "handled": self.counts.handled,
            "failed": self.counts.failed,
            "failures": [asdict(failure) for failure in self.counts.failures],
            "last_sequence": self.counts.last_sequence,
            "drifted": self.drifted,
            "drift": [drift.as_json() for drift in self.drift],
        }


async def scratch_database(client: Client, settings: CommonSettings, name: str) -> Database:
    """An empty database for a replay; what an earlier replay left there is gone. Raises BadScratchError."""
    if not _NAME.fullmatch(name):
        raise BadScratchError("The scratch database's name may hold letters, digits, '_' and '-', 60 at most")
    if name in {f"{settings.database_name}_{service}" for service in SERVICES}:
        raise BadScratchError(f"{name} is a live database: replay into another one, e.g. {name}_replay")
    database = client[name]
    collections = await database.list_collection_names()
    if collections and _MARK not in collections:
        raise BadScratchError(f"The database {name} holds data that no replay has made; it is left alone")
    await client.drop_database(name)
    await database[_MARK].insert_one({"_id": "This database was made by a replay and may be dropped"})
    return database


class ReplayJob:
    """Feeds a service's handlers from the stream. `live` is only read, and only by `differences`.

    `between_looks_s`: between the few looks at what differs, which may still be on its way.
    """

    def __init__(
        self,
        reader: StreamReader,
        plan: ReplayPlan,
        make: TargetFactory,
        *,
        live: Database,
        scratch: Database,
        between_looks_s: float = _BETWEEN_LOOKS_S,
    ) -> None:
        self._reader = reader
        self._plan = plan
        self._live = live
        self._scratch = scratch
        self._between_looks_s = between_looks_s
        clock = EventClock()
        self.target: ReplayTarget = make(scratch, clock)
        self._replayer = Replayer(self.target, scratch, clock)
        self.report = ReplayReport(plan.service, plan.into, self._replayer.counts)

    async def run(self, progress: Progress | None = None, *, each: Step | None = None) -> ReplayReport:
        """All events of the plan, then the differences if it asks for them. `each` makes it go step by step."""
        await self.target.prepare()
        await self._feed(None, progress, each)
        if self._plan.diff:
            await self._compare()
        return self.report

    async def _feed(self, after: int | None, progress: Progress | None = None, each: Step | None = None) -> None:
        events = self._reader.read(
            EVENTS_STREAM,
            self._plan.subject,
            after_sequence=after,
            until_sequence=self._plan.until_sequence,
            progress=progress,
        )
        async with aclosing(events):
            if each is None:
                await self._replayer.feed(events)
            else:
                await self._replayer.feed_stepwise(events, each)

    async def _compare(self) -> None:
        since = await self._beginning()
        suspects: dict[ReadModel, set[str] | None] = dict.fromkeys(self._compared())
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(self._between_looks_s)
                await self._feed(self.report.counts.last_sequence)
            self.report.drifted, self.report.drift = 0, []
            for model, only in suspects.items():
                suspects[model] = await self._differences(model, since, only)
            if not self.report.drifted:
                return

    def _compared(self) -> Sequence[ReadModel]:
        if self._plan.environment is None:
            return self.target.models
        return [model for model in self.target.models if model.environment_field is not None]

    async def _differences(self, model: ReadModel, since: datetime | None, only: set[str] | None) -> set[str]:
        """Adds them to the report; returns the ids of the documents that differ."""
        if only is not None and not only:
            return set()
        about = {} if self._plan.environment is None else {model.environment_field or "_id": self._plan.environment}
        found: set[str] = set()
        async for drift in drifts(self._live, self._scratch, model, since=since, only=only, about=about):
            self.report.drifted += 1
            if len(self.report.drift) < MAX_DRIFTS_SHOWN:
                self.report.drift.append(drift)
            found.add(drift.id)
        return found

    async def _beginning(self) -> datetime | None:
        """When the oldest event was stored that the stream still holds; None when it has never dropped any."""
        first, _ = await self._reader.bounds(EVENTS_STREAM)
        oldest = await self._reader.at(EVENTS_STREAM, first) if first > 1 else None
        return oldest.stored_at if oldest is not None else None
