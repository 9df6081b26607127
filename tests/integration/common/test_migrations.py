"""Migrations on a real database: once, with others at work, through crashes, and never by code that is too old."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi import APIRouter
from httpx import ASGITransport, AsyncClient
from typer.testing import CliRunner

from libs.cli.main import app as command
from libs.cli.stack.paths import PROJECT_ROOT
from libs.common import mongo
from libs.common.http.app import create_service_app
from libs.common.migrations.errors import SchemaNotReadyError
from libs.common.migrations.plan import Backfill
from libs.common.migrations.records import RESTORING, SCHEMA
from libs.common.migrations.runner import Migrations, Status
from libs.common.platform import Platform
from libs.common.settings import CommonSettings
from services.auth.repository import MongoAudit
from tests.fakes.auth import ManualClock
from tests.support.app import eventually
from tests.support.servers import Servers

_COUNT = 300
_MIGRATION = Backfill(
    number=1,
    name="things-are-new",
    collection="things",
    old={"shape": {"$exists": False}},
    # Counts, so that what is done twice shows.
    change={"$set": {"shape": "new"}, "$inc": {"times": 1}},
    batch=20,
    pause_s=0.001,
    settle_s=0,
)


@pytest.fixture
async def settings(clean_backend: Servers, make_settings: Callable[..., Any]) -> CommonSettings:
    made: CommonSettings = make_settings(CommonSettings)
    return made


@pytest.fixture
async def database(settings: CommonSettings) -> AsyncIterator[mongo.Database]:
    """With things that the version before has written."""
    client = mongo.connect(settings)
    database = mongo.database(client, settings, "envs")
    await database["things"].insert_many([{"_id": f"{number:05}", "n": number} for number in range(_COUNT)])
    yield database
    await client.drop_database(database.name)
    await mongo.close(client)


async def _times(database: mongo.Database) -> set[int]:
    return {document.get("times", 0) for document in await database["things"].find({}).to_list(None)}


async def _only(migrations: Migrations) -> Status:
    (status,) = await migrations.status()
    return status


async def test_it_runs_once_per_database(database: mongo.Database) -> None:
    migrations = Migrations(database, [_MIGRATION])
    assert (await _only(migrations)).state == "pending"
    await migrations.finish_all()
    await Migrations(database, [_MIGRATION]).finish_all()
    status = await _only(migrations)
    assert (status.state, status.changed, status.is_edited) == ("done", _COUNT, False)
    assert status.done_at is not None
    assert await _times(database) == {1}
    await database["things"].insert_one({"_id": "late"})
    await migrations.finish_all()
    assert await database["things"].find_one({"_id": "late"}) == {"_id": "late"}, "done is done"


async def test_replicas_that_race_share_the_work_and_do_nothing_twice(database: mongo.Database) -> None:
    replicas = [Migrations(database, [_MIGRATION]) for _ in range(3)]
    await asyncio.gather(*(replica.finish_all() for replica in replicas))
    assert await _times(database) == {1}
    assert (await _only(replicas[0])).changed == _COUNT


async def test_an_old_replica_writes_as_it_always_did_and_nothing_of_it_is_lost(database: mongo.Database) -> None:
    things, stop, written = database["things"], asyncio.Event(), 0

    async def old_replica() -> None:
        nonlocal written
        while not stop.is_set():
            # At the beginning of the order and at its end, and over what is there.
            await things.insert_many([{"_id": f"{sign}{written}", "n": written} for sign in ("!", "~")])
            await things.replace_one({"_id": f"{written % _COUNT:05}"}, {"n": -1})
            written += 1

    clock, settle_s = ManualClock(), 60.0
    writing = asyncio.create_task(old_replica())
    migrations = Migrations(database, [Backfill(**{**_fields(_MIGRATION), "settle_s": settle_s})], clock=clock)
    running = asyncio.create_task(migrations.attempt_all())
    await eventually(_later(lambda: written > 20))
    assert (await _only(migrations)).state in {"running", "settling"}
    stop.set()
    await writing
    assert not await asyncio.wait_for(running, 60)
    while not await migrations.attempt_all():
        clock.advance(seconds=settle_s)
    assert await things.count_documents({"shape": {"$exists": False}}) == 0
    assert await things.count_documents({}) == _COUNT + 2 * written
    assert await things.count_documents({"n": -1}) == min(written, _COUNT)


_IN_A_PROCESS = """
import asyncio, json, sys
from libs.common import mongo
from libs.common.migrations.plan import Backfill
from libs.common.migrations.runner import Migrations
from libs.common.settings import CommonSettings
url, database, migration = sys.argv[1:]
settings = CommonSettings(_env_file=None, mongodb_url=url)
async def main():
    slowly = Backfill(**{**json.loads(migration), "pause_s": 60.0})
    await Migrations(mongo.connect(settings)[database], [slowly], lease_s=1.0).finish_all()
asyncio.run(main())
"""


def _fields(migration: Backfill) -> dict[str, Any]:
    return {name: getattr(migration, name) for name in Backfill.__slots__}


async def test_one_that_is_killed_is_taken_over_where_it_was(
    settings: CommonSettings, database: mongo.Database
) -> None:
    url = settings.mongodb_url.get_secret_value()
    argv = (sys.executable, "-c", _IN_A_PROCESS, url, database.name, json.dumps(_fields(_MIGRATION)))
    process = await asyncio.create_subprocess_exec(*argv, cwd=PROJECT_ROOT)
    successor = Migrations(database, [_MIGRATION], lease_s=1.0)

    async def is_under_way() -> bool:
        return any(status.changed > 0 for status in await successor.status())

    await eventually(is_under_way, 60)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    status = await _only(successor)
    assert (status.state, 0 < status.changed < _COUNT) == ("running", True)
    await asyncio.wait_for(successor.finish_all(), 60)
    assert await _times(database) == {1}
    # What the killed one had changed but not yet counted is at most one batch.
    assert _COUNT - _MIGRATION.batch <= (await _only(successor)).changed <= _COUNT


async def test_edited_and_unknown_ones_are_told(database: mongo.Database) -> None:
    await Migrations(database, [_MIGRATION]).finish_all()
    edited = Backfill(**{**_fields(_MIGRATION), "change": {"$set": {"shape": "newer"}}})
    assert (await _only(Migrations(database, [edited]))).is_edited
    assert (await _only(Migrations(database, []))).state == "unknown"


async def test_code_that_is_too_old_does_not_touch_the_database(
    settings: CommonSettings, database: mongo.Database
) -> None:
    """From the beginning of what takes away, not from its end."""
    taking = Backfill(2, "gone", "things", {"n": {"$exists": True}}, {"$unset": {"n": ""}}, needs=1, settle_s=60)
    newer = Migrations(database, [_MIGRATION, taking])
    await newer.attempt_all()
    await newer.check()
    await Migrations(database, [_MIGRATION]).check()
    with pytest.raises(SchemaNotReadyError, match="too new for this version: migration 0002-gone needs"):
        await Migrations(database, []).check()


def _app(settings: CommonSettings, *migrations: Backfill) -> Any:
    platform = Platform(settings, "envs", migrations=migrations)
    router = APIRouter()

    @router.get("/api/v1/things")
    async def things() -> int:
        return await platform.database["things"].count_documents({"shape": "new"})

    async def prepare() -> None:
        await platform.database["prepared"].insert_one({})

    return create_service_app(platform, [router], lambda _: platform.starting(prepare))


async def test_a_service_on_a_database_that_is_too_new_says_so_and_does_nothing(
    settings: CommonSettings, database: mongo.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, refusals = Migrations.check, 0

    async def watched(migrations: Migrations) -> None:
        nonlocal refusals
        try:
            await check(migrations)
        except SchemaNotReadyError:
            refusals += 1
            raise

    monkeypatch.setattr(Migrations, "check", watched)
    taking = Backfill(1, "gone", "things", {"n": 1}, {"$unset": {"n": ""}}, needs=1, settle_s=60)
    await Migrations(database, [taking]).attempt_all()
    app = _app(settings)
    async with app.router.lifespan_context(app), AsyncClient(transport=ASGITransport(app), base_url="http://t") as http:
        await eventually(_later(lambda: refusals > 1))
        assert not app.state.platform.health.started
        answer = await http.get("/api/v1/things")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).status_code == 503
    assert await database["prepared"].find_one({}) is None


async def test_a_service_waits_for_the_end_of_a_restore_and_of_blocking_migrations(
    settings: CommonSettings, database: mongo.Database
) -> None:
    await database[SCHEMA].insert_one({"_id": RESTORING})
    app = _app(settings, Backfill(**{**_fields(_MIGRATION), "blocking": True}))
    async with app.router.lifespan_context(app), AsyncClient(transport=ASGITransport(app), base_url="http://t") as http:
        assert (await http.get("/api/v1/things")).status_code == 503
        await database[SCHEMA].delete_one({"_id": RESTORING})

        async def answers() -> bool:
            answer = await http.get("/api/v1/things")
            assert (answer.status_code, answer.text) in ((503, answer.text), (200, str(_COUNT)))
            return answer.status_code == 200

        await eventually(answers)


async def test_documents_of_the_versions_before_are_as_the_code_reads_them(
    settings: CommonSettings, database: mongo.Database
) -> None:
    client = mongo.connect(settings)
    orchestrator = mongo.database(client, settings, "orchestrator")
    terminal = mongo.database(client, settings, "terminal")
    user = {"_id": "u", "plan": "free", "is_active": True, "is_verified": True, "version": 1}
    for each in (database, orchestrator, terminal):
        await each["users"].insert_one(dict(user))
    await orchestrator["workspaces"].insert_many(
        [{"_id": "old"}, {"_id": "placed", "cluster": None, "delayed_by": "x"}]
    )
    await terminal["sessions"].insert_many(
        [{"_id": "old"}, {"_id": "held", "is_held": True, "login_id": "l", "generation": 2}]
    )
    environment = {
        "MONGODB_URL": settings.mongodb_url.get_secret_value(),
        "NATS_URL": settings.nats_url.get_secret_value(),
        "DATABASE_NAME": settings.database_name,
    }

    def migrate(what: str) -> Any:
        return CliRunner().invoke(command, ["migrate", what, "--json"], env=environment)

    assert (await asyncio.to_thread(migrate, "status")).exit_code == 1
    done = await asyncio.to_thread(migrate, "run")
    told = {(item["service"], item["id"]): item["state"] for item in json.loads(done.stdout)["migrations"]}
    settling = {place for place, state in told.items() if state == "settling"}
    assert settling == {("terminal", "0003-sessions-say-how-they-are-held")}, (
        "beside the service, for as long as a roll-out"
    )
    assert set(told.values()) == {"done", "settling"}
    for each in (database, orchestrator, terminal):
        assert await each["users"].find_one({}) == {**user, "is_deleted": False, "session_epoch": 0}
    assert await orchestrator["workspaces"].find({}).sort("_id", 1).to_list(None) == [
        {"_id": "old", "cluster": "default", "delayed_by": None},
        {"_id": "placed", "cluster": None, "delayed_by": "x"},
    ]
    assert await terminal["sessions"].find({}).sort("_id", 1).to_list(None) == [
        {"_id": "held", "is_held": True, "login_id": "l", "generation": 2},
        {"_id": "old", "is_held": False, "login_id": "", "generation": 0},
    ]
    for each in (orchestrator, terminal):
        await client.drop_database(each.name)
    await mongo.close(client)


async def test_how_long_documents_are_kept_may_be_set_anew(database: mongo.Database) -> None:
    """AUDIT_RETENTION_DAYS: auth did not start again after it was changed."""
    for days in (365, 365, 30):
        await MongoAudit(database, retention=timedelta(days=days)).prepare()
    index = (await database["audit"].index_information())["expiry"]
    assert index["expireAfterSeconds"] == 30 * 86_400


def _later(fact: Callable[[], bool]) -> Any:
    async def ask() -> bool:
        return fact()

    return ask
