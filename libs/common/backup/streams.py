"""A stream with its consumers as one file, by JetStream's own snapshots: what `nats stream backup` and
`nats stream restore` write and read (`backup.json` and `stream.tar.s2`). Chunks pass as they come; memory stays flat.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from libs.common.backup.errors import BackupFailedError, BadBackupError, RestoreFailedError

DESCRIPTION = "backup.json"
SNAPSHOT = "stream.tar.s2"
TAIL = "tail.ndjson"
EXPECTED_LAST_SEQUENCE = "Nats-Expected-Last-Sequence"

_CHUNK_BYTES = 128 << 10
_ANSWER_S = 10.0
# The server reads the whole snapshot before it answers the last chunk.
_LAST_ANSWER_S = 300.0
_NO_MESSAGE = 10037
_NO_STREAM = 10059
# How the end of a snapshot is marked: by nothing up to 2.9, later by this.
_ENDED_WELL = (None, "204")

Tell = Callable[[int], None]
"""Called with the number of bytes that have passed."""


async def save_stream(client: NatsClient, stream: str, folder: Path, tell: Tell = lambda _: None) -> dict[str, Any]:
    """The stream and its consumers into `folder`; returns its state at the start. Raises BackupFailedError."""
    chunks: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = client.new_inbox()

    async def arrived(message: Msg) -> None:
        chunks.put_nowait(message)

    subscription = await client.subscribe(inbox, cb=arrived)
    try:
        # The server sends no more than a window ahead of what is acknowledged, which bounds the queue.
        wanted = {"deliver_subject": inbox, "no_consumers": False, "chunk_size": _CHUNK_BYTES}
        answer = await _ask(client, f"$JS.API.STREAM.SNAPSHOT.{stream}", wanted)
        _write(folder / DESCRIPTION, answer)
        with (folder / SNAPSHOT).open("wb") as file:
            await _receive(client, chunks, file, tell)
    except (NatsError, TimeoutError, OSError, _RefusedError) as error:
        raise BackupFailedError(f"the stream {stream} could not be saved: {_said(error)}") from error
    finally:
        await subscription.unsubscribe()
    state: dict[str, Any] = answer["state"]
    return state


async def _receive(client: NatsClient, chunks: asyncio.Queue[Msg], file: BinaryIO, tell: Tell) -> None:
    while True:
        async with asyncio.timeout(_ANSWER_S):
            message = await chunks.get()
        if not message.data:
            status = (message.headers or {}).get("Status")
            if status not in _ENDED_WELL:
                description = (message.headers or {}).get("Description", "")
                raise _RefusedError(f"the server broke off with {status} {description}".rstrip())
            return
        await asyncio.to_thread(file.write, message.data)
        tell(len(message.data))
        if message.reply:
            await client.publish(message.reply, b"")


async def load_stream(
    client: NatsClient, stream: str, folder: Path, *, replicas: int, tell: Tell = lambda _: None
) -> dict[str, Any]:
    """Make the stream, which must not exist, from `folder`; returns its state. Raises RestoreFailedError."""
    description = json.loads((folder / DESCRIPTION).read_bytes())
    wanted = {"config": {**description["config"], "num_replicas": replicas}, "state": description["state"]}
    chunk_bytes = min(_CHUNK_BYTES, client.max_payload // 2)
    try:
        answer = await _ask(client, f"$JS.API.STREAM.RESTORE.{stream}", wanted)
        with (folder / SNAPSHOT).open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, chunk_bytes):
                _checked(await client.request(answer["deliver_subject"], chunk, timeout=_ANSWER_S))
                tell(len(chunk))
        made = _checked(await client.request(answer["deliver_subject"], b"", timeout=_LAST_ANSWER_S))
    except (NatsError, TimeoutError, OSError, _RefusedError) as error:
        raise RestoreFailedError(f"the stream {stream} could not be restored: {_said(error)}") from error
    state: dict[str, Any] = made["state"]
    return state


async def delete_stream(client: NatsClient, stream: str) -> None:
    """Fine when there is none. Raises RestoreFailedError."""
    try:
        await _ask(client, f"$JS.API.STREAM.DELETE.{stream}", None)
    except _RefusedError as error:
        if error.code != _NO_STREAM:
            raise RestoreFailedError(f"the stream {stream} could not be removed: {error}") from error


async def state_of(client: NatsClient, stream: str) -> dict[str, Any] | None:
    """First and last sequence and more; None when there is no such stream. Raises nats-py's errors."""
    try:
        answer = await _ask(client, f"$JS.API.STREAM.INFO.{stream}", None)
    except _RefusedError as error:
        if error.code == _NO_STREAM:
            return None
        raise NatsError(str(error)) from error
    state: dict[str, Any] = answer["state"]
    return state


async def save_tail(client: NatsClient, stream: str, path: Path, *, after: int, until: int) -> int:
    """Messages after `after` up to `until`, one JSON object a line as the server gives them; returns how many.

    Raises BackupFailedError, also when one is missing in between.
    """
    with path.open("w") as file:
        for sequence in range(after + 1, until + 1):
            try:
                answer = await _ask(client, f"$JS.API.STREAM.MSG.GET.{stream}", {"seq": sequence})
            except (NatsError, TimeoutError, _RefusedError) as error:
                raise BackupFailedError(f"message {sequence} of {stream} could not be read: {_said(error)}") from error
            file.write(json.dumps(answer["message"]) + "\n")
    return max(until - after, 0)


async def append_tail(client: NatsClient, stream: str, path: Path, *, last: int) -> int:
    """Publish what the stream, whose last sequence is `last`, does not hold yet, each at the place it had.

    Returns the last sequence then. Raises RestoreFailedError, BadBackupError.
    """
    with path.open() as lines:
        for line in lines:
            message = json.loads(line)
            if message["seq"] <= last:
                continue
            if message["seq"] != last + 1:
                raise BadBackupError(f"{path} does not go on where the snapshot of {stream} ends")
            headers = {**_headers(message), EXPECTED_LAST_SEQUENCE: str(last)}
            payload = base64.b64decode(message.get("data", ""))
            try:
                ack = _checked(await client.request(message["subject"], payload, headers=headers, timeout=_ANSWER_S))
            except (NatsError, TimeoutError, _RefusedError) as error:
                raise RestoreFailedError(
                    f"message {last + 1} could not be added to {stream}: {_said(error)}"
                ) from error
            last = ack["seq"]
    return last


class _RefusedError(Exception):
    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


async def _ask(client: NatsClient, subject: str, wanted: dict[str, Any] | None) -> dict[str, Any]:
    payload = json.dumps(wanted).encode() if wanted is not None else b""
    return _checked(await client.request(subject, payload, timeout=_ANSWER_S))


def _checked(message: Msg) -> dict[str, Any]:
    if not message.data:
        return {}
    text = message.data.decode(errors="replace")
    if text.startswith("-ERR"):
        raise _RefusedError(text.removeprefix("-ERR").strip(" '"))
    answer: dict[str, Any] = json.loads(text)
    if error := answer.get("error"):
        raise _RefusedError(error.get("description", "refused"), error.get("err_code", 0))
    return answer


def _headers(message: dict[str, Any]) -> dict[str, str]:
    lines = base64.b64decode(message.get("hdrs", "")).decode().split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name: value.strip() for name, _, value in pairs}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2))


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
