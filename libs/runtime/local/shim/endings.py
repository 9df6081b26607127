"""How a sandbox ends: out-of-memory kills, the words for it, and what is given back to the machine."""

# ruff: noqa: SIM105 - importing contextlib would cost every start two milliseconds
from __future__ import annotations

import os
import time

TYPE_CHECKING = False  # importing typing would cost every start seven milliseconds
if TYPE_CHECKING:
    from typing import Any

KILLED = 128 + 9
_KILL_SECONDS = 2.0


class MemoryWatch:
    """Counts the out-of-memory kills of a memory cgroup. `fd` becomes ready at each; -1 where there is no cgroup."""

    def __init__(self, config: dict[str, Any] | None) -> None:
        self._config = config
        self.fd = -1
        self.kills = 0
        self._expect_until = 0.0
        if config is not None:
            try:
                self.fd = _subscribe(config)
            except OSError:  # the group is gone, and the sandbox with it
                pass

    @property
    def by_priority(self) -> bool:
        """Version 2 reports by POLLPRI on the counter's file, version 1 by an eventfd."""
        return self._config is not None and self._config["kind"] == "v2"

    @property
    def patience_milliseconds(self) -> int | None:
        """How long to wait before asking for news unprompted; None when there is no need to."""
        return 50 if time.monotonic() < self._expect_until else None

    def hear(self) -> None:
        """Take note of an event. The kernel tells that memory ran out before it kills, and counts after that."""
        self._expect_until = time.monotonic() + _KILL_SECONDS
        if self.by_priority:
            os.pread(self.fd, 4096, 0)
        else:
            os.read(self.fd, 8)

    def news(self) -> str | None:
        """A sentence when processes were killed since the last call."""
        kills = _count_kills(self._config["counter"]) if self._config is not None else 0
        if self._config is None or kills <= self.kills:
            return None
        self.kills = kills
        self._expect_until = 0.0
        return f"OOMKilled: a process was ended because the memory limit ({self._config['limit']}) was reached."


def explain(code: int, oom_kills: int) -> tuple[str, str]:
    """Reason and message for the end of a main process."""
    if oom_kills and code == KILLED:
        return "OOMKilled", "The environment reached its memory limit and its main process was ended."
    return "SandboxExited", f"The workspace's main process ended with code {code}."


def remove_cgroups(directories: list[str]) -> None:
    """Remove cgroups; the kernel needs a moment to let go of processes that just died."""
    deadline = time.monotonic() + 2
    for directory in directories:
        while os.path.isdir(directory) and time.monotonic() < deadline:
            try:
                os.rmdir(directory)
            except OSError:
                time.sleep(0.005)


def _subscribe(config: dict[str, Any]) -> int:
    counter = os.open(config["counter"], os.O_RDONLY | os.O_CLOEXEC)
    if config["kind"] == "v2":
        os.pread(counter, 4096, 0)
        return counter
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    control = os.open(config["event_control"], os.O_WRONLY | os.O_CLOEXEC)
    os.write(control, f"{event} {counter}".encode())
    os.close(control)
    return event


def _count_kills(path: str) -> int:
    try:
        with open(path, "rb") as file:
            counts = [int(line.split()[1]) for line in file if line.startswith(b"oom_kill ")]
    except OSError:
        return 0
    return counts[0] if counts else 0
