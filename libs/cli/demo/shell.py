"""A terminal as a person uses it: type, then read until something shows."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from websockets.sync.client import ClientConnection

OUTPUT_TIMEOUT_S = 20.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


class DemoError(Exception):
    """Something was not as it should be."""


class Shell:
    """One open session."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._seen = ""
        ready = json.loads(socket.recv(timeout=OUTPUT_TIMEOUT_S))
        if ready["type"] != "ready":
            raise DemoError(f"the first frame is {ready}")
        self.session_id = ready["session_id"]

    def send(self, frame: dict[str, Any]) -> None:
        """One JSON frame."""
        self._socket.send(json.dumps(frame))

    def type(self, text: str) -> None:
        """Input."""
        self.send({"type": "input", "data": text})

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
        try:
            frame: dict[str, Any] = json.loads(self._socket.recv(timeout=max(deadline - time.monotonic(), 0.01)))
        except TimeoutError as error:
            raise DemoError(complaint) from error
        return frame
