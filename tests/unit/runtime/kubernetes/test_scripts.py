"""The shell that runs inside a workspace, on real processes of this machine."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

import pytest

from libs.runtime.kubernetes.scripts import Goodbye, Session, introduced, starting, used_space

MARK = "0123456789abcdef"
_PATIENCE_S = 60
# How long each `sleep` is to last: by this it is told from those of other tests, and of other runs on this machine.
_LASTS = itertools.count(os.getpid() * 1000)


def begin(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[subprocess.Popen[bytes], Session]:
    """Start as a node would: the leader of a session."""
    process = subprocess.Popen(
        starting(MARK, argv, None, environment or {}),
        # What a buffered reader reads ahead of the first line, `communicate` would never see.
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    session = introduced(MARK, process.stdout.readline())
    assert session is not None
    assert (session.id, session.kind) == (process.pid, "session")
    return process, session


def end(session: Session) -> None:
    """Run the ending as a second exec would."""
    subprocess.run(session.ending, check=True, timeout=_PATIENCE_S, start_new_session=True)


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)])
def test_the_end_is_told(command: str, code: int) -> None:
    process, _ = begin(["sh", "-c", f"echo hello; {command}"])
    out, _ = process.communicate(timeout=_PATIENCE_S)
    goodbye = Goodbye(MARK)
    assert goodbye.feed(out) == b"hello\n"
    assert goodbye.code == code
    assert process.returncode == code


def test_arguments_and_variables_arrive_as_they_are() -> None:
    arguments = ["a b", "", "'", '"', "$HOME", "`id`", "\\", "*", "line\nbreak", "-n", "--", "ünï", "@MARK@"]
    process, _ = begin(["sh", "-c", 'printf "%s\\0" "$VALUE" "$@"', "sh", *arguments], {"VALUE": "it's $HOME\n"})
    out, _ = process.communicate(timeout=_PATIENCE_S)
    assert Goodbye(MARK).feed(out).decode().split("\0")[:-1] == ["it's $HOME\n", *arguments]


def test_nothing_of_ours_is_left_in_the_environment() -> None:
    process, _ = begin(["env"])
    out, _ = process.communicate(timeout=_PATIENCE_S)
    assert b"_dp_" not in Goodbye(MARK).feed(out)


def test_ending_a_session_takes_what_ignores_it_and_spares_what_left() -> None:
    inside, outside = next(_LASTS), next(_LASTS)
    command = f"(trap '' HUP TERM; exec sleep {inside}) & setsid sleep {outside} >/dev/null 2>&1 & sleep {inside}"
    process, session = begin(["bash", "-c", command])
    until_running(inside, count=2)
    (left,) = until_running(outside)
    end(session)
    process.wait(_PATIENCE_S)
    assert running(inside) == []
    assert running(outside) == [left]
    os.kill(left, signal.SIGKILL)


def test_ending_takes_jobs_of_a_leader_that_left() -> None:
    lasts = next(_LASTS)
    process, session = begin(["bash", "-c", f"trap '' HUP; sleep {lasts} & exit 0"])
    process.wait(_PATIENCE_S)
    until_running(lasts)
    end(session)
    assert running(lasts) == []


def test_another_process_of_the_same_number_is_left_alone() -> None:
    lasts = next(_LASTS)
    process, session = begin(["sleep", str(lasts)])
    until_running(lasts)
    end(Session(session.id, session.kind, "1", session.init_started))
    end(Session(session.id, session.kind, session.started, "1"))
    assert running(lasts) != []
    end(session)
    assert process.wait(_PATIENCE_S) == -signal.SIGHUP, "what hears it need not be killed"


@pytest.mark.parametrize("size", [1, 3, 10, 1000])
def test_the_goodbye_is_found_wherever_chunks_end(size: int) -> None:
    content = b"out\x1eput\x1e0123 " + f"\x1e{MARK}|42|\nmore".encode()
    goodbye = Goodbye(MARK)
    given = b"".join(goodbye.feed(content[at : at + size]) for at in range(0, len(content), size))
    assert (given, goodbye.code) == (b"out\x1eput\x1e0123 ", 42)


def test_what_only_looks_like_a_goodbye_is_output() -> None:
    goodbye = Goodbye(MARK)
    assert goodbye.feed(b"end\x1e0123") + goodbye.rest() == b"end\x1e0123"
    assert goodbye.code is None


@pytest.mark.parametrize("line", [b"", b"hello\n", b"other|1 (sh) S|1 (x) S\n", f"{MARK}|1 (sh)|2\n".encode()])
def test_what_is_no_introduction(line: bytes) -> None:
    assert introduced(MARK, line) is None


def test_space_is_counted_where_the_file_system_is_shared(tmp_path: object) -> None:
    answer = subprocess.run(used_space(1 << 20), capture_output=True, check=True, cwd=str(tmp_path)).stdout
    assert int(answer) < 1000


def running(lasts: int) -> list[int]:
    """The processes that are this `sleep` by now; one that is about to become it is still a shell."""
    found = subprocess.run(["pgrep", "-f", f"^sleep {lasts}$"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def until_running(lasts: int, *, count: int = 1) -> list[int]:
    """Once so many are."""
    deadline = time.monotonic() + _PATIENCE_S
    while len(found := running(lasts)) < count:
        assert time.monotonic() < deadline, f"{found} are `sleep {lasts}`"
        time.sleep(0.01)
    return found
