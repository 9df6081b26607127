"""Making a backup while the services run. See docs/adr/0018-backups.md for why the steps come in this order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError
from pymongo import MongoClient

from libs.common.backup.databases import Moment
from libs.common.backup.errors import BackupFailedError
from libs.common.backup.manifest import StoredDatabase, StoredStream
from libs.common.backup.streams import TAIL, save_stream, save_tail, state_of
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM

DATABASES = "mongodb"
STREAMS = "nats"
# A look takes a few milliseconds, and one without a new event in it is enough.
_LOOKS = 200

Report = Callable[[str, int, int | None], None]
"""Called with what goes on, how much of it is done, and how much there is where that is known."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What was saved, as the manifest says it."""

    moment: datetime
    databases: dict[str, StoredDatabase]
    streams: dict[str, StoredStream]


class Saver:
    """Saves streams and databases. `databases`: names by service."""

    def __init__(
        self, nats: NatsClient, mongo: MongoClient[Any], databases: dict[str, str], report: Report = lambda *_: None
    ) -> None:
        self._nats = nats
        self._databases = databases
        self._moment = Moment(mongo)
        self._report = report

    async def save(self, folder: Path) -> Saved:
        """Everything into `folder`. Raises BackupFailedError."""
        states: dict[str, dict[str, Any]] = {}
        # The dead letters second: a letter is written before its event is acknowledged, so none is missing that a
        # consumer in the first snapshot has done with.
        for stream in (EVENTS_STREAM, DEAD_LETTER_STREAM):
            states[stream] = await self._save_stream(stream, folder / STREAMS / stream)
        try:
            last, moment = await self._choose_moment()
            databases = await self._save_databases(folder / DATABASES)
        finally:
            await asyncio.to_thread(self._moment.end)
        self._report("events since", 0, None)
        tail_path = folder / STREAMS / EVENTS_STREAM / TAIL
        tail = await save_tail(
            self._nats, EVENTS_STREAM, tail_path, after=states[EVENTS_STREAM]["last_seq"], until=last
        )
        return Saved(moment, databases, _described(states, last, tail))

    async def _save_stream(self, stream: str, folder: Path) -> dict[str, Any]:
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True)
        total = (await self._state(stream))["bytes"]
        done = 0

        def tell(size: int) -> None:
            nonlocal done
            done += size
            self._report(stream, done, max(total, done))

        return await save_stream(self._nats, stream, folder, tell)

    async def _choose_moment(self) -> tuple[int, datetime]:
        """A moment at which no event was being stored, so that the last sequence then is that of the databases."""
        for _ in range(_LOOKS):
            before = (await self._state(EVENTS_STREAM))["last_seq"]
            await asyncio.to_thread(self._moment.choose)
            moment = datetime.now(UTC)
            if (await self._state(EVENTS_STREAM))["last_seq"] == before:
                return before, moment
        raise BackupFailedError(
            "too many events come at present for a moment without one; try again when it is quieter"
        )

    async def _save_databases(self, folder: Path) -> dict[str, StoredDatabase]:
        await asyncio.to_thread(folder.mkdir, mode=0o700)
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            self._report("documents", done, None)

        return {
            service: StoredDatabase(
                name=name, documents=await asyncio.to_thread(self._moment.save, name, folder / name, tell)
            )
            for service, name in self._databases.items()
        }

    async def _state(self, stream: str) -> dict[str, Any]:
        try:
            state = await state_of(self._nats, stream)
        except (NatsError, TimeoutError) as error:
            raise BackupFailedError(f"NATS does not answer: {error or type(error).__name__}") from error
        if state is None:
            raise BackupFailedError(
                f"there is no stream {stream}; the services make it when they start for the first time"
            )
        return state


def _described(states: dict[str, dict[str, Any]], last: int, tail: int) -> dict[str, StoredStream]:
    ends = {EVENTS_STREAM: (last, tail)}
    return {
        stream: StoredStream(
            first_sequence=state["first_seq"],
            last_sequence=ends.get(stream, (state["last_seq"], 0))[0],
            tail=ends.get(stream, (0, 0))[1],
        )
        for stream, state in states.items()
    }


def service_databases(prefix: str, services: Sequence[str]) -> dict[str, str]:
    """Names of the databases by service."""
    return {service: f"{prefix}_{service}" for service in services}
