"""Ours or not: pids are used again, and a stack must never signal a stranger."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from libs.cli.stack.leftovers import end_leftovers
from libs.cli.stack.processes import ProcessIdentity, identify, is_alive, send, session_members, signal_session
from libs.cli.stack.state import ProcessRecord, StackState, State


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def identity_of(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    identity = identify(process.pid)
    assert identity is not None
    return identity


def crashed(*identities: ProcessIdentity) -> StackState:
    records = tuple(ProcessRecord(f"p{i}", None, State.RUNNING, identity) for i, identity in enumerate(identities))
    return StackState("http://x", 1, State.RUNNING, identities[0], processes=records)


class TestIdentity:
    def test_a_live_process_is_itself(self, child: subprocess.Popen[bytes]) -> None:
        assert is_alive(identity_of(child))

    def test_an_ended_one_is_not_alive_even_as_a_zombie(self, child: subprocess.Popen[bytes]) -> None:
        identity = identity_of(child)
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(identity)
        assert identify(child.pid) is None

    @pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another boot"}])
    def test_the_same_pid_with_another_start_or_boot_is_a_stranger(
        self, child: subprocess.Popen[bytes], change: dict[str, object]
    ) -> None:
        stranger = replace(identity_of(child), **change)  # type: ignore[arg-type]
        assert not is_alive(stranger)
        assert session_members(stranger) == []
        assert not send(stranger, signal.SIGKILL)
        signal_session(stranger, signal.SIGKILL)
        assert child.poll() is None


class TestSession:
    SLEEP = os.path.realpath(shutil.which("sleep") or "")

    @pytest.fixture
    def family(self) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """A leader and a child of it, both `sleep`: env starts one, then becomes the other."""
        process = subprocess.Popen(
            ["sh", "-c", "sleep 60 & echo $!; exec sleep 60"], start_new_session=True, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        member = int(process.stdout.readline())
        deadline = time.monotonic() + 60
        while len({os.readlink(f"/proc/{pid}/exe") for pid in (process.pid, member)} | {self.SLEEP}) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process, member
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()

    def test_members_are_found_with_and_without_their_leader(self, family: tuple[subprocess.Popen[bytes], int]) -> None:
        leader, member = family
        identity = identity_of(leader)
        assert set(session_members(identity)) == {leader.pid, member}
        leader.kill()
        os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
        assert session_members(identity) == [member]  # the leader is a zombie now
        leader.wait()
        assert session_members(identity) == [member]

    def test_without_their_leader_they_must_be_the_same_program(
        self, family: tuple[subprocess.Popen[bytes], int]
    ) -> None:
        leader, _ = family
        identity = replace(identity_of(leader), executable="/usr/bin/something-else")
        leader.kill()
        leader.wait()
        assert session_members(identity) == []


class TestLeftovers:
    def test_what_is_recorded_is_ended_and_named(self, child: subprocess.Popen[bytes]) -> None:
        assert end_leftovers(crashed(identity_of(child))) == ["p0"]
        assert child.wait(60) == -signal.SIGTERM

    def test_what_ignores_sigterm_is_killed(self) -> None:
        process = subprocess.Popen(
            ["sh", "-c", "trap '' TERM; echo set; while :; do sleep 1; done"],
            start_new_session=True,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        assert end_leftovers(crashed(identity_of(process)), grace_seconds=0.1) == ["p0"]
        assert process.wait(60) == -signal.SIGKILL
        process.stdout.close()

    def test_a_stranger_with_a_recorded_pid_is_left_alone(self, child: subprocess.Popen[bytes]) -> None:
        assert end_leftovers(crashed(replace(identity_of(child), start_ticks=1))) == []
        assert child.poll() is None
