"""The whole path with real sandboxes: a wish on the bus, a workspace on this machine, reports back."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    EnvironmentWish,
)
from libs.common.contracts.telemetry import USAGE_SUBJECTS, UsageSample
from libs.common.ids import new_id
from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import WorkspacePhase
from services.orchestrator.main import create_app
from services.orchestrator.settings import OrchestratorSettings
from tests.integration.orchestrator.conftest import Envs, name_of
from tests.support.app import running_app
from tests.support.tokens import TestIssuer
from tests.unit.orchestrator.memory import template, wish


@pytest.fixture
async def directory() -> AsyncIterator[Path]:
    """Outside pytest's own directory, which is closed to the sandboxes' users; empty of processes at the end."""
    path = Path(tempfile.mkdtemp(prefix="devpocket-orchestrator-"))
    os.chmod(path, 0o711)
    yield path
    cleaner = LocalRuntime(path, IsolationPolicy.AUTO)
    await cleaner.open()
    await cleaner.stop_all(grace_seconds=0)
    assert list(await cleaner.leftovers()) == []
    await cleaner.close()
    shutil.rmtree(path)


@pytest.fixture
def local_settings(settings: OrchestratorSettings, directory: Path) -> OrchestratorSettings:
    return settings.model_copy(update={"local_runtime_dir": directory, "stop_grace_seconds": 1.0})


def a_wish(kind: type[EnvironmentWish], environment_id: str, generation: int) -> EnvironmentWish:
    spec = template(template="ubuntu", image="ubuntu", startup_command="echo started >> started.txt")
    return wish(kind, environment_id=environment_id, generation=generation, spec=spec)


class TestLocalRuntime:
    async def test_a_life_in_a_sandbox(
        self, local_settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs, directory: Path
    ) -> None:
        environment_id = new_id()
        workspace = directory / "workspaces" / environment_id
        usage = await envs.client.subscribe(USAGE_SUBJECTS)
        async with running_app(create_app(local_settings, keys=issuer)):
            await envs.say(a_wish(EnvironmentCreated, environment_id, 1))
            await envs.reports(environment_id, "running")
            sample = UsageSample.model_validate_json((await usage.next_msg(30)).data)
            assert sample.environment_id == environment_id
            assert sample.memory_bytes > 0
            (workspace / "kept.txt").write_text("still here")
            await envs.say(a_wish(EnvironmentStopRequested, environment_id, 2))
            await envs.reports(environment_id, "stopped")
            await envs.say(a_wish(EnvironmentStartRequested, environment_id, 3))
            await envs.reports(environment_id, "running", times=2)
            assert (workspace / "kept.txt").read_text() == "still here"
            await envs.say(a_wish(EnvironmentDeleteRequested, environment_id, 4))
            reports = await envs.reports(environment_id, "deleted")
        assert not workspace.exists()
        assert [(name_of(report), report.data["generation"]) for report in reports] == [
            ("provisioning", 1),
            ("running", 1),
            ("stopped", 2),
            ("provisioning", 3),
            ("running", 3),
            ("deleted", 4),
        ]

    async def test_a_restart_of_the_service_disturbs_no_sandbox_and_a_killed_one_is_repaired(
        self, local_settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs, directory: Path
    ) -> None:
        environment_id = new_id()
        async with running_app(create_app(local_settings, keys=issuer)):
            await envs.say(a_wish(EnvironmentCreated, environment_id, 1))
            await envs.reports(environment_id, "running")
        observer = LocalRuntime(directory, IsolationPolicy.AUTO)
        await observer.open()
        (before,) = await observer.list()
        async with running_app(create_app(local_settings, keys=issuer)):
            marker = new_id()
            await envs.say(a_wish(EnvironmentStopRequested, marker, 1))
            await envs.reports(marker, "stopped")
            (after,) = await observer.list()
            assert after == before
            assert after.phase is WorkspacePhase.RUNNING
            for pid in await observer.leftovers():
                # With the first process of a sandbox, the others go.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            reports = await envs.reports(environment_id, "running", times=2)
            assert [name_of(report) for report in reports] == ["provisioning", "running", "lost", "running"]
            assert next(iter(await observer.list())).phase is WorkspacePhase.RUNNING
            await envs.say(a_wish(EnvironmentDeleteRequested, environment_id, 2))
            await envs.reports(environment_id, "deleted")
        await observer.close()
