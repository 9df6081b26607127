"""Runs a service's migrations: one replica works on one, the others wait for it or go on, as it says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from libs.common.clock import Clock, utc_now
from libs.common.ids import new_id
from libs.common.migrations.errors import LeaseLostError, SchemaNotReadyError
from libs.common.migrations.plan import Backfill, level, ordered
from libs.common.migrations.records import Record, Records
from libs.common.mongo import Database

LEASE_S = 30.0
_POLL_S = 0.2
_LOOK_EVERY_S = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Status:
    """`state`: pending, running, settling, done, or unknown for one that this version does not have.

    `is_edited`: it is not the one that has run here.
    """

    id: str
    state: str
    blocking: bool = False
    changed: int = 0
    started_at: datetime | None = None
    done_at: datetime | None = None
    is_edited: bool = False


class Migrations:
    """Of one database. Raises libs.common.mongo.UNAVAILABLE_ERRORS when it goes away."""

    def __init__(
        self, database: Database, migrations: Sequence[Backfill], *, clock: Clock = utc_now, lease_s: float = LEASE_S
    ) -> None:
        self._database = database
        self._migrations = ordered(migrations)
        self._clock = clock
        self._records = Records(database, clock, holder=new_id(), lease_s=lease_s)

    async def check(self) -> None:
        """Raises SchemaNotReadyError when this version must not work on the database."""
        if await self._records.is_restoring():
            raise SchemaNotReadyError(
                f"a restore of the database {self._database.name} is not finished: run `devpocket restore` again"
            )
        known = level(self._migrations)
        for record in await self._records.all():
            if record.needs > known:
                raise SchemaNotReadyError(
                    f"the database {self._database.name} is too new for this version: migration {record.id} needs code "
                    f"that knows migration {record.needs:04}, this one knows up to {known:04}; run the newer version"
                )

    async def finish_blocking(self) -> None:
        """Until all that are blocking are done, by whichever replica."""
        for migration in self._migrations:
            if migration.blocking:
                # Another process may be at it.
                while not await self._attempt(migration):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)

    async def attempt_all(self) -> bool:
        """One pass of every migration that is not done and not another replica's; True when all are done."""
        done = [await self._attempt(migration) for migration in self._migrations]
        return all(done)

    async def finish_all(self) -> None:
        """Until everything is done; what fails is tried again."""
        while True:
            try:
                if await self.attempt_all():
                    return
            except Exception as error:
                log.warning("migration interrupted, it goes on where it was", error=repr(error))
            settling = [item.settle_s for item in self._migrations if not item.blocking]
            await asyncio.sleep(max(_POLL_S, min([_LOOK_EVERY_S, *settling])))

    async def status(self) -> list[Status]:
        """Of those that this version has and of those that the database knows."""
        records = {record.id: record for record in await self._records.all()}
        found = [_status(migration, records.pop(migration.id, None)) for migration in self._migrations]
        return found + [_unknown(record) for record in records.values()]

    async def _attempt(self, migration: Backfill) -> bool:
        """Whether it is done now."""
        record = next((item for item in await self._records.all() if item.id == migration.id), None)
        if record is not None and record.done_at is not None:
            return True
        if record is not None and self._is_settling(record, migration):
            return False
        taken = await self._records.take(migration)
        if taken is None:
            return False
        if taken.position is None:
            log.info("migration pass begins", migration=migration.id, collection=migration.collection)
        try:
            return await self._pass_through(migration, taken)
        except LeaseLostError:
            log.warning("migration was taken over by another replica", migration=migration.id)
            return False

    def _is_settling(self, record: Record, migration: Backfill) -> bool:
        """Whether it is too early to look again."""
        return record.clean_since is not None and self._clock() - record.clean_since < _settle(migration)

    async def _pass_through(self, migration: Backfill, record: Record) -> bool:
        """Until a whole pass has found nothing: somebody may write behind us."""
        began = self._clock()
        position, found, is_whole = record.position, record.pass_found, record.position is None
        while True:
            ids = await self._next(migration, position)
            if ids:
                matched, changed = await self._change(migration, ids)
                position, found = ids[-1], found + matched
                await self._records.step(migration, changed, position=position, pass_found=found, clean_since=None)
                await asyncio.sleep(migration.pause_s)
            elif found == 0 and is_whole:
                return await self._found_nothing(migration, began)
            else:
                began, position, found, is_whole = self._clock(), None, 0, True
                await self._records.step(migration, 0, position=None, pass_found=0)

    async def _next(self, migration: Backfill, position: Any) -> list[Any]:
        """By id, so that what is done already is not looked through again."""
        query = {**migration.old} if position is None else {**migration.old, "_id": {"$gt": position}}
        cursor = self._database[migration.collection].find(query, {"_id": 1}).sort("_id", 1).limit(migration.batch)
        return [document["_id"] for document in await cursor.to_list(migration.batch)]

    async def _change(self, migration: Backfill, ids: list[Any]) -> tuple[int, int]:
        still_old = {**migration.old, "_id": {"$in": ids}}
        result = await self._database[migration.collection].update_many(still_old, migration.change)
        return result.matched_count, result.modified_count

    async def _found_nothing(self, migration: Backfill, began: datetime) -> bool:
        record = next(item for item in await self._records.all() if item.id == migration.id)
        clean_since = record.clean_since or began
        if began - clean_since < _settle(migration):
            await self._records.release(migration, clean_since=clean_since, position=None, pass_found=0)
            return False
        now = self._clock()
        await self._records.release(migration, done_at=now, position=None, pass_found=0)
        seconds = round((now - record.started_at).total_seconds(), 3)
        log.info("migration is done", migration=migration.id, documents=record.changed, seconds=seconds)
        return True


def _settle(migration: Backfill) -> timedelta:
    return timedelta(seconds=0 if migration.blocking else migration.settle_s)


def _status(migration: Backfill, record: Record | None) -> Status:
    if record is None:
        return Status(migration.id, "pending", migration.blocking)
    state = "done" if record.done_at is not None else "settling" if record.clean_since is not None else "running"
    is_edited = record.checksum != migration.checksum
    times = (record.changed, record.started_at, record.done_at)
    return Status(migration.id, state, migration.blocking, *times, is_edited=is_edited)


def _unknown(record: Record) -> Status:
    return Status(record.id, "unknown", False, record.changed, record.started_at, record.done_at)
