"""A terminal as a person on a train uses it: type, then read until something shows, whatever the connection does."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

OUTPUT_TIMEOUT_S = 20.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
# What a gateway and a service say while a service is restarted.
_FOR_A_MOMENT = (502, 503)

# Connects with these parameters in the query of the URL.
Dial = Callable[[str], ClientConnection]


class DemoError(Exception):
    """Something was not as it should be."""


class RefusedError(DemoError):
    """A call was answered with another status than expected."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def is_over_for_a_moment(error: BaseException) -> bool:
    """Whether to connect again: not when the server has said that it is over, or why it must not be."""
    match error:
        case ConnectionClosed(rcvd=frame):
            return frame is None or (frame.code != 1000 and not 4400 <= frame.code < 4500)
        case InvalidStatus(response=response):
            return response.status_code in _FOR_A_MOMENT
        case RefusedError(status=status):
            return status in _FOR_A_MOMENT
    return isinstance(error, OSError)


def again_until(deadline: float) -> Retrying:
    """Calls what it is given again, while that fails for a moment. Raises its last error."""
    return Retrying(
        retry=retry_if_exception(is_over_for_a_moment),
        wait=wait_exponential(_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
        stop=stop_after_delay(max(deadline - time.monotonic(), 0)),
        reraise=True,
    )


class Shell:
    """One session over as many connections as it takes: docs/api/terminal.md. `close` ends the last one."""

    def __init__(self, dial: Dial) -> None:
        """Raises DemoError, and what connecting raises."""
        self._dial = dial
        self._client = secrets.token_hex(16)
        self._seen = ""
        self._offset = 0
        self._number = 0
        self._size = 80, 24
        self._unacknowledged: list[dict[str, Any]] = []
        self.session_id = ""
        self._connect()

    def close(self) -> None:
        """The connection; the shell may go on."""
        self._socket.close()

    def resize(self, columns: int, rows: int) -> None:
        """The window."""
        self._size = columns, rows
        self._send({"type": "resize", "cols": columns, "rows": rows})

    def _send(self, frame: dict[str, Any]) -> None:
        try:
            self._socket.send(json.dumps(frame))
        except ConnectionClosed as error:
            self._come_back(error, time.monotonic() + OUTPUT_TIMEOUT_S)
            self._socket.send(json.dumps(frame))

    def type(self, text: str) -> None:
        """Input, which arrives once however often the connection is lost."""
        self._number += 1
        frame = {"type": "input", "data": text, "seq": self._number}
        # Sent twice when the connection was lost: the shell takes a number once.
        self._unacknowledged.append(frame)
        self._send(frame)

    def expect(self, pattern: str) -> str:
        """Read until `pattern` shows; returns what matched and forgets what came before."""
        deadline = time.monotonic() + OUTPUT_TIMEOUT_S
        while True:
            found = re.search(pattern, self._seen)
            if found is not None:
                self._seen = self._seen[found.end() :]
                return found[0]
            frame = self._receive(deadline, f"{pattern!r} did not show, only {self._seen[-300:]!r}")
            if frame["type"] == "output":
                self._seen = _ESCAPES.sub("", self._seen + frame["data"])
            elif frame["type"] in {"exit", "error"}:
                raise DemoError(f"the terminal answered {frame}")

    def expect_exit(self) -> int:
        """Read until the shell has ended; its exit code."""
        deadline = time.monotonic() + OUTPUT_TIMEOUT_S
        while True:
            frame = self._receive(deadline, "the shell did not end")
            if frame["type"] == "exit":
                return int(frame["code"])

    def _receive(self, deadline: float, complaint: str) -> dict[str, Any]:
        while True:
            try:
                frame: dict[str, Any] = json.loads(self._socket.recv(timeout=max(deadline - time.monotonic(), 0.01)))
            except TimeoutError as error:
                raise DemoError(complaint) from error
            except ConnectionClosed as error:
                self._come_back(error, deadline)
                continue
            if frame["type"] == "output":
                self._offset = frame["offset"]
            elif frame["type"] == "ack":
                self._acknowledged(frame["seq"])
            return frame

    def _come_back(self, error: Exception, deadline: float) -> None:
        """To the same shell. Raises DemoError when that does not work until then."""
        try:
            if not is_over_for_a_moment(error):
                raise error
            again_until(deadline)(self._resume)
        except (ConnectionClosed, InvalidStatus, RefusedError, OSError) as last:
            raise DemoError(f"the connection is lost: {last}") from last

    def _resume(self) -> None:
        self._connect()
        for frame in list(self._unacknowledged):
            self._socket.send(json.dumps(frame))

    def _connect(self) -> None:
        resumed = f"session={self.session_id}&offset={self._offset}&" if self.session_id else ""
        columns, rows = self._size
        self._socket = self._dial(f"{resumed}client={self._client}&cols={columns}&rows={rows}")
        ready = json.loads(self._socket.recv(timeout=OUTPUT_TIMEOUT_S))
        if ready["type"] != "ready":
            raise DemoError(f"the first frame is {ready}")
        self.session_id = ready["session_id"]
        self._acknowledged(ready["seq"] or 0)

    def _acknowledged(self, number: int) -> None:
        self._unacknowledged = [frame for frame in self._unacknowledged if frame["seq"] > number]
