"""The first program of a workspace image, run for real: here as it is, below in a pod with a read-only root."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

ENTRYPOINT = Path(__file__).parents[3] / "deploy/images/base/devpocket/entrypoint.sh"


_PATIENCE_S = 30.0


class Running:
    """The entrypoint as a process; its output goes to a file."""

    def __init__(self, home: Path, log: Path, command: str | None, **env: str) -> None:
        self.home, self.log = home, log
        variables = {"PATH": os.environ["PATH"], "HOME": str(home), "SHELL": "/bin/bash", **env}
        if command is not None:
            variables["DEVPOCKET_STARTUP_COMMAND"] = command
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [str(ENTRYPOINT)], env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def lines(self) -> list[str]:
        """What is in the log, with marks shown as `<e>` and `<s>`."""
        text = self.log.read_text()
        return text.replace("\x1ee", "<e>").replace("\x1es", "<s>").splitlines()

    def until(self, line: str) -> list[str]:
        """The log once this line is in it."""
        self.wait(lambda: line in self.lines())
        return self.lines()

    def wait(self, done: Callable[[], bool], *, runs: bool = True) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, self.lines()
            assert (self.process.poll() is None) is runs, self.lines()
            time.sleep(0.01)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send the signal to it alone. It ends though what runs below it would go on for longer."""
        self.process.send_signal(number)
        assert self.process.wait(_PATIENCE_S) == 0


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts one in a home of its own; whatever is left ends with the test."""
    started: list[Running] = []
    (tmp_path / "home").mkdir()

    def run(command: str | None = None, **env: str) -> Running:
        running = Running(tmp_path / "home", tmp_path / f"log-{len(started)}", command, **env)
        started.append(running)
        return running

    yield run
    for running in started:
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()


def test_the_workspace_is_prepared_once_and_nothing_is_overwritten(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".profile").write_text("mine\n")
    running = start()
    running.wait((home / ".devpocket/prepared").exists)
    assert (home / ".profile").read_text() == "mine\n"
    assert "HISTSIZE" in (home / ".bashrc").read_text()
    running.end()
    (home / ".bashrc").unlink()
    (home / "work.txt").write_text("kept\n")
    again = start()
    again.until("<s>Starting.")
    assert not (home / ".bashrc").exists()
    assert (home / "work.txt").read_text() == "kept\n"


def test_a_link_that_leads_nowhere_is_left_alone(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".bashrc").symlink_to("/nowhere/dotfiles")
    running = start()
    running.wait((home / ".devpocket/prepared").exists)
    assert (home / ".bashrc").is_symlink()


def test_the_startup_command_runs_in_a_login_shell_and_its_output_is_logged_by_stream(start: Start) -> None:
    command = 'shopt -q login_shell && echo login; pwd; echo problem >&2; echo "[$DEVPOCKET_STARTUP_COMMAND]"; exit 4'
    running = start(command, DEVPOCKET_ENVIRONMENT_NAME="engine")
    lines = running.until("<s>The startup command ended with code 4.")
    assert lines[0] == "<s>Starting engine."
    assert [line for line in lines[1:-1] if not line.startswith("<")] == ["login", str(running.home), "[]"]
    assert "<e>problem" in lines
    assert lines.index("<e>problem") < lines.index("<s>The startup command ended with code 4.")
    assert running.process.poll() is None


def test_lines_never_mix_and_none_is_lost(start: Start) -> None:
    running = start("printf open; seq 1 20000 >&2 & seq 1 20000; wait; printf end >&2; printf last")
    running.until("<s>The startup command ended with code 0.")
    # On a busy machine not all of it is through when the command has ended.
    running.until("<e>end")
    lines = running.until("last")
    numbers = [str(number) for number in range(1, 20001)]
    assert [line for line in lines if not line.startswith("<")] == ["open1", *numbers[1:], "last"]
    assert [line for line in lines if line.startswith("<e>")] == [f"<e>{line}" for line in [*numbers, "end"]]


def test_what_the_startup_command_leaves_in_the_background_goes_on_and_is_logged(start: Start) -> None:
    running = start("(while [ ! -e go ]; do sleep 0.05; done; echo late >&2; echo later) & echo now")
    running.until("<s>The startup command ended with code 0.")
    (running.home / "go").touch()
    assert "<e>late" in running.until("later") or running.until("<e>late")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_promptly_when_idle(start: Start, number: int) -> None:
    running = start()
    running.until("<s>Starting.")
    # One that waited for what it idles with would not end at all.
    running.end(number)


def test_the_startup_command_ends_with_it_and_may_say_goodbye(start: Start) -> None:
    running = start("trap 'echo bye; echo and thanks >&2; exit 0' TERM; echo up; sleep 60 & wait")
    running.until("up")
    running.end()
    running.wait(lambda: {"bye", "<e>and thanks"} <= set(running.lines()), runs=False)


def test_a_startup_command_that_does_not_listen_is_not_waited_for_long(start: Start) -> None:
    running = start("trap '' TERM; echo up; while :; do sleep 0.1; done")
    running.until("up")
    below = psutil.Process(running.process.pid).children(recursive=True)
    assert len(below) > 1
    running.end()
    assert psutil.wait_procs(below, timeout=_PATIENCE_S)[1] == []


def test_a_home_that_cannot_be_written_to_is_told_of(start: Start, tmp_path: Path) -> None:
    (tmp_path / "home").rmdir()
    (tmp_path / "home").write_text("not a folder")
    running = start("echo still here")
    lines = running.until("<s>The startup command ended with code 0.")
    assert "still here" in lines
    assert any(line.startswith("<s>The workspace could not be prepared") for line in lines)
