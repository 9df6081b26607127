"""When a shell may start, and when it must end."""

from __future__ import annotations

import pytest

from libs.common.contracts.environments import DesiredState, EnvironmentStatus
from services.terminal.domain import CLOSINGS, CloseReason, Environment

_RUNS = {EnvironmentStatus.RUNNING}
_DELETED = {EnvironmentStatus.TERMINATING, EnvironmentStatus.TERMINATED}
_ENDS = _DELETED | {EnvironmentStatus.STOPPING, EnvironmentStatus.STOPPED, EnvironmentStatus.RESTARTING}


@pytest.mark.parametrize("status", list(EnvironmentStatus))
def test_every_status_has_its_answers(status: EnvironmentStatus) -> None:
    environment = Environment("e", "u", 1, DesiredState.RUNNING, status)
    assert environment.is_running == (status in _RUNS)
    assert environment.is_deleted == (status in _DELETED)
    assert environment.ends_shell(1) == (status in _ENDS)
    assert environment.ends_shell(0)


def test_the_wish_counts_before_the_status_has_followed() -> None:
    for desired in (DesiredState.STOPPED, DesiredState.DELETED):
        environment = Environment("e", "u", 1, desired, EnvironmentStatus.RUNNING)
        assert not environment.is_running
        assert environment.ends_shell(1)
        assert environment.is_deleted == (desired is DesiredState.DELETED)


def test_a_status_without_a_wish_is_enough_to_run_and_a_wish_alone_is_not() -> None:
    assert Environment("e", "u", 1, None, EnvironmentStatus.RUNNING).is_running
    assert not Environment("e", "u", 1, DesiredState.RUNNING, None).is_running


def test_every_end_from_our_side_has_words_for_the_client() -> None:
    assert set(CLOSINGS) == set(CloseReason) - {CloseReason.EXIT}
    for closing in CLOSINGS.values():
        assert closing.socket_code in {1001, 1011} or 4000 <= closing.socket_code < 5000
        assert len(closing.code.encode()) <= 123
