"""How many environments there are in which status, which of them take too long, and why some fail."""

from __future__ import annotations

from datetime import timedelta

from prometheus_client import CollectorRegistry

from libs.common.clock import utc_now
from libs.common.contracts.environments import EnvironmentStatus as Status
from services.envs.repository import EnvironmentRepository
from tests.integration.envs.conftest import World


def _failures(registry: CollectorRegistry, reason: str) -> float | None:
    return registry.get_sample_value("devpocket_environment_failures_total", {"reason": reason})


async def test_environments_are_counted_by_status_and_failures_by_reason(world: World) -> None:
    platform = world.app.state.platform
    repository = EnvironmentRepository(platform.database, None)
    before = await repository.count_by_status()
    assert set(before) == set(Status) - {Status.TERMINATED}
    overdue_before = await repository.count_overdue(utc_now() + timedelta(seconds=1))
    failures_before = _failures(platform.metrics.registry, "ImagePullFailed") or 0

    await world.running("counted-one")
    doomed = (await world.create("counted-two"))["id"]
    await world.create("counted-three")
    for _ in range(2):
        await world.fail(doomed, generation=1)
    await world.until_status(doomed, "error")
    await world.settled("runtime")

    after = await repository.count_by_status()
    grown = {status: after[status] - before[status] for status in after if after[status] != before[status]}
    assert grown == {Status.RUNNING: 1, Status.ERROR: 1, Status.CREATING: 1}
    assert await repository.count_overdue(utc_now() + timedelta(seconds=1)) == overdue_before + 1
    assert await repository.count_overdue(utc_now() - timedelta(hours=1)) == 0
    # Said twice, but it came to `error` once.
    assert _failures(platform.metrics.registry, "ImagePullFailed") == failures_before + 1
