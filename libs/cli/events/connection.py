"""Where events come from: the stack in the data folder, or an exported file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from libs.cli.events.output import progress_bar
from libs.cli.options import fail
from libs.cli.plugins import join_stack

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from libs.common.history.query import EventQuery
    from libs.common.history.recorded import Recorded

_ANSWER_TIMEOUT_S = 10.0

_Result = TypeVar("_Result")


def run(
    data_dir: Path, work: Callable[[JetStreamContext], Coroutine[Any, Any, _Result]], *, reconnect: bool = False
) -> _Result:
    """Do `work` with a connection to the stack's NATS; what goes wrong on purpose ends with a sentence."""
    from libs.common.errors import DevPocketError
    from libs.common.telemetry.logs import configure_logging

    join_stack(data_dir)
    url = os.environ.get("NATS_URL")
    if not url:
        fail(f"no stack runs in {data_dir}; start one with `devpocket up`, or set NATS_URL")

    # Not among what the command prints, which may be for another program to read.
    configure_logging("devpocket", sys.stderr)

    async def connected_work() -> _Result:
        async with _connected(url, reconnect=reconnect) as js:
            return await work(js)

    try:
        return asyncio.run(connected_work())
    except DevPocketError as error:
        fail(error.message)


@asynccontextmanager
async def _connected(url: str, *, reconnect: bool) -> AsyncIterator[JetStreamContext]:
    import nats
    from nats.errors import Error as NatsError

    from libs.common.history.errors import EventsUnavailableError

    servers = [part.strip() for part in url.split(",")]
    try:
        client = await nats.connect(servers, **_PATIENCE_ONCE)
        if reconnect:
            # Asked to reconnect, nats-py would also have tried for ever to connect for the first time.
            await client.close()
            client = await nats.connect(servers, **_PATIENCE_EVER)
    except (OSError, NatsError, TimeoutError) as error:
        raise EventsUnavailableError(f"NATS cannot be reached: {error or type(error).__name__}") from error
    try:
        yield client.jetstream(timeout=_ANSWER_TIMEOUT_S)
    finally:
        with contextlib.suppress(NatsError, asyncio.CancelledError):
            await client.close()


async def _ignore(_error: Exception) -> None:
    """Errors of the connection reach the caller through its calls."""


_PATIENCE_ONCE: dict[str, Any] = {
    "connect_timeout": 3.0,
    "allow_reconnect": False,
    "max_reconnect_attempts": 1,
    "reconnect_time_wait": 0.1,
    "error_cb": _ignore,
}
_PATIENCE_EVER: dict[str, Any] = {
    "connect_timeout": 3.0,
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 0.5,
    "error_cb": _ignore,
}


def read_events(data_dir: Path, file: Path | None, query: EventQuery, each: Callable[[Recorded], None]) -> None:
    """Call `each` with every event that is meant, oldest first, from the file or else from the stack."""
    from libs.common.history.story import EventStream

    if file is not None:
        for item in slice_events(file):
            if query.matches(item):
                each(item)
        return

    async def read(js: JetStreamContext) -> None:
        with progress_bar("reading events") as progress:
            async for item in EventStream(js).all(query, progress):
                each(item)

    run(data_dir, read)


def slice_events(file: Path) -> Iterator[Recorded]:
    """The events of an export, or an end with a sentence that names the line."""
    from libs.common.history.errors import BadSliceError
    from libs.common.history.ndjson import from_lines

    try:
        with opened(file) as lines:
            for _, item in from_lines(lines):
                yield item
    except BadSliceError as error:
        fail(f"{file}: {error}")


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """The file, `-` for standard input; in either case it can be read twice."""
    try:
        source = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    except OSError as error:
        fail(f"{file}: {error.strerror or error}")
    with source:
        if source.seekable():
            yield cast("BinaryIO", source)
            return
        with tempfile.TemporaryFile() as copy:
            while block := source.read(1 << 20):
                copy.write(block)
            copy.seek(0)
            yield cast("BinaryIO", copy)
