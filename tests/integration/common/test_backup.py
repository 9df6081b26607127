"""Backups on real servers: what refuses, what is never touched, and what is there once and only once."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client as NatsClient
from nats.js.api import AckPolicy, ConsumerConfig
from typer.testing import CliRunner, Result

from libs.cli.main import app
from libs.common import mongo
from libs.common.backup.manifest import MANIFEST
from libs.common.backup.streams import EXPECTED_LAST_SEQUENCE
from libs.common.context import Cause
from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import EnvironmentStatusChanged, Event
from libs.common.ids import new_id
from libs.common.messaging.outbox import PENDING, pending
from libs.common.messaging.redrive import redrive_subject
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM, ensure_streams
from libs.common.migrations.records import RESTORING, SCHEMA
from libs.common.settings import CommonSettings
from tests.support.app import eventually
from tests.support.servers import Servers

_PATIENCE_S = 30.0
_KEY = "test-secret-key-0123456789-0123456789"
_SERVICES = ("auth", "envs", "orchestrator", "terminal")


def an_event() -> Event:
    environment_id = new_id()
    data = EnvironmentStatusChanged(
        environment_id=environment_id,
        user_id=new_id(),
        status=EnvironmentStatus.RUNNING,
        previous=EnvironmentStatus.CREATING,
        version=2,
        generation=1,
    )
    return Event.new(data, subject=environment_id, source="envs", cause=Cause("correlation", None, "envs"))


class Installation:
    """Servers with something in them, and the command on them."""

    def __init__(self, servers: Servers, settings: CommonSettings, nats: NatsClient, client: mongo.Client) -> None:
        self.servers, self.settings, self.nats, self.client = servers, settings, nats, client
        self.js = nats.jetstream(timeout=_PATIENCE_S)
        self.key = _KEY

    def database(self, service: str) -> mongo.Database:
        return mongo.database(self.client, self.settings, service)

    async def publish(self, event: Event) -> None:
        payload = event.model_dump_json(exclude_none=True).encode()
        await self.js.publish(event.nats_subject, payload, stream=EVENTS_STREAM, headers={"Nats-Msg-Id": event.id})

    async def last(self) -> int:
        return (await self.js.stream_info(EVENTS_STREAM)).state.last_seq

    async def wipe(self) -> None:
        for stream in (EVENTS_STREAM, DEAD_LETTER_STREAM):
            await self.js.delete_stream(stream)
        for service in _SERVICES:
            await self.client.drop_database(self.database(service).name)

    async def contents(self) -> dict[str, list[mongo.Document]]:
        found = {}
        for service in _SERVICES:
            database = self.database(service)
            for name in await database.list_collection_names():
                found[f"{service}.{name}"] = await database[name].find({}).sort("_id", 1).to_list(None)
        return found

    async def run(self, *arguments: str | Path) -> Result:
        urls = ("--mongodb-url", self.servers.mongodb_url, "--nats-url", self.servers.nats_url)
        environment = {"DATABASE_NAME": self.settings.database_name, "SECRET_KEY": self.key}
        return await asyncio.to_thread(CliRunner().invoke, app, [*map(str, arguments), *urls], env=environment)


@pytest.fixture
async def here(clean_backend: Servers, make_settings: Any) -> AsyncIterator[Installation]:
    """One environment in each database, two events, one of them handled."""
    settings = make_settings(CommonSettings)
    client = mongo.connect(settings)
    connection = await nats.connect(clean_backend.nats_url)
    installation = Installation(clean_backend, settings, connection, client)
    await ensure_streams(installation.js, settings)
    for service in _SERVICES:
        collection = installation.database(service)["environments"]
        await collection.insert_many([{"_id": f"{service}-{number}", "n": number} for number in range(3)])
        await collection.create_index([("n", -1)], name="by_n", unique=True)
    for _ in range(2):
        await installation.publish(an_event())
    config = ConsumerConfig(durable_name="envs-work", ack_policy=AckPolicy.EXPLICIT, ack_wait=30)
    await installation.js.add_consumer(EVENTS_STREAM, config)
    reading = await installation.js.pull_subscribe_bind("envs-work", EVENTS_STREAM)
    await (await reading.fetch(1, _PATIENCE_S))[0].ack_sync(_PATIENCE_S)
    yield installation
    await installation.wipe()
    await connection.close()
    await mongo.close(client)


@pytest.fixture
async def saved(here: Installation, tmp_path: Path) -> Path:
    """A backup of it."""
    target = tmp_path / "backup"
    done = await here.run("backup", target, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["includes_key"] is False
    return target


async def test_documents_indexes_history_and_places_are_back(here: Installation, saved: Path) -> None:
    before = await here.contents()
    await here.wipe()
    done = await here.run("restore", saved)
    assert done.exit_code == 0, done.output
    restored = await here.contents()
    assert {name: found for name, found in restored.items() if not name.endswith(SCHEMA)} == before
    assert not any(restored.get(f"{service}.{SCHEMA}") for service in _SERVICES), "marked as half restored"
    index = (await here.database("envs")["environments"].index_information())["by_n"]
    assert (index["key"], index["unique"]) == ([("n", -1)], True)
    consumer = await here.js.consumer_info(EVENTS_STREAM, "envs-work")
    assert (consumer.ack_floor.stream_seq, consumer.num_pending, await here.last()) == (1, 1, 2)
    config = (await here.js.stream_info(EVENTS_STREAM)).config
    assert config.deny_delete, "the stream is configured as before"


async def test_files_are_private_and_of_the_standard_layout(here: Installation, saved: Path) -> None:
    files = _files(saved)
    assert set(files.values()) == {0o600}
    assert _mode(saved) == 0o700
    names = {path.relative_to(saved).as_posix() for path in files}
    database = f"mongodb/{here.database('envs').name}"
    assert {f"{database}/environments.bson.gz", f"{database}/environments.metadata.json.gz"} <= names
    assert {f"nats/{EVENTS_STREAM}/{name}" for name in ("backup.json", "stream.tar.s2", "tail.ndjson")} <= names
    assert not any(_KEY.encode() in path.read_bytes() for path in files)


def _files(folder: Path) -> dict[Path, int]:
    return {path: _mode(path) for path in folder.rglob("*") if path.is_file()}


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_a_backup_is_never_written_over_anything(here: Installation, saved: Path) -> None:
    before = (saved / MANIFEST).read_bytes()
    done = await here.run("backup", saved)
    assert done.exit_code == 1
    assert "is there already" in done.output
    assert (saved / MANIFEST).read_bytes() == before


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _as_of_another_version(path: Path) -> None:
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))


def _with_other_count(path: Path) -> None:
    path.write_text(path.read_text().replace('"environments": 3', '"environments": 4'))


_DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no manifest": (MANIFEST, Path.unlink, "no complete backup"),
    "half a manifest": (MANIFEST, _cut, "cannot be read"),
    "another format": (MANIFEST, _as_of_another_version, "written in format 2"),
    "a changed manifest": (MANIFEST, _with_other_count, "its own checksum"),
    "a missing file": (f"nats/{EVENTS_STREAM}/stream.tar.s2", Path.unlink, "stream.tar.s2 is missing"),
    "a shorter file": (f"nats/{EVENTS_STREAM}/stream.tar.s2", _cut, "bytes instead of"),
    "a changed file": (f"nats/{EVENTS_STREAM}/stream.tar.s2", _flip, "not what was written"),
}


async def test_a_damaged_backup_touches_nothing(here: Installation, saved: Path) -> None:
    before = await here.contents()
    for number, (damage, (name, hurt, words)) in enumerate(_DAMAGES.items()):
        damaged = saved.with_name(f"damaged-{number}")
        shutil.copytree(saved, damaged)
        hurt(damaged / name)
        done = await here.run("restore", damaged, "--replace")
        assert (done.exit_code, words in done.output) == (1, True), f"{damage}: {done.output}"
    assert await here.contents() == before
    assert await here.last() == 2


async def test_another_secret_key_is_refused(here: Installation, saved: Path) -> None:
    await here.wipe()
    await ensure_streams(here.js, here.settings)
    here.key = "another-secret-key-0123456789-0123456789"
    done = await here.run("restore", saved)
    assert done.exit_code == 1
    assert "another SECRET_KEY" in done.output
    assert await here.contents() == {}


@pytest.mark.parametrize("left", ["documents", "events"])
async def test_what_is_there_goes_only_when_told(here: Installation, saved: Path, left: str) -> None:
    await here.wipe()
    await ensure_streams(here.js, here.settings)
    if left == "documents":
        await here.database("terminal")["sessions"].insert_one({"_id": "new"})
    else:
        await here.publish(an_event())
    done = await here.run("restore", saved)
    assert (done.exit_code, "--replace" in done.output) == (1, True), done.output
    assert (await here.run("restore", saved, "--replace")).exit_code == 0
    assert await here.database("terminal")["sessions"].find_one({}) is None
    assert await here.last() == 2


async def test_nothing_is_restored_below_running_services(here: Installation, saved: Path) -> None:
    async def answer(message: Any) -> None:
        await message.respond(b"{}")

    service = await here.nats.subscribe(redrive_subject("envs-work"), cb=answer)
    await here.nats.flush()
    done = await here.run("restore", saved, "--replace")
    await service.unsubscribe()
    assert done.exit_code == 1
    assert "services are running on the target (envs-work)" in done.output


async def test_a_restore_that_broke_off_is_marked_and_can_be_done_again(
    here: Installation, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await here.contents()
    await here.wipe()

    async def fail(*_: Any, **__: Any) -> None:
        raise OSError("the plug was pulled")

    with monkeypatch.context() as broken:
        broken.setattr("libs.common.backup.restoring.load_stream", fail)
        done = await here.run("restore", saved)
    assert (done.exit_code, "the plug was pulled" in done.output) == (1, True)
    for service in _SERVICES:
        assert await here.database(service)[SCHEMA].find_one({"_id": RESTORING}) is not None
    assert (await here.run("restore", saved)).exit_code == 0
    restored = await here.contents()
    assert {name: found for name, found in restored.items() if not name.endswith(SCHEMA)} == before


async def test_an_event_that_was_stored_but_not_yet_taken_out_is_not_published_again(
    here: Installation, tmp_path: Path, make_settings: Any
) -> None:
    """As when the moment of the backup lies between the two writes; one that was not stored is still to be."""
    stored, waiting = an_event(), an_event()
    collection = here.database("envs")["environments"]
    await collection.insert_one({"_id": "told", "n": 9, PENDING: pending([stored, waiting])})
    await here.publish(stored)
    assert (await here.run("backup", tmp_path / "b")).exit_code == 0
    await here.wipe()
    assert (await here.run("restore", tmp_path / "b")).exit_code == 0
    document = await collection.find_one({"_id": "told"})
    assert document is not None
    assert [entry["id"] for entry in document[PENDING]] == [waiting.id]


async def test_events_after_the_snapshot_keep_their_places(here: Installation, saved: Path) -> None:
    """The tail is what is published at a restore, so no other event may come between."""
    shutil.copytree(saved, saved.with_name("longer"))
    events = [an_event() for _ in range(3)]
    for event in events:
        await here.publish(event)
    from libs.common.backup.streams import append_tail, delete_stream, load_stream, save_tail

    folder = saved.with_name("longer") / "nats" / EVENTS_STREAM
    assert await save_tail(here.nats, EVENTS_STREAM, folder / "tail.ndjson", after=1, until=5) == 4
    await delete_stream(here.nats, EVENTS_STREAM)
    state = await load_stream(here.nats, EVENTS_STREAM, folder, replicas=1)
    assert state["last_seq"] == 2
    assert await append_tail(here.nats, EVENTS_STREAM, folder / "tail.ndjson", last=2) == 5
    for place, event in enumerate(events, 3):
        message = await here.js.get_msg(EVENTS_STREAM, seq=place)
        assert message.headers is not None
        assert message.headers["Nats-Msg-Id"] == event.id
        assert "Devpocket-Imported-Sequence" not in message.headers
        assert message.headers[EXPECTED_LAST_SEQUENCE] == str(place - 1)


class Traffic:
    """What services do: a document with its event, the event to the stream and out of the document, a reader's own
    document of it in another database."""

    def __init__(self, here: Installation) -> None:
        self._here = here
        self._things = here.database("envs")["things"]
        self._read = here.database("orchestrator")["read"]
        self.written = 0

    async def write(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            event = an_event()
            await self._things.insert_one({"_id": event.subject, "event": event.id, PENDING: pending([event])})
            await self._here.publish(event)
            await self._things.update_one({"_id": event.subject}, {"$pull": {PENDING: {"id": event.id}}})
            self.written += 1

    async def read(self, stop: asyncio.Event | None) -> None:
        """Until told, or until there is nothing left."""
        reading = await self._here.js.pull_subscribe_bind("orchestrator-work", EVENTS_STREAM)
        while stop is None or not stop.is_set():
            try:
                messages = await reading.fetch(10, timeout=1)
            except nats.errors.TimeoutError:
                info = await self._here.js.consumer_info(EVENTS_STREAM, "orchestrator-work")
                if stop is None and not info.num_pending and not info.num_ack_pending:
                    return
                continue
            for message in messages:
                assert message.headers is not None
                key, sequence = message.headers["Nats-Msg-Id"], message.metadata.sequence.stream
                await self._read.update_one({"_id": key}, {"$max": {"sequence": sequence}}, upsert=True)
                await message.ack_sync(_PATIENCE_S)


async def test_documents_and_events_fit_each_other_whenever_the_backup_is_made(
    here: Installation, tmp_path: Path
) -> None:
    filling = [{"_id": number, "text": "x" * 200} for number in range(1_500)]
    await here.database("auth")["filling"].insert_many(filling)
    # What was in the reader's hands at the snapshot comes again after this time.
    config = ConsumerConfig(durable_name="orchestrator-work", ack_policy=AckPolicy.EXPLICIT, ack_wait=1.0)
    await here.js.add_consumer(EVENTS_STREAM, config)
    stop, traffic = asyncio.Event(), Traffic(here)
    working = [asyncio.create_task(traffic.write(stop)) for _ in range(3)]
    working.append(asyncio.create_task(traffic.read(stop)))
    await eventually(_later(lambda: traffic.written > 50))
    done = await here.run("backup", tmp_path / "b", "--json")
    written = traffic.written
    await eventually(_later(lambda: traffic.written > written + 20))
    stop.set()
    await asyncio.gather(*working)
    last = json.loads(done.stdout)["last_sequences"][EVENTS_STREAM]
    assert await here.last() > last, "nothing went on meanwhile"

    await here.wipe()
    assert (await here.run("restore", tmp_path / "b")).exit_code == 0
    assert await here.last() == last
    stored = {}
    for sequence in range(3, last + 1):
        message = await here.js.get_msg(EVENTS_STREAM, seq=sequence)
        assert message.headers is not None
        stored[message.headers["Nats-Msg-Id"]] = sequence
    assert len(stored) == last - 2, "an event is there twice"
    told: set[str] = set()
    waiting: set[str] = set()
    for document in await here.database("envs")["things"].find({}).to_list(None):
        (waiting if document[PENDING] else told).add(document["event"])
    assert told == stored.keys(), "told and not in the stream, or in the stream and never told"
    assert not waiting & stored.keys()
    read = here.database("orchestrator")["read"]
    before = {document["_id"]: document["sequence"] async for document in read.find({})}
    assert {key: stored.get(key) for key in before if key in stored or before[key] > 2} == {
        key: place for key, place in before.items() if place > 2
    }, "read before it was there"
    await Traffic(here).read(None)
    after = {document["_id"]: document["sequence"] async for document in read.find({})}
    assert {key: place for key, place in after.items() if place > 2} == stored, "never delivered, or elsewhere"


def _later(fact: Callable[[], bool]) -> Any:
    async def ask() -> bool:
        return fact()

    return ask
