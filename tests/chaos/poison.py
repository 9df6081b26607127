"""Messages that nobody can handle, published straight to the stream. Each belongs into the dead letters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

import nats

from libs.common.ids import new_id
from libs.common.messaging.streams import EVENTS_STREAM
from tests.chaos.ledger import Ledger, Poison

_PAUSES_S = (1.0, 5.0)
_RETRY_S = 0.5
_AGGREGATES = {
    "env": ("created", "stop_requested", "status_changed"),
    "runtime": ("running", "stopped", "failed"),
    "terminal": ("session_opened",),
    "user": ("registered", "logged_in"),
}


class Poisoner:
    """Publishes until it is stopped; `aggregate_ids` gives ids of real aggregates, whose own events must not suffer."""

    def __init__(
        self, nats_url: str, choose: random.Random, ledger: Ledger, aggregate_ids: Callable[[], list[str]]
    ) -> None:
        self._nats_url = nats_url
        self._choose = choose
        self._ledger = ledger
        self._aggregate_ids = aggregate_ids
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Let `run` end; never by cancelling it, or a message might be in the stream that nobody wrote down."""
        self._stopping.set()

    async def run(self) -> None:
        """Now and then one message."""
        client = await nats.connect(self._nats_url, max_reconnect_attempts=-1, reconnect_time_wait=1, error_cb=_ignore)
        try:
            while not self._stopping.is_set():
                await self._publish(client)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._choose.uniform(*_PAUSES_S)):
                        await self._stopping.wait()
        finally:
            await client.close()

    async def _publish(self, client: Any) -> None:
        aggregate, event = self._kind()
        about = self._choose.choice([*self._aggregate_ids()[-50:], f"nobody-{new_id()[-8:]}"])
        subject = f"devpocket.{aggregate}.{about}.{event}"
        flaw, payload = self._choose.choice(_FLAWS)
        body = payload(aggregate, about, event)
        headers = {"Nats-Msg-Id": new_id()}
        while True:
            try:
                stored = await client.jetstream().publish(subject, body, stream=EVENTS_STREAM, headers=headers)
            except Exception:
                # Away for a moment; the id keeps the second try from being a second message.
                await asyncio.sleep(_RETRY_S)
            else:
                self._ledger.poison.append(Poison(stored.seq, subject, flaw))
                return

    def _kind(self) -> tuple[str, str]:
        aggregate = self._choose.choice(sorted(_AGGREGATES))
        return aggregate, self._choose.choice(_AGGREGATES[aggregate])


def _envelope(aggregate: str, about: str, event: str, **changes: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": new_id(),
        "type": f"devpocket.{aggregate}.{event}.v1",
        "source": "chaos",
        "subject": about,
        "time": "2026-01-01T00:00:00Z",
        "data": {},
        **changes,
    }


def _no_json(aggregate: str, about: str, event: str) -> bytes:
    return b'{"specversion": "1.0", "id": '


def _no_object(aggregate: str, about: str, event: str) -> bytes:
    return b"[1, 2, 3]"


def _no_bytes(aggregate: str, about: str, event: str) -> bytes:
    return b""


def _unknown_type(aggregate: str, about: str, event: str) -> bytes:
    return json.dumps(_envelope(aggregate, about, event, type=f"devpocket.{aggregate}.exploded.v1")).encode()


def _missing_data(aggregate: str, about: str, event: str) -> bytes:
    return json.dumps(_envelope(aggregate, about, event)).encode()


def _missing_field(aggregate: str, about: str, event: str) -> bytes:
    envelope = _envelope(aggregate, about, event)
    del envelope["id"]
    return json.dumps(envelope).encode()


_FLAWS: tuple[tuple[str, Callable[[str, str, str], bytes]], ...] = (
    ("no JSON", _no_json),
    ("no object", _no_object),
    ("empty", _no_bytes),
    ("unknown type", _unknown_type),
    ("data without its fields", _missing_data),
    ("no id", _missing_field),
)


async def _ignore(_error: Exception) -> None:
    """Publishing is tried until it works."""
