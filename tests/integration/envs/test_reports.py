"""Reports of the runtime drive the status, in any order and any number of times."""

from __future__ import annotations

import json

import pytest

from libs.common.contracts.events import RuntimeProvisioning, RuntimeRunning, RuntimeStopped
from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from tests.integration.envs.conftest import API, World


@pytest.fixture
async def environment_id(world: World) -> str:
    created: dict[str, str] = await world.create()
    return created["id"]


async def status_of(world: World, environment_id: str) -> tuple[str, str | None]:
    await world.settled("runtime")
    found = await world.call("GET", f"{API}/{environment_id}")
    return found["status"], found["status_reason"]


class TestReports:
    async def test_running_completes_the_installation(self, world: World, environment_id: str) -> None:
        await world.report(environment_id, RuntimeProvisioning, generation=1)
        assert await status_of(world, environment_id) == ("creating", None)
        await world.report(environment_id, RuntimeRunning, generation=1)
        found = await world.until_status(environment_id, "running")
        assert found["installation_completed"] is True

    async def test_failed_says_why_and_a_late_success_heals(self, world: World, environment_id: str) -> None:
        await world.fail(environment_id, generation=1)
        assert await status_of(world, environment_id) == ("error", "No such image (ImagePullFailed)")
        await world.report(environment_id, RuntimeRunning, generation=1)
        assert await status_of(world, environment_id) == ("running", None)

    async def test_an_older_generation_is_ignored(self, world: World, environment_id: str) -> None:
        await world.call("POST", f"{API}/{environment_id}/stop")
        await world.report(environment_id, RuntimeRunning, generation=1)
        await world.fail(environment_id, generation=1)
        assert await status_of(world, environment_id) == ("stopping", None)
        await world.report(environment_id, RuntimeStopped, generation=2)
        assert await status_of(world, environment_id) == ("stopped", None)

    async def test_a_repeated_report_changes_nothing_and_tells_nothing(self, world: World, environment_id: str) -> None:
        for _ in range(3):
            await world.report(environment_id, RuntimeRunning, generation=1)
        assert await status_of(world, environment_id) == ("running", None)
        told = [name for name, _ in await world.told(environment_id, 5)]
        assert told.count("env.status_changed") == 1

    async def test_a_failure_delivered_after_a_later_success_is_ignored(
        self, world: World, environment_id: str
    ) -> None:
        """Applied by hand in the wrong order: the stream itself delivers in order but for redeliveries."""
        await world.report(environment_id, RuntimeRunning, generation=1)
        await status_of(world, environment_id)
        environments = world.app.state.platform.database["environments"]
        await environments.update_one({"_id": environment_id}, {"$set": {"report_sequence": 10_000}})
        await world.fail(environment_id, generation=1)
        assert await status_of(world, environment_id) == ("running", None)

    async def test_the_cause_chain_leads_from_the_report_to_the_status(self, world: World, environment_id: str) -> None:
        await world.report(environment_id, RuntimeRunning, generation=1)
        messages = await world.stored(environment_id, 3)
        created, report, changed = (json.loads(message.data) for message in messages)
        assert changed["causationid"] == report["id"]
        assert changed["correlationid"] == report["correlationid"]
        assert changed["actor"] == "envs"
        assert created["actor"] == world.user_id
        assert messages[2].headers is not None
        assert messages[2].headers["Nats-Msg-Id"] == changed["id"]

    async def test_one_about_an_unknown_environment_is_done(self, world: World) -> None:
        await world.report(new_id(), RuntimeRunning, generation=1)
        await world.settled("runtime")
        assert (await world.js.stream_info("DEVPOCKET_DLQ")).state.messages == 0


class TestMalformed:
    @pytest.mark.parametrize(
        ("event", "payload"),
        [
            ("running", b"\xff"),
            ("running", b'{"type": "devpocket.runtime.running.v1"}'),
            ("exploded", None),
        ],
        ids=["bytes", "fields", "unknown type"],
    )
    async def test_goes_to_the_dead_letters_and_blocks_nothing(
        self, world: World, environment_id: str, event: str, payload: bytes | None
    ) -> None:
        if payload is None:
            envelope = {
                "specversion": "1.0", "id": new_id(), "type": f"devpocket.runtime.{event}.v1", "source": "x",
                "subject": environment_id, "time": "2026-01-01T00:00:00Z", "data": {},
            }  # fmt: skip
            payload = json.dumps(envelope).encode()
        subject = f"devpocket.runtime.{environment_id}.{event}"
        await world.publish_raw(subject, payload)
        await world.report(environment_id, RuntimeRunning, generation=1)
        await world.until_status(environment_id, "running")
        dead = await world.dead_letter()
        assert dead.subject == f"dlq.envs.{subject}"
        assert dead.headers is not None
        assert dead.headers["Devpocket-Consumer"] == "envs-runtime"

    async def test_a_report_that_lies_about_its_subject_is_dead(self, world: World, environment_id: str) -> None:
        data = RuntimeRunning(environment_id=environment_id, user_id="u", generation=1, runtime="local")
        await world.publish(data, new_id())
        assert (await world.dead_letter()).headers["Devpocket-Error-Type"] == "MalformedEventError"  # type: ignore[index]
        assert await status_of(world, environment_id) == ("creating", None)

    async def test_an_unknown_type_waits_in_the_dead_letters_for_an_upgrade(self, world: World) -> None:
        envelope = {
            "specversion": "1.0", "id": new_id(), "type": "devpocket.user.danced.v1", "source": "auth",
            "subject": "u", "time": "2026-01-01T00:00:00Z", "data": {},
        }  # fmt: skip
        await world.publish_raw("devpocket.user.u.danced", json.dumps(envelope).encode())
        await world.user_state(new_id(), Plan.PRO, version=1)
        assert (await world.dead_letter()).headers["Devpocket-Error-Type"] == "UnknownEventError"  # type: ignore[index]


class TestTerminal:
    async def test_an_opened_session_is_the_last_access(self, world: World, environment_id: str) -> None:
        before = await world.call("GET", f"{API}/{environment_id}")
        assert before["last_accessed"] is None
        await world.opened_terminal(environment_id)
        after = await world.call("GET", f"{API}/{environment_id}")
        assert after["last_accessed"] > before["created_at"]
        assert after["updated_at"] == before["updated_at"]
