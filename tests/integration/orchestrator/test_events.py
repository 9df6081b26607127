"""Wishes in, reports out, on a real bus and a real document store; the runtime is in memory."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

from libs.common import mongo
from libs.common.clock import utc_now
from libs.common.context import Cause
from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentStartRequested,
    EnvironmentStatusChanged,
    EnvironmentStopRequested,
    Event,
)
from libs.common.contracts.telemetry import USAGE_SUBJECTS, UsageSample
from libs.common.http.health import Health
from libs.common.ids import new_id
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from services.orchestrator.events import StreamHistory
from services.orchestrator.main import create_app
from services.orchestrator.repository import COLLECTION
from services.orchestrator.settings import OrchestratorSettings
from tests.fakes.runtime import AbsentRuntime, FakeRuntime, SlowRuntime
from tests.integration.orchestrator.conftest import Envs, a_wish, name_of
from tests.support.app import eventually, running_app
from tests.support.tokens import TestIssuer


class TestStory:
    async def test_a_wish_becomes_a_running_workspace_and_the_reports_say_why(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        async with running_app(create_app(settings, keys=issuer, runtime=FakeRuntime())):
            created = await envs.say(a_wish(EnvironmentCreated))
            reports = await envs.reports(created.subject, "running")
        assert [name_of(report) for report in reports] == ["provisioning", "running"]
        for report in reports:
            assert report.correlationid == "request-1"
            assert report.causationid == created.id
            assert report.actor == report.source == "orchestrator"
            assert report.data["generation"] == 1
            assert report.data["runtime"] == "local"
            assert report.data["user_id"] == "user1"

    async def test_a_whole_life_is_told_in_order(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        runtime = FakeRuntime()
        async with running_app(create_app(settings, keys=issuer, runtime=runtime)):
            created = await envs.say(a_wish(EnvironmentCreated))
            environment_id = created.subject
            await envs.reports(environment_id, "running")
            stop = await envs.say(a_wish(EnvironmentStopRequested, environment_id, generation=2), request_id="r2")
            await envs.reports(environment_id, "stopped")
            await envs.say(a_wish(EnvironmentStartRequested, environment_id, generation=3), request_id="r3")
            await envs.reports(environment_id, "running", times=2)
            runtime.crash(environment_id)
            await envs.reports(environment_id, "running", times=3)
            await envs.say(a_wish(EnvironmentDeleteRequested, environment_id, generation=4), request_id="r4")
            reports = await envs.reports(environment_id, "deleted")
        assert [(name_of(report), report.data["generation"], report.correlationid) for report in reports] == [
            ("provisioning", 1, "request-1"),
            ("running", 1, "request-1"),
            ("stopped", 2, "r2"),
            ("provisioning", 3, "r3"),
            ("running", 3, "r3"),
            ("lost", 3, "r3"),
            ("running", 3, "r3"),
            ("deleted", 4, "r4"),
        ]
        assert reports[2].causationid == stop.id
        assert runtime.volumes == set()

    async def test_a_stop_that_comes_while_creating_is_not_kept_waiting(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        runtime = SlowRuntime()
        async with running_app(create_app(settings, keys=issuer, runtime=runtime)):
            created = await envs.say(a_wish(EnvironmentCreated))
            await asyncio.wait_for(runtime.entered.wait(), 30)
            await envs.say(a_wish(EnvironmentStopRequested, created.subject, generation=2))
            reports = await envs.reports(created.subject, "stopped")
        assert [name_of(report) for report in reports] == ["provisioning", "stopped"]
        assert runtime.cancelled == 1

    async def test_repeated_and_late_wishes_change_nothing(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        runtime = FakeRuntime()
        async with running_app(create_app(settings, keys=issuer, runtime=runtime)):
            created = await envs.say(a_wish(EnvironmentCreated))
            environment_id = created.subject
            await envs.say(a_wish(EnvironmentStopRequested, environment_id, generation=4))
            await envs.reports(environment_id, "stopped")
            await envs.say(a_wish(EnvironmentStartRequested, environment_id, generation=3))
            await envs.say(a_wish(EnvironmentStopRequested, environment_id, generation=4))
            # A marker behind them: once it is answered, they were handled.
            marker = await envs.say(a_wish(EnvironmentStopRequested))
            await envs.reports(marker.subject, "stopped")
            assert not runtime.runs(environment_id)
            await envs.say(a_wish(EnvironmentDeleteRequested, environment_id, generation=5))
            reports = await envs.reports(environment_id, "deleted")
        assert [name_of(report) for report in reports].count("stopped") == 1


class TestBadInput:
    async def test_malformed_wishes_are_dead_letters_and_block_nothing(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        wish = a_wish(EnvironmentCreated)
        other = Event.new(wish, subject=new_id(), source="envs", cause=Cause())
        half = {**wish.model_dump(mode="json"), "desired": "levitating"}
        good = Event.new(wish, subject=wish.environment_id, source="envs", cause=Cause())
        bad = [
            b"{not json",
            other.model_dump_json(exclude_none=True).encode(),
            good.model_copy(update={"data": half}).model_dump_json(exclude_none=True).encode(),
            good.model_copy(update={"type": "devpocket.env.vaporized.v1"}).model_dump_json(exclude_none=True).encode(),
        ]
        async with running_app(create_app(settings, keys=issuer, runtime=FakeRuntime())):
            for payload in bad:
                await envs.jetstream.publish("devpocket.env.x.created", payload, stream=EVENTS_STREAM)
            created = await envs.say(a_wish(EnvironmentCreated))
            await envs.reports(created.subject, "running")

            async def are_buried() -> bool:
                return (await envs.jetstream.stream_info(DEAD_LETTER_STREAM)).state.messages == len(bad)

            # Others are handled meanwhile.
            await eventually(are_buried)
            dead = [await envs.jetstream.get_msg(DEAD_LETTER_STREAM, number) for number in range(1, len(bad) + 1)]
        assert {message.subject for message in dead} == {"dlq.orchestrator.devpocket.env.x.created"}

    async def test_a_changed_status_is_nothing_to_us(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        async with running_app(create_app(settings, keys=issuer, runtime=FakeRuntime())):
            changed = EnvironmentStatusChanged(
                environment_id="env1",
                user_id="user1",
                status=EnvironmentStatus.RUNNING,
                previous=EnvironmentStatus.CREATING,
                generation=1,
                version=2,
            )
            event = Event.new(changed, subject="env1", source="envs", cause=Cause())
            await envs.jetstream.publish(event.nats_subject, event.model_dump_json().encode(), stream=EVENTS_STREAM)
            created = await envs.say(a_wish(EnvironmentCreated))
            await envs.reports(created.subject, "running")
            info = await envs.jetstream.stream_info(DEAD_LETTER_STREAM)
        assert info.state.messages == 0


class TestReplicas:
    async def test_two_share_the_work_and_nothing_is_done_twice(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        runtime = FakeRuntime()
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(running_app(create_app(settings, keys=issuer, runtime=runtime)))
            created = [await envs.say(a_wish(EnvironmentCreated)) for _ in range(20)]
            for event in created:
                reports = await envs.reports(event.subject, "running")
                assert [name_of(report) for report in reports] == ["provisioning", "running"]
        assert runtime.calls["ensure"] == 20
        assert runtime.overlaps == 0

    async def test_what_a_killed_replica_was_working_on_is_taken_over_when_its_lease_ends(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        runtime = SlowRuntime()
        lease = timedelta(seconds=2)
        settings = settings.model_copy(update={"shutdown_grace_seconds": 0.1})
        client = mongo.connect(settings)
        workspaces = mongo.database(client, settings, "orchestrator")[COLLECTION]
        async with running_app(create_app(settings, keys=issuer, runtime=runtime)):
            created = await envs.say(a_wish(EnvironmentCreated))
            await asyncio.wait_for(runtime.entered.wait(), 30)
            leased = await workspaces.find_one({"_id": created.subject})
        assert leased is not None
        # A killed replica gives nothing back: the document is as it was while it worked.
        until = utc_now() + lease
        left = {**leased, "pending_events": [], "lease": {**leased["lease"], "until": until}}
        await workspaces.replace_one({"_id": created.subject}, left)
        runtime.let_go.set()
        async with running_app(create_app(settings, keys=issuer, runtime=runtime)):
            reports = await envs.reports(created.subject, "running")
            assert utc_now() >= until
        await mongo.close(client)
        assert [name_of(report) for report in reports] == ["provisioning", "running"]

    async def test_a_stopping_replica_gives_its_work_back_at_once_and_stops_no_workspace(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        slow = SlowRuntime()
        # Nobody would wait for the end of such a lease.
        settings = settings.model_copy(update={"lease_seconds": 600.0, "shutdown_grace_seconds": 0.1})
        async with running_app(create_app(settings, keys=issuer, runtime=slow)):
            created = await envs.say(a_wish(EnvironmentCreated))
            await asyncio.wait_for(slow.entered.wait(), 30)
        assert slow.cancelled == 1
        slow.let_go.set()
        async with running_app(create_app(settings, keys=issuer, runtime=slow)):
            await envs.reports(created.subject, "running")
        assert slow.runs(created.subject)
        assert slow.calls["stop"] == 0


class TestUsage:
    async def test_samples_come_at_once_and_go_on(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        heard = await envs.client.subscribe(USAGE_SUBJECTS)
        async with running_app(create_app(settings, keys=issuer, runtime=FakeRuntime())):
            created = await envs.say(a_wish(EnvironmentCreated))
            samples = [UsageSample.model_validate_json((await heard.next_msg(30)).data) for _ in range(3)]
        assert {sample.environment_id for sample in samples} == {created.subject}
        assert samples[0].cpu_millis == 12.5


async def runtime_is(health: Health, state: str) -> None:
    """Until `/health/ready` says so; raises TimeoutError."""
    async with asyncio.timeout(60):
        while (await health.checks())["runtime"] != state:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.1)


class TestStart:
    async def test_a_runtime_that_is_not_there_yet_is_waited_for_and_named(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        runtime = AbsentRuntime(None)
        soon = settings.model_copy(update={"cluster_check_seconds": 0.5})
        app = create_app(soon, keys=issuer, runtime=runtime)
        created = await envs.say(a_wish(EnvironmentCreated))
        async with app.router.lifespan_context(app):
            health = app.state.platform.health
            await runtime_is(health, "unhealthy")
            runtime.absences = 0
            await envs.reports(created.subject, "running")
            await runtime_is(health, "healthy")

    async def test_what_was_lost_with_the_machine_runs_again(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        runtime = FakeRuntime()
        async with running_app(create_app(settings, keys=issuer, runtime=runtime)):
            created = await envs.say(a_wish(EnvironmentCreated))
            await envs.reports(created.subject, "running")
        fresh = FakeRuntime()
        async with running_app(create_app(settings, keys=issuer, runtime=fresh)):
            reports = await envs.reports(created.subject, "lost")

            async def runs_again() -> bool:
                return fresh.runs(created.subject)

            await eventually(runs_again)
        assert [name_of(report) for report in reports] == ["provisioning", "running", "lost"]


class TestHistory:
    async def test_the_stream_knows_who_was_deleted(
        self, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        app = create_app(settings, keys=issuer, runtime=FakeRuntime())
        async with running_app(app):
            history = StreamHistory(app.state.platform.bus)
            created = await envs.say(a_wish(EnvironmentCreated))
            assert not await history.was_deleted(created.subject)
            await envs.say(a_wish(EnvironmentDeleteRequested, created.subject, generation=2))
            assert await history.was_deleted(created.subject)
