"""Bytes that are no text, characters in pieces, and large pastes, in both modes."""

from __future__ import annotations

import base64
import hashlib
import random

import pytest

from services.terminal.settings import TerminalSettings
from tests.support.phone import Phone
from tests.support.screen import ScreenTerminal, screen

_LARGEST = TerminalSettings(_env_file=None).terminal_message_bytes
_PASTE = ("\x1b[200~", "\x1b[201~")
# Reads a paste as an editor does, key by key in raw mode: a line discipline that collects lines would cut them at 4096.
_READER = """
import hashlib, os, sys
os.write(1, b"\\x1b[?2004hgo" b"ahead")
got = b""
while not got.endswith(b"\\x1b[201~"):
    got += os.read(0, 65536)
got = got.removeprefix(b"\\x1b[200~").removesuffix(b"\\x1b[201~")
os.write(1, b"=%d %s=\\r\\n" % (len(got), hashlib.sha256(got).hexdigest().encode()))
"""
# Each character in two pieces, split at each of its bytes; the second follows when somebody has seen the first.
_PIECES = """
import os
os.write(1, b"go" b"ahead")
for char in %r:
    data = char.encode()
    for split in range(1, len(data)):
        for piece in (data[:split], data[split:]):
            os.write(1, piece)
            os.read(0, 1)
os.write(1, b"the" b"end")
"""
_CHARACTERS = "é€😀🂡"


async def run(terminal: ScreenTerminal, program: str) -> None:
    """Start a Python program on a raw terminal, and wait for its `goahead`."""
    code = base64.b64encode(program.encode()).decode()
    await terminal.type(f"stty raw -echo; python3 -c \"import base64;exec(base64.b64decode('{code}'))\"; stty sane\n")
    await terminal.until_so(lambda: "goahead" in terminal.output, "started")


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
class TestPaste:
    async def test_as_large_as_a_message_may_be(self, alice: Phone, environment_id: str, binary: bool) -> None:
        async with screen(alice, environment_id, binary=binary) as terminal:
            await run(terminal, _READER)
            pasted = some_text(_LARGEST - terminal.size("".join(_PASTE)))
            message = "".join((_PASTE[0], pasted, _PASTE[1]))
            assert terminal.size(message) == _LARGEST
            await terminal.type(message)
            await terminal.until_so(lambda: arrived(terminal, pasted), "pasted")

    async def test_in_many_messages(self, alice: Phone, environment_id: str, binary: bool) -> None:
        async with screen(alice, environment_id, binary=binary) as terminal:
            await run(terminal, _READER)
            pasted = some_text(_LARGEST)
            whole = "".join((_PASTE[0], pasted, _PASTE[1]))
            for start in range(0, len(whole), 16_384):
                await terminal.type(whole[start : start + 16_384])
            await terminal.until_so(lambda: arrived(terminal, pasted), "pasted")


def some_text(length: int) -> str:
    """Of characters that are one byte each, and the same in JSON."""
    return "".join(random.Random(11).choices("abcdefghijklmnopqrstuvwxyz0123456789 .,;", k=length))


def arrived(terminal: ScreenTerminal, pasted: str) -> bool:
    """Whether the reader tells of exactly that."""
    if "=\r\n" not in terminal.output:
        return False
    digest = hashlib.sha256(pasted.encode()).hexdigest()
    assert f"={len(pasted)} {digest}=" in terminal.output, terminal.output[-200:]
    return True


async def test_a_character_in_pieces_is_shown_whole(alice: Phone, environment_id: str) -> None:
    async with screen(alice, environment_id, binary=False) as terminal:
        await run(terminal, _PIECES % _CHARACTERS)
        watching = f"&session={terminal.session_id}&mode=ro"
        async with screen(alice, environment_id, binary=True, query=watching) as watcher:
            await watcher.until_so(lambda: b"goahead" in watcher.raw, "goahead")
            written = b""
            for char in _CHARACTERS:
                data = char.encode()
                for split in range(1, len(data)):
                    for piece in (data[:split], data[split:]):
                        written += piece
                        await watcher.until_so(lambda: watcher.raw.endswith(written), f"{written!r}")  # noqa: B023
                        await terminal.type("x")
        await terminal.until_so(lambda: "theend" in terminal.output, "the end")
        shown = terminal.output.partition("goahead")[2].partition("theend")[0]
        assert shown == "".join(char * (len(char.encode()) - 1) for char in _CHARACTERS)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
async def test_bytes_that_are_no_text(alice: Phone, environment_id: str, binary: bool) -> None:
    """Binary mode hands them on; JSON mode shows U+FFFD, as if all had been decoded at once."""
    data = random.Random(5).randbytes(300_000)
    await alice.http.put(f"/api/v1/environments/{environment_id}/files/noise", content=data)
    async with screen(alice, environment_id, binary=binary, shown=False) as terminal:
        await terminal.type("stty raw -echo; echo go''ahead; cat noise; echo the''end; stty sane\n")
        await terminal.until_so(lambda: "theend" in terminal.output[-200:], "the end")
        if binary:
            assert terminal.raw.partition(b"goahead\n")[2].partition(b"theend")[0] == data
        text = terminal.output.partition("goahead\n")[2].rpartition("theend")[0]
        assert text == data.decode("utf-8", "replace")
