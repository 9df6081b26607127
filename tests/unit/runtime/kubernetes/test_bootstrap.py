"""The first program of a pod in an image that is not ours, on real shells of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.runtime.kubernetes.bootstrap import BOOT_COMMAND

SHELLS = [words for words in (["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(words[0])]
ENDED = b"\x1esThe startup command ended with code "


@contextlib.contextmanager
def booted(shell: list[str], home: Path, command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The bootstrap, as the leader of a session; what it started goes with it."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), "DEVPOCKET_STARTUP_COMMAND": command}
    process = subprocess.Popen(
        [str(shutil.which(shell[0])), *shell[1:], *BOOT_COMMAND[1:]],
        env=variables | environment,
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # The `sleep` it idles with; in a pod it goes with the first process.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def lines_until(process: subprocess.Popen[bytes], start: bytes) -> list[bytes]:
    """Output up to the line that starts so."""
    assert process.stdout is not None
    found: list[bytes] = []
    while not (found and found[-1].startswith(start)):
        line = process.stdout.readline()
        assert line, f"it ended after {found}"
        found.append(line.rstrip(b"\n"))
    return found


def end(process: subprocess.Popen[bytes]) -> int:
    """As a node does, by SIGTERM to the first process."""
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=60)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_startup_command_runs_in_a_login_shell_and_its_end_is_told(shell: list[str], tmp_path: Path) -> None:
    command = 'echo "it\'s $HOME"; pwd; echo "${DEVPOCKET_STARTUP_COMMAND-none}/$#"; echo oops >&2; (exit 3)'
    with booted(shell, tmp_path, command) as process:
        lines = lines_until(process, ENDED)
        assert process.poll() is None
        assert end(process) == 0
    home = str(tmp_path).encode()
    assert lines == [b"it's " + home, home, b"none/0", b"oops", ENDED + b"3."]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_profile_that_sets_path_does_not_hide_the_images_programs(shell: list[str], tmp_path: Path) -> None:
    place = tmp_path / "go" / "bin"
    place.mkdir(parents=True)
    (place / "gopher").write_text("#!/bin/sh\necho found\n")
    (place / "gopher").chmod(0o755)
    (tmp_path / ".profile").write_text("PATH=/usr/bin:/bin\nPROFILE=read\n")
    with booted(shell, tmp_path, 'gopher; echo "$PROFILE"', PATH=f"{place}:{os.environ['PATH']}") as process:
        assert lines_until(process, ENDED) == [b"found", b"read", ENDED + b"0."]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_it_ends_at_once_while_the_startup_command_runs_and_takes_it_along(shell: list[str], tmp_path: Path) -> None:
    with booted(shell, tmp_path, "trap 'echo asked; exit 0' TERM; echo started; sleep 1000 & wait") as process:
        lines_until(process, b"started")
        assert end(process) == 0
        lines_until(process, b"asked")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_without_setsid_it_works_too(shell: list[str], tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sleep").symlink_to(str(shutil.which("sleep")))
    with booted(shell, tmp_path, "echo started; sleep 1000", PATH=str(tools)) as process:
        lines_until(process, b"started")
        assert end(process) == 0


def test_a_node_finds_nothing_to_replace_in_it() -> None:
    assert not any(re.search(r"\$\(|\$\$", part) for part in BOOT_COMMAND)
