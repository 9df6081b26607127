"""The exec protocol: statuses, frames and the buffer between arriving and being read."""

from __future__ import annotations

import asyncio
import json

import pytest

from libs.runtime.kubernetes.channels import Ending, Inbox, end_of, resize_frame
from libs.runtime.port import TerminalSize


def failure(message: str, *, code: int | None = None) -> bytes:
    """A Failure as the API sends it."""
    causes = [{"reason": "ExitCode", "message": str(code)}] if code is not None else []
    return json.dumps({"status": "Failure", "message": message, "details": {"causes": causes}}).encode()


@pytest.mark.parametrize(
    ("content", "code", "is_exit"),
    [
        (b'{"metadata":{},"status":"Success"}', 0, True),
        (failure("command terminated with non-zero exit code", code=3), 3, True),
        (failure('exec: "no-shell": executable file not found in $PATH'), 127, False),
        (failure('exec: "/bin/sh": stat /bin/sh: no such file or directory'), 127, False),
        (failure("the node has gone away"), 137, False),
        (b"plain words", 137, False),
        (b"[]", 137, False),
    ],
)
def test_how_a_process_ended(content: bytes, code: int, is_exit: bool) -> None:
    ending = Ending(content)
    assert (ending.code, ending.is_exit) == (code, is_exit)


def test_frames() -> None:
    assert end_of(0) == b"\xff\x00"
    frame = resize_frame(TerminalSize(cols=132, rows=50))
    assert frame[0] == 4
    assert json.loads(frame[1:]) == {"Width": 132, "Height": 50}


async def test_an_inbox_gives_no_more_than_asked_for_and_loses_nothing() -> None:
    inbox = Inbox()
    for part in (b"abc", b"defgh"):
        inbox.feed(part)
    assert [await inbox.read(2), await inbox.read(100)] == [b"ab", b"cdefgh"]
    assert inbox.size == 0
    inbox.end()
    assert await inbox.read(1) == b""


async def test_a_cancelled_read_takes_nothing() -> None:
    inbox = Inbox()
    reading = asyncio.ensure_future(inbox.read(10))
    await asyncio.sleep(0)
    reading.cancel()
    inbox.feed(b"kept")
    assert await inbox.read(10) == b"kept"


async def test_a_line_leaves_the_rest() -> None:
    inbox = Inbox()
    inbox.feed(b"hel")
    inbox.feed(b"lo\r\nrest")
    assert await inbox.read_line(100) == b"hello\r\n"
    assert await inbox.read(100) == b"rest"


async def test_dropping_wakes_whoever_waits() -> None:
    inbox = Inbox()
    reading = asyncio.ensure_future(inbox.read(10))
    await asyncio.sleep(0)
    inbox.end(drop=True)
    assert await asyncio.wait_for(reading, 60) == b""
