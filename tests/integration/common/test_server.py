"""How a service ends: its own process, signals, and connections as a gateway keeps them."""

from __future__ import annotations

import asyncio
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.app import eventually
from tests.support.servers import free_port, wait_for_port

_SILENT_S = 60.0


class Kept:
    """A connection that is used for one request after the other."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_SILENT_S)
        self._file = self._socket.makefile("rb")

    def send(self) -> None:
        """A request that must not be sent twice."""
        self._socket.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")

    def answer(self) -> dict[str, str]:
        """Headers of the answer, and its `status`."""
        _, status, _ = self._file.readline().decode().split(" ", 2)
        headers = {"status": status}
        while (line := self._file.readline().decode().strip()) != "":
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        self._file.read(int(headers["content-length"]))
        return headers

    @property
    def is_open(self) -> bool:
        """Whether it is, now."""
        return select.select([self._socket], [], [], 0)[0] == []

    def has_ended(self) -> bool:
        """Waits for it."""
        return self._file.read(1) == b""


@contextmanager
def _serving(factory: str = "tests.integration.stack.standins:auth") -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    argv = [sys.executable, "-m", "libs.common.http.server", factory]
    process = subprocess.Popen([*argv, "--port", str(port)])
    try:
        wait_for_port(port, process)
        yield port, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def serving() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with _serving() as running:
        yield running


def test_a_request_on_a_connection_that_was_idle_is_answered_and_is_the_last(
    serving: tuple[int, subprocess.Popen[bytes]],
) -> None:
    port, process = serving
    kept, other = Kept(port), Kept(port)
    for connection in (kept, other):
        connection.send()
        assert "connection" not in connection.answer()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    # A connection after the signal is served too; its answer shows that the signal has arrived.
    headers: dict[str, str] = {}
    while headers.get("connection") != "close":
        late = Kept(port)
        late.send()
        headers = late.answer()
    kept.send()
    assert kept.answer()["connection"] == "close"
    assert kept.has_ended()
    # The other one is left to its client for 3 s.
    assert other.has_ended()
    assert time.monotonic() - began > 2
    assert process.wait(_SILENT_S) == -signal.SIGTERM


def test_in_a_hurry_it_waits_for_nobody_idle(serving: tuple[int, subprocess.Popen[bytes]]) -> None:
    with _serving() as (patients_port, patient):
        port, process = serving
        kept, others = Kept(port), Kept(patients_port)
        for connection in (kept, others):
            connection.send()
            connection.answer()
        patient.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert kept.has_ended()
        process.wait(_SILENT_S)
        # One that is in no hurry, and was told before, still waits.
        assert others.is_open


async def test_a_web_socket_that_is_being_opened_is_taken_in_and_told_to_come_back() -> None:
    with _serving("tests.integration.common.slow_handshake:create_app") as (port, process):

        async def is_opening() -> bool:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"http://127.0.0.1:{port}/")).text == "1"

        connecting = asyncio.create_task(connect(f"ws://127.0.0.1:{port}/socket").__aenter__())
        await eventually(is_opening)
        process.send_signal(signal.SIGTERM)
        opened = await connecting
        await opened.wait_closed()
        assert opened.close_code == 1001
