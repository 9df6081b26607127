from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from libs.runtime.local.processes import (
    ProcessTable,
    innermost_pid,
    is_alive,
    open_pidfd,
    parse_stat,
    read_process,
    wait_for_exit,
    wait_until_gone,
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_a_process_is_its_pid_and_its_start(sleeper: subprocess.Popen[bytes]) -> None:
    info = read_process(sleeper.pid)
    assert info is not None
    assert (info.parent, info.session) == (os.getpid(), os.getsid(0))
    assert is_alive(sleeper.pid, info.start)
    assert not is_alive(sleeper.pid, info.start + 1)
    assert open_pidfd(sleeper.pid, info.start + 1) is None


def test_a_name_with_parentheses_is_no_trap() -> None:
    script = "import time; open('/proc/self/comm', 'w').write(') Z 1 (x'); print(1, flush=True); time.sleep(1000)"
    with subprocess.Popen(["/usr/bin/env", "python3", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        info = read_process(process.pid)
        process.kill()
    assert info is not None
    assert info.parent == os.getpid()


def test_what_is_no_line_of_a_process_is_none() -> None:
    line = Path("/proc/self/stat").read_bytes()
    told = parse_stat(line)
    assert told is not None
    assert (told.pid, told.session) == (os.getpid(), os.getsid(0))
    for torn in (b"", b".", b"17", b"17 (sh) S 1", line.partition(b" ")[2]):
        assert parse_stat(torn) is None


def test_a_zombie_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    info = read_process(sleeper.pid)
    assert info is not None
    sleeper.kill()
    assert wait_for_exit(sleeper.pid, info.start, 60)
    assert not is_alive(sleeper.pid, info.start)
    sleeper.wait()
    assert read_process(sleeper.pid) is None


def test_signals_only_reach_the_very_process(sleeper: subprocess.Popen[bytes]) -> None:
    with ProcessTable.of_host() as table:
        info = table.read(sleeper.pid)
        assert info is not None
        table.signal([replace(info, start=info.start + 1)], signal.SIGKILL)
        assert not wait_for_exit(sleeper.pid, info.start, 0.05)
        table.signal([info], signal.SIGKILL)
        assert wait_for_exit(sleeper.pid, info.start, 60)
        sleeper.wait()
        table.signal([info], signal.SIGKILL)


def test_the_hosts_table_is_no_sandbox() -> None:
    """Asked for a process that is gone, the table of whoever has the number now must not come back."""
    me = read_process(os.getpid())
    assert me is not None
    assert ProcessTable.of_sandbox(me.pid, me.start + 1) is None
    assert innermost_pid(me.pid) > 0
    assert innermost_pid(2**22 + 1) == 0


def test_waiting_gives_what_is_left(sleeper: subprocess.Popen[bytes]) -> None:
    info = read_process(sleeper.pid)
    assert info is not None
    assert wait_until_gone(lambda: [info], 0.05) == [info]
    assert wait_until_gone(list, 0.05) == []
