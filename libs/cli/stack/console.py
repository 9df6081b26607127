"""What a person sees of a running stack: progress while it starts, then every process's log with its name in front.

Writing happens in a thread of its own: a terminal that is paused (Ctrl-S) or a pipe nobody reads must never hold up
the supervisor, or through it the processes whose output it reads.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_NAME_COLUMNS = 14
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")
_MAX_WAITING_LINES = 10_000
_FLUSH_TIMEOUT_S = 1.0


class Reporter(Protocol):
    """Tells people what happens to the stack."""

    def came_up(self, name: str, seconds: float) -> None:
        """A process works for the first time."""
        ...

    def notice(self, text: str) -> None:
        """Something that is neither a log line nor an error."""
        ...

    def problem(self, text: str, log_tail: Sequence[str] = ()) -> None:
        """Something that needs attention, with the last log lines of whom it concerns."""
        ...

    def log_line(self, name: str, line: str) -> None:
        """One line that a process has written."""
        ...

    def ready(self, url: str) -> None:
        """The whole stack works."""
        ...


class ConsoleReporter:
    """Writes to a terminal, a pipe or a file. `show_logs` is off for a detached stack, whose logs are in files."""

    def __init__(self, stream: TextIO, *, show_logs: bool = True) -> None:
        self._writer = _Writer(stream)
        self._show_logs = show_logs
        self._logs_started = False
        self._colours: dict[str, str] = {}

    def came_up(self, name: str, seconds: float) -> None:
        """See Reporter."""
        self._put(f"{name:<{_NAME_COLUMNS}} {seconds:5.1f} s", mark="✓", colour="green")

    def notice(self, text: str) -> None:
        """See Reporter."""
        self._put(text, mark="•", colour="dim")

    def problem(self, text: str, log_tail: Sequence[str] = ()) -> None:
        """See Reporter."""
        self._put(text, mark="✗", colour="bold red")
        for line in log_tail:
            self._put(line, mark="  |", colour="red")

    def log_line(self, name: str, line: str) -> None:
        """See Reporter. Until the stack is ready, logs go to their files only and progress has the screen."""
        if self._show_logs and self._logs_started:
            colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
            self._put(line, mark=f"{name:<{_NAME_COLUMNS}} |", colour=colour)

    def ready(self, url: str) -> None:
        """See Reporter."""
        self._put(f"DevPocket is ready at {url}", mark="", colour="bold")
        self._logs_started = True

    def close(self) -> None:
        """Write what is still waiting, for a moment."""
        self._writer.close()

    def _put(self, text: str, *, mark: str, colour: str) -> None:
        self._writer.put((mark, colour, text))


_Line = tuple[str, str, str]


class _Writer:
    """The thread that writes. Lines that come while too many wait are dropped: their files have them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: queue.Queue[_Line | None] = queue.Queue(_MAX_WAITING_LINES)
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    def put(self, line: _Line) -> None:
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            return

    def close(self) -> None:
        try:
            self._waiting.put(None, timeout=_FLUSH_TIMEOUT_S)
        except queue.Full:
            return
        self._thread.join(_FLUSH_TIMEOUT_S)

    def _run(self) -> None:
        from rich.console import Console

        class Plain(Console):
            def on_broken_pipe(self) -> None:
                # Rich would end the whole process.
                raise BrokenPipeError

        console: Console = Plain(file=self._stream, highlight=False, soft_wrap=True, emoji=False, markup=False)
        while (line := self._waiting.get()) is not None:
            try:
                _print(console, line)
            except (OSError, ValueError):
                # Nobody reads any more (a closed pipe or terminal); the stack goes on without an audience.
                self._stream = open(os.devnull, "w")  # noqa: SIM115 - lives as long as the thread
                console = Console(file=self._stream)


def _print(console: Console, line: _Line) -> None:
    from rich.text import Text

    mark, colour, text = line
    # What a process writes may hold terminal controls; from_ansi keeps colours and nothing else.
    content = Text.from_ansi(text) if mark.endswith("|") else Text(text, style=colour if not mark else "")
    console.print(Text.assemble((mark, colour), " ", content) if mark else content)
