"""stack.json and secrets.json: written in one step, read with care."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from libs.cli.stack.credentials import load_or_create
from libs.cli.stack.lock import AlreadyRunningError, exclusive, is_held
from libs.cli.stack.paths import StackPaths, write_private
from libs.cli.stack.processes import ProcessIdentity, identify
from libs.cli.stack.state import ProcessRecord, StackState, State, StateFileError, load_stack, load_state, save_state

GONE = ProcessIdentity(1, 1, "another boot", "/bin/true")


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    made = StackPaths.of(tmp_path / "data")
    made.create()
    return made


def a_state(**changes: object) -> StackState:
    records = (ProcessRecord("nats", 20001, State.RUNNING, GONE, 2), ProcessRecord("auth", 20002))
    state = StackState("http://127.0.0.1:8000", 8000, State.RUNNING, GONE, processes=records, connections={"A": "b"})
    return replace(state, **changes)  # type: ignore[arg-type]


class TestStateFile:
    def test_what_is_saved_is_loaded(self, paths: StackPaths) -> None:
        save_state(paths.state, a_state())
        assert load_state(paths.state) == a_state(started_at=load_state(paths.state).started_at)  # type: ignore[union-attr]

    def test_no_file_is_no_stack(self, paths: StackPaths) -> None:
        assert load_state(paths.state) is None
        assert load_stack(paths.root) is None

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 99}'])
    def test_a_damaged_file_is_named(self, paths: StackPaths, text: str) -> None:
        paths.state.write_text(text)
        with pytest.raises(StateFileError, match=r"stack\.json"):
            load_state(paths.state)

    def test_records_are_replaced_in_place(self) -> None:
        state = a_state().with_process(ProcessRecord("nats", 20001, State.RESTARTING))
        assert [item.name for item in state.processes] == ["nats", "auth"]
        assert state.processes[0].state is State.RESTARTING
        assert state.ports() == {"nats": 20001, "auth": 20002}

    def test_a_stack_is_alive_as_long_as_its_supervisor(self, paths: StackPaths) -> None:
        save_state(paths.state, a_state())
        write_private(paths.environment, json.dumps({"NATS_URL": "nats://u:p@h"}))
        stack = load_stack(paths.root)
        assert stack is not None
        assert not stack.alive
        assert stack.environment["NATS_URL"] == "nats://u:p@h"
        assert "u:p" not in repr(stack)
        me = identify(os.getpid())
        assert me is not None
        save_state(paths.state, a_state(supervisor=me))
        assert load_stack(paths.root).alive  # type: ignore[union-attr]


class TestPrivateFiles:
    def test_only_the_owner_may_read(self, paths: StackPaths) -> None:
        write_private(paths.secrets, "x")
        assert stat.S_IMODE(paths.secrets.stat().st_mode) == 0o600
        assert stat.S_IMODE(paths.root.stat().st_mode) == 0o700

    def test_nothing_is_left_when_writing_fails(self, paths: StackPaths) -> None:
        before = set(paths.root.iterdir())
        with pytest.raises(TypeError):
            write_private(paths.secrets, 1)  # type: ignore[arg-type]
        assert set(paths.root.iterdir()) == before


class TestCredentials:
    def test_they_are_made_once_and_differ_between_stacks(self, paths: StackPaths, tmp_path: Path) -> None:
        first = load_or_create(paths.secrets)
        assert load_or_create(paths.secrets) == first
        assert load_or_create(tmp_path / "other.json").secret_key != first.secret_key
        assert len(first.secret_key) >= 32
        assert first.secret_key not in repr(first)

    def test_one_that_is_missing_is_added_and_the_others_stay(self, paths: StackPaths) -> None:
        first = load_or_create(paths.secrets)
        stored = json.loads(paths.secrets.read_text())
        del stored["redis_password"]
        paths.secrets.write_text(json.dumps(stored))
        second = load_or_create(paths.secrets)
        assert second.redis_password not in {"", first.redis_password}
        assert second.secret_key == first.secret_key
        assert load_or_create(paths.secrets) == second


class TestLock:
    def test_there_is_one_holder(self, paths: StackPaths) -> None:
        assert not is_held(paths.lock)
        with exclusive(paths.lock):
            assert is_held(paths.lock)
            with pytest.raises(AlreadyRunningError), exclusive(paths.lock):
                pass
        assert not is_held(paths.lock)
