"""Bringing a slice of history into another system, where it can be read but is not acted upon."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from libs.common.history.errors import BadSliceError, EventsUnavailableError
from libs.common.history.ndjson import from_lines
from libs.common.history.query import ALL_EVENTS
from libs.common.history.reader import Progress, StreamReader
from libs.common.history.recorded import IMPORTED_STORED_AT, MESSAGE_ID, Recorded, iso
from libs.common.messaging.streams import EVENTS_STREAM
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE

# Published before the acks of all of them are awaited: as much as the server is asked to hold at a time.
_WINDOW = 256
_HEADER_ROOM_BYTES = 1_024
# With more aggregates than this, reading the whole stream once is quicker than one reading for each.
_MANY_AGGREGATES = 16


@dataclass(frozen=True, slots=True)
class Imported:
    """How many events were added, and how many were there already."""

    added: int
    already_there: int


@dataclass(slots=True)
class CheckedSlice:
    """What a file holds that was read to its end without a complaint."""

    events: int = 0
    identities: set[str] = field(default_factory=set)
    aggregates: set[str] = field(default_factory=set)


def check_slice(file: BinaryIO, max_payload: int) -> CheckedSlice:
    """Read all of a file, from the beginning. `max_payload`: bytes the server takes. Raises BadSliceError."""
    checked = CheckedSlice()
    for number, item in _items(file):
        size = len(item.payload) + sum(len(name) + len(value.encode()) + 4 for name, value in item.headers.items())
        if size + _HEADER_ROOM_BYTES > max_payload:
            raise BadSliceError(f"line {number}: the event has {size} bytes, more than the server takes")
        checked.events += 1
        checked.identities.add(item.identity)
        checked.aggregates.add(item.about or "")
    return checked


class Importer:
    """Publishes exported events into the event stream, which must exist."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._reader = StreamReader(js)

    async def bring_in(self, file: BinaryIO, progress: Progress | None = None) -> Imported:
        """Add what the stream does not hold, in the order of the file; nothing unless the whole file is sound.

        `file` can be read twice. Raises BadSliceError, EventsUnavailableError.
        """
        checked = check_slice(file, self._js._nc.max_payload)
        held = await self._held(checked)
        added = 0
        todo = self._missing(file, held)
        while window := list(itertools.islice(todo, _WINDOW)):
            await self._publish(window)
            added += len(window)
            if progress is not None:
                progress(added, len(checked.identities) - len(held))
        return Imported(added, checked.events - added)

    async def _held(self, checked: CheckedSlice) -> set[str]:
        """Which of the file's events the stream has, however long ago they came."""
        found: set[str] = set()
        for subject in _subjects(checked.aggregates):
            async for item in self._reader.read(EVENTS_STREAM, subject):
                if item.identity in checked.identities:
                    found.add(item.identity)
        return found

    @staticmethod
    def _missing(file: BinaryIO, held: set[str]) -> Iterator[Recorded]:
        seen = set(held)
        for _, item in _items(file):
            if item.identity not in seen:
                seen.add(item.identity)
                yield item

    async def _publish(self, window: Iterable[Recorded]) -> None:
        """One connection keeps the order, so the acks may be awaited together."""
        try:
            acks = [
                await self._js.publish_async(
                    item.subject, item.payload, wait_stall=30.0, stream=EVENTS_STREAM, headers=import_headers(item)
                )
                for item in window
            ]
            async with asyncio.timeout(30.0):
                await asyncio.gather(*acks)
        except (TimeoutError, NatsError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise EventsUnavailableError(
                f"importing stopped: {reason}; import the file again, what is there already is not added twice"
            ) from error


def import_headers(item: Recorded) -> dict[str, str]:
    """What the event travelled with, where it stood and when it was stored; no instructions to the server."""
    kept = {name: value for name, value in item.headers.items() if not name.lower().startswith("nats-")}
    return {
        **kept,
        MESSAGE_ID: item.identity,
        IMPORTED_SEQUENCE: str(item.sequence),
        IMPORTED_STORED_AT: iso(item.stored_at),
    }


def _items(file: BinaryIO) -> Iterator[tuple[int, Recorded]]:
    file.seek(0)
    return from_lines(file)


def _subjects(aggregates: set[str]) -> list[str]:
    if len(aggregates) > _MANY_AGGREGATES:
        return [ALL_EVENTS]
    return [f"devpocket.*.{aggregate}.>" if aggregate else ALL_EVENTS for aggregate in sorted(aggregates)]
