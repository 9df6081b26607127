"""Usage samples from core NATS to the API."""

from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common.clock import utc_now
from libs.common.contracts.events import RuntimeStopped
from libs.common.ids import new_id
from tests.integration.envs.conftest import API, World

_GIB = 1 << 30


class TestMetrics:
    async def test_are_zero_before_the_first_sample(self, world: World) -> None:
        found = await world.call("GET", f"{API}/{(await world.create())['id']}/metrics")
        assert (found["cpu_usage"], found["timestamp"], found["metrics"]) == (0, None, [])

    async def test_a_sample_shows_in_percent_and_absolute_without_a_new_version(self, world: World) -> None:
        environment_id = await world.running()
        before = await world.call("GET", f"{API}/{environment_id}")
        await world.sample(environment_id, 125.0, _GIB // 4, 4096)
        await world.until(lambda: self._has_points(world, environment_id, 1))
        found = await world.call("GET", f"{API}/{environment_id}/metrics?hours=1")
        assert found["environment_id"] == environment_id
        assert (found["cpu_usage"], found["memory_usage"]) == (25.0, 25.0)
        assert 0 < found["storage_usage"] < 0.001
        assert (found["cpu_millis"], found["memory_bytes"], found["storage_bytes"]) == (125.0, _GIB // 4, 4096)
        (point,) = found["metrics"]
        assert point["timestamp"] == found["timestamp"]
        assert point["memory_usage"] == 25.0
        after = await world.call("GET", f"{API}/{environment_id}")
        assert (after["cpu_usage"], after["updated_at"]) == (25.0, before["updated_at"])
        document = await world.app.state.platform.database["environments"].find_one({"_id": environment_id})
        assert document["version"] == 2

    async def test_history_is_in_order_and_cut_to_the_hours(self, world: World) -> None:
        environment_id = await world.running()
        now = utc_now()
        for hours_ago in (30.0, 3.0, 0.2, 0.0):
            await world.sample(environment_id, hours_ago, 0, 0, at=now - timedelta(hours=hours_ago))
        await world.until(lambda: self._has_points(world, environment_id, 4))
        for hours, expected in ((1, [0.2, 0.0]), (24, [3.0, 0.2, 0.0]), (168, [30.0, 3.0, 0.2, 0.0])):
            found = await world.call("GET", f"{API}/{environment_id}/metrics?hours={hours}")
            assert [point["cpu_millis"] for point in found["metrics"]] == expected

    async def test_a_late_sample_does_not_become_the_latest(self, world: World) -> None:
        environment_id = await world.running()
        now = utc_now()
        await world.sample(environment_id, 50.0, 0, 0, at=now)
        await world.sample(environment_id, 99.0, 0, 0, at=now - timedelta(minutes=30))
        await world.sample(new_id(), 1.0, 0, 0)
        await world.sample(environment_id, 60.0, 0, 0, at=now + timedelta(milliseconds=1))
        await world.until(lambda: self._latest_is(world, environment_id, 60.0))

    async def test_a_stopped_environment_uses_only_storage(self, world: World) -> None:
        environment_id = await world.running()
        await world.sample(environment_id, 125.0, 4096, 5 * _GIB)
        await world.until(lambda: self._has_points(world, environment_id, 1))
        await world.call("POST", f"{API}/{environment_id}/stop")
        await world.report(environment_id, RuntimeStopped, generation=2)
        found = await world.until_status(environment_id, "stopped")
        assert (found["cpu_usage"], found["memory_usage"], found["storage_usage"]) == (0, 0, 100.0)

    async def test_garbage_is_ignored(self, world: World) -> None:
        environment_id = await world.running()
        await world.bus.publish(f"telemetry.env.{environment_id}.usage", b"\xffgarbage")
        await world.sample(environment_id, 1.0, 0, 0)
        await world.until(lambda: self._has_points(world, environment_id, 1))

    @pytest.mark.parametrize("hours", ["0", "169", "x"])
    async def test_bad_hours_are_422(self, world: World, hours: str) -> None:
        await world.call("GET", f"{API}/{(await world.create())['id']}/metrics?hours={hours}", 422)

    async def _has_points(self, world: World, environment_id: str, count: int) -> bool:
        found = await world.call("GET", f"{API}/{environment_id}/metrics?hours=168")
        return len(found["metrics"]) == count

    async def _latest_is(self, world: World, environment_id: str, cpu_millis: float) -> bool:
        return bool((await world.call("GET", f"{API}/{environment_id}/metrics"))["cpu_millis"] == cpu_millis)
