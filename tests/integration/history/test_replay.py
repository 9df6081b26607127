"""Read models rebuilt from a recorded story by the services' own handlers, on real NATS and a real document store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext

from libs.common import mongo
from libs.common.history.reader import StreamReader
from libs.common.history.rebuilding import BadScratchError, ReplayJob, ReplayPlan, ReplayReport, scratch_database
from libs.common.history.recorded import Recorded
from libs.common.history.transfer import Importer
from libs.common.messaging.outbox import PENDING
from libs.common.messaging.streams import EVENTS_STREAM, ensure_streams
from libs.common.mongo import Client, Database
from libs.common.settings import CommonSettings
from tests.support.servers import Servers

# Everything `devpocket demo` had caused, exported from a stack.
DEMO = Path(__file__).with_name("demo.ndjson")
SERVICES = ("auth", "envs", "orchestrator", "terminal")
FACTORIES = {entry.name: entry for entry in entry_points(group="devpocket.replays")}
LINES = [json.loads(line) for line in DEMO.read_text().splitlines()]
ENVIRONMENT = next(line["event"]["subject"] for line in LINES if line["subject"].endswith(".created"))


class Archive:
    """A stream that holds the demo's story, and a database server."""

    def __init__(self, settings: CommonSettings, client: Client, js: JetStreamContext) -> None:
        self.settings = settings
        self.client = client
        self.js = js

    async def replay(
        self, service: str, into: str, *, compare_with: str | None = None, **plan: Any
    ) -> tuple[ReplayReport, Database]:
        scratch = await scratch_database(self.client, self.settings, self.name(into))
        live = self.client[self.name(compare_with or "nothing")]
        wanted = ReplayPlan(service, self.name(into), diff=compare_with is not None, **plan)
        # Nobody else is at work here, so nothing is on its way.
        job = ReplayJob(
            StreamReader(self.js), wanted, FACTORIES[service].load(), live=live, scratch=scratch, between_looks_s=0.01
        )
        return await job.run(), scratch

    def name(self, suffix: str) -> str:
        return f"{self.settings.database_name}_{suffix}"

    async def publish(self, subject: str, payload: bytes) -> None:
        await self.js.publish(subject, payload, stream=EVENTS_STREAM)


@asynccontextmanager
async def archive_of(settings: CommonSettings, story: Path) -> AsyncIterator[Archive]:
    connection = await nats.connect(settings.nats_url.get_secret_value())
    client = mongo.connect(settings)
    try:
        js = connection.jetstream(timeout=30)
        await ensure_streams(js, settings)
        with story.open("rb") as file:
            await Importer(js).bring_in(file)
        yield Archive(settings, client, js)
    finally:
        await mongo.close(client)
        await connection.close()


@pytest.fixture
async def archive(clean_backend: Servers, make_settings: Callable[..., Any]) -> AsyncIterator[Archive]:
    async with archive_of(make_settings(CommonSettings), DEMO) as archive:
        yield archive


async def only(database: Database, collection: str, **query: Any) -> dict[str, Any]:
    (document,) = await database[collection].find(query).to_list(2)
    return document


class TestRebuilding:
    async def test_envs_is_as_the_events_say(self, archive: Archive) -> None:
        report, scratch = await archive.replay("envs", "envs_again")
        assert (report.counts.events, report.counts.failed) == (len(LINES), 0)
        environment = await only(scratch, "environments")
        assert environment["_id"] == ENVIRONMENT
        assert (environment["status"], environment["desired"]) == ("terminated", "deleted")
        assert environment["installation_completed"] is True
        user = await only(scratch, "users")
        assert (user["plan"], user["is_active"]) == ("free", True)

    async def test_half_a_story_is_the_state_then(self, archive: Archive) -> None:
        stop = next(line["sequence"] for line in LINES if line["subject"].endswith(".stop_requested"))
        _, scratch = await archive.replay("envs", "envs_then", until_sequence=stop)
        environment = await only(scratch, "environments")
        assert (environment["status"], environment["generation"]) == ("stopping", 2)

    async def test_orchestrator_keeps_wish_and_last_report_and_works_on_neither(self, archive: Archive) -> None:
        _, scratch = await archive.replay("orchestrator", "orchestrator_again")
        workspace = await only(scratch, "workspaces")
        assert (workspace["desired"], workspace["observed"]["said"]) == ("deleted", "deleted")
        assert workspace["spec"]["variables_sealed"] is None
        assert workspace["lease"]["holder"] is None

    async def test_terminal_has_its_sessions_and_no_shell(self, archive: Archive) -> None:
        _, scratch = await archive.replay("terminal", "terminal_again")
        assert (await only(scratch, "environments"))["status"] == "terminated"
        opened = sum(line["subject"].endswith(".session_opened") for line in LINES)
        assert opened > 0
        assert await scratch["sessions"].count_documents({"state": "closed"}) == opened

    async def test_auth_has_the_account_and_nothing_secret(self, archive: Archive) -> None:
        _, scratch = await archive.replay("auth", "auth_again")
        user = await only(scratch, "users")
        assert user["username"].startswith("demo-")
        assert "password_hash" not in user

    @pytest.mark.parametrize("service", SERVICES)
    async def test_nothing_is_published_or_left_to_publish(self, archive: Archive, service: str) -> None:
        before = (await archive.js.stream_info(EVENTS_STREAM)).state.last_seq
        _, scratch = await archive.replay(service, "again")
        assert (await archive.js.stream_info(EVENTS_STREAM)).state.last_seq == before
        for collection in await scratch.list_collection_names():
            assert await scratch[collection].count_documents({f"{PENDING}.id": {"$exists": True}}) == 0

    async def test_a_repeated_event_changes_nothing(self, archive: Archive) -> None:
        line = next(line for line in LINES if line["subject"].endswith(".created"))
        await archive.publish(line["subject"], json.dumps(line["event"]).encode())
        report, scratch = await archive.replay("envs", "envs_again")
        assert report.counts.events == len(LINES) + 1
        assert (await only(scratch, "environments"))["status"] == "terminated"

    async def test_garbage_is_counted_and_named(self, archive: Archive) -> None:
        await archive.publish("devpocket.env.x.created", b"{not json")
        report, _ = await archive.replay("orchestrator", "again")
        (failure,) = report.counts.failures
        assert failure.subject == "devpocket.env.x.created"
        assert failure.error.startswith("MalformedEventError: not JSON")

    async def test_one_environment_alone(self, archive: Archive) -> None:
        report, scratch = await archive.replay("envs", "again", environment=ENVIRONMENT)
        assert report.counts.events == sum(line["subject"].split(".")[2] == ENVIRONMENT for line in LINES)
        assert await scratch["users"].count_documents({}) == 0

    async def test_step_by_step_shows_each_handled_event(self, archive: Archive) -> None:
        scratch = await scratch_database(archive.client, archive.settings, archive.name("steps"))
        plan = ReplayPlan("terminal", archive.name("steps"))
        factory = FACTORIES["terminal"].load()
        job = ReplayJob(StreamReader(archive.js), plan, factory, live=scratch, scratch=scratch)
        seen: list[int] = []

        async def each(item: Recorded, problem: str | None) -> None:
            assert problem is None
            seen.append(item.sequence)

        await job.run(each=each)
        handled = [line["sequence"] for line in LINES if line["subject"].split(".")[1] in {"env", "terminal", "user"}]
        assert seen == handled


class TestDrift:
    @pytest.mark.parametrize("service", SERVICES)
    async def test_the_same_story_twice_is_the_same_state(self, archive: Archive, service: str) -> None:
        await archive.replay(service, "one")
        report, _ = await archive.replay(service, "other", compare_with="one")
        assert (report.drifted, report.drift) == (0, [])

    @pytest.mark.parametrize(
        ("service", "collection", "field", "value"),
        [
            ("envs", "environments", "status", "running"),
            ("envs", "users", "plan", "pro"),
            ("orchestrator", "workspaces", "observed.said", "running"),
            ("orchestrator", "workspaces", "spec.image", "another"),
            ("terminal", "environments", "status_version", 99),
            ("terminal", "sessions", "state", "open"),
            ("auth", "users", "is_active", False),
        ],
    )
    async def test_a_changed_field_is_named(
        self, archive: Archive, service: str, collection: str, field: str, value: object
    ) -> None:
        _, live = await archive.replay(service, "live")
        document = await live[collection].find_one({})
        assert document is not None
        await live[collection].update_one({"_id": document["_id"]}, {"$set": {field: value}})
        report, _ = await archive.replay(service, "other", compare_with="live")
        assert report.drifted == 1
        (drift,) = report.drift
        assert (drift.collection, drift.id) == (collection, document["_id"])
        assert field.startswith(drift.field)
        assert drift.live != drift.replayed

    async def test_a_document_too_many_or_too_few_is_named(self, archive: Archive) -> None:
        _, live = await archive.replay("envs", "live")
        await live["environments"].delete_one({})
        await live["users"].insert_one({"_id": "stranger", "plan": "free"})
        report, _ = await archive.replay("envs", "other", compare_with="live")
        found = {(drift.collection, drift.id, drift.field, drift.live, drift.replayed) for drift in report.drift}
        assert found == {
            ("environments", ENVIRONMENT, "*", "(missing)", "(there)"),
            ("users", "stranger", "*", "(there)", "(missing)"),
        }

    async def test_sealed_variables_show_as_a_digest_only(self, archive: Archive) -> None:
        _, live = await archive.replay("envs", "live")
        await live["environments"].update_one({}, {"$set": {"variables_sealed": "gAAAAA-other"}})
        report, _ = await archive.replay("envs", "other", compare_with="live")
        (drift,) = report.drift
        assert drift.field == "variables_sealed"
        assert "gAAAAA" not in json.dumps(drift.as_json())


class TestScratch:
    async def test_a_live_database_is_refused(self, archive: Archive) -> None:
        for service in SERVICES:
            with pytest.raises(BadScratchError, match="live database"):
                await scratch_database(archive.client, archive.settings, archive.name(service))

    async def test_a_database_with_other_data_is_refused_and_left_alone(self, archive: Archive) -> None:
        name = archive.name("precious")
        await archive.client[name]["things"].insert_one({"_id": 1})
        with pytest.raises(BadScratchError, match="no replay has made"):
            await scratch_database(archive.client, archive.settings, name)
        assert await archive.client[name]["things"].count_documents({}) == 1

    async def test_what_an_earlier_replay_left_is_replaced(self, archive: Archive) -> None:
        await archive.replay("terminal", "again")
        _, scratch = await archive.replay("envs", "again")
        assert "sessions" not in await scratch.list_collection_names()

    @pytest.mark.parametrize("name", ["", "a.b", "a/b", "$x", "x" * 61])
    async def test_a_bad_name_is_refused(self, archive: Archive, name: str) -> None:
        with pytest.raises(BadScratchError, match="may hold"):
            await scratch_database(archive.client, archive.settings, name)
