"""Environments and moments for tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from libs.common.contracts.environments import DesiredState, EnvironmentStatus, Resources
from libs.common.contracts.identity import Plan
from libs.common.security.principal import Principal
from services.envs.entities import Environment

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)

_DESIRED = {
    EnvironmentStatus.STOPPING: DesiredState.STOPPED,
    EnvironmentStatus.STOPPED: DesiredState.STOPPED,
    EnvironmentStatus.TERMINATING: DesiredState.DELETED,
    EnvironmentStatus.TERMINATED: DesiredState.DELETED,
}


def an_environment(status: EnvironmentStatus = EnvironmentStatus.CREATING, **changes: Any) -> Environment:
    """In this status, wanted accordingly, in generation 3."""
    terminated = status is EnvironmentStatus.TERMINATED
    environment = Environment(
        id="e" * 32,
        user_id="u" * 32,
        name="one",
        description=None,
        template="python",
        image="devpocket/python:latest",
        web_port=8000,
        resources=Resources(cpu="500m", memory="1Gi", storage="5Gi"),
        region=None,
        startup_command=None,
        variables_sealed="sealed:{}",
        status=status,
        status_reason=None,
        desired=_DESIRED.get(status, DesiredState.RUNNING),
        generation=3,
        version=7,
        report_sequence=0,
        slot=None if terminated else 0,
        created_at=NOW,
        updated_at=NOW,
        deleted_at=NOW if terminated else None,
    )
    return replace(environment, **changes)


def a_principal(plan: Plan = Plan.PRO, user_id: str = "u" * 32, *, verified: bool = True) -> Principal:
    """A signed-in user."""
    return Principal(user_id, "s" * 32, plan, verified, NOW)
