"""Restoring a backup into servers on which no service runs.

Every database carries a mark from before the first document until after the last event: a service that starts on a half
restored one says so and waits, and the next restore may overwrite what it finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from libs.common.backup import databases
from libs.common.backup.errors import RestoreFailedError, RestoreRefusedError
from libs.common.backup.manifest import Manifest
from libs.common.backup.saving import DATABASES, STREAMS, Report
from libs.common.backup.streams import TAIL, append_tail, delete_stream, load_stream, state_of
from libs.common.errors import DevPocketError
from libs.common.history.reader import StreamReader
from libs.common.ids import time_of
from libs.common.messaging.outbox import PENDING
from libs.common.messaging.redrive import redrive_subject
from libs.common.messaging.streams import EVENTS_STREAM, EVENTS_SUBJECTS
from libs.common.migrations.records import RESTORING, SCHEMA

_ANSWER_S = 2.0
# Clocks of services and of the server differ.
_MARGIN = timedelta(minutes=5)


class Restorer:
    """Restores streams and databases. `databases`: names on the target, by service. `replicas`: of the streams."""

    def __init__(
        self,
        nats: NatsClient,
        mongo: MongoClient[Any],
        names: Mapping[str, str],
        *,
        replicas: int,
        report: Report = lambda *_: None,
    ) -> None:
        self._nats = nats
        self._mongo = mongo
        self._names = names
        self._replicas = replicas
        self._report = report

    async def check(self, manifest: Manifest, *, replace: bool) -> bool:
        """Whether an earlier restore was broken off here. Raises RestoreRefusedError when the target must not be
        written to, RestoreFailedError."""
        with _translated("the target cannot be looked at"):
            running = await self._running(manifest.streams)
            if running:
                raise RestoreRefusedError(f"services are running on the target ({', '.join(running)}); stop them first")
            is_half_restored = await asyncio.to_thread(self._is_half_restored)
            if replace or is_half_restored:
                return is_half_restored
            for name in self._names.values():
                if not await asyncio.to_thread(databases.is_empty, self._mongo, name):
                    raise _not_empty(f"the database {name}")
            for stream in manifest.streams:
                state = await state_of(self._nats, stream)
                if state is not None and state["last_seq"] > 0:
                    raise _not_empty(f"the stream {stream}")
        return False

    async def restore(self, folder: Path, manifest: Manifest) -> None:
        """Everything in `folder`, in place of what is there. Raises RestoreFailedError."""
        with _translated("the restore was broken off"):
            await asyncio.to_thread(self._begin)
            await asyncio.to_thread(self._load_databases, folder / DATABASES, manifest)
            for stream in manifest.streams:
                await self._load_stream(folder / STREAMS / stream, stream, manifest)
            await self._settle_outboxes()

    async def finish(self) -> None:
        """Take the marks away: services may start. Raises RestoreFailedError."""
        with _translated("the restore could not be finished"):
            for name in self._names.values():
                await asyncio.to_thread(self._mongo[name][SCHEMA].delete_one, {"_id": RESTORING})

    async def _running(self, streams: Iterable[str]) -> list[str]:
        """Durable consumers whose service answers."""
        found: list[str] = []
        for stream in streams:
            if await state_of(self._nats, stream) is None:
                continue
            for info in await self._nats.jetstream().consumers_info(stream):
                try:
                    await self._nats.request(redrive_subject(info.name), b"", timeout=_ANSWER_S)
                except NoRespondersError:
                    continue
                except NatsTimeoutError:
                    # Somebody listens, and has no time to answer.
                    pass
                found.append(info.name)
        return found

    def _is_half_restored(self) -> bool:
        return any(self._mongo[name][SCHEMA].find_one({"_id": RESTORING}) for name in self._names.values())

    def _begin(self) -> None:
        began = datetime.now(UTC)
        for name in self._names.values():
            self._mongo[name][SCHEMA].replace_one({"_id": RESTORING}, {"began_at": began}, upsert=True)
        for name in self._names.values():
            database = self._mongo[name]
            for collection in database.list_collection_names():
                if collection != SCHEMA and not collection.startswith("system."):
                    database.drop_collection(collection)
            database[SCHEMA].delete_many({"_id": {"$ne": RESTORING}})

    def _load_databases(self, folder: Path, manifest: Manifest) -> None:
        total = sum(sum(stored.documents.values()) for stored in manifest.databases.values())
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            self._report("documents", done, total)

        for service, stored in manifest.databases.items():
            databases.load(self._mongo, self._names[service], folder / stored.name, stored.documents, tell)

    async def _load_stream(self, folder: Path, stream: str, manifest: Manifest) -> None:
        stored = manifest.streams[stream]
        total = sum(file.size for name, file in manifest.files.items() if name.startswith(f"{STREAMS}/{stream}/"))
        done = 0

        def tell(size: int) -> None:
            nonlocal done
            done += size
            self._report(stream, done, total)

        await delete_stream(self._nats, stream)
        state = await load_stream(self._nats, stream, folder, replicas=self._replicas, tell=tell)
        last: int = state["last_seq"]
        if stored.tail:
            last = await append_tail(self._nats, stream, folder / TAIL, last=last)
        if last < stored.last_sequence:
            raise RestoreFailedError(f"{stream} ends with {last} instead of {stored.last_sequence}")

    async def _settle_outboxes(self) -> None:
        """What is in the stream must not be published again: the relay had been about to take it out."""
        waiting = await asyncio.to_thread(lambda: list(self._waiting()))
        times = [time for _, _, ids in waiting for time in map(time_of, ids) if time is not None]
        if not times:
            return
        wanted = {item for _, _, ids in waiting for item in ids}
        reader = StreamReader(self._nats.jetstream())
        since = min(times) - _MARGIN
        stored = {
            item.identity
            async for item in reader.read(EVENTS_STREAM, EVENTS_SUBJECTS, since=since)
            if item.identity in wanted
        }
        for name, collection, ids in waiting:
            done = [item for item in ids if item in stored]
            if done:
                pull = {"$pull": {PENDING: {"id": {"$in": done}}}}
                await asyncio.to_thread(
                    self._mongo[name][collection].update_many, {f"{PENDING}.id": {"$in": done}}, pull
                )

    def _waiting(self) -> Iterator[tuple[str, str, list[str]]]:
        for name in self._names.values():
            database = self._mongo[name]
            for collection in database.list_collection_names():
                found = database[collection].find({f"{PENDING}.id": {"$exists": True}}, {f"{PENDING}.id": 1})
                ids = [entry["id"] for document in found for entry in document[PENDING]]
                if ids:
                    yield name, collection, ids


def _not_empty(what: str) -> RestoreRefusedError:
    return RestoreRefusedError(f"{what} is not empty; to lose what is there, restore with --replace")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except DevPocketError:
        raise
    except (PyMongoError, NatsError, OSError, TimeoutError) as error:
        raise RestoreFailedError(
            f"{what}: {error or type(error).__name__}; restore again when that is mended"
        ) from error
