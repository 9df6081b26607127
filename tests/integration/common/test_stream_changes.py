"""Streams and consumers whose configuration is another one than it was, on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType
from typer.testing import CliRunner, Result

from libs.cli.main import app as command
from libs.common.messaging import consumers
from libs.common.messaging.consumers import ConsumerKeeper
from libs.common.messaging.stream_changes import StreamChangeRefusedError, apply, changes
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM, EVENTS_SUBJECTS, ensure_streams
from libs.common.settings import CommonSettings
from tests.support.app import eventually
from tests.support.servers import Servers

_DAY_S = 86_400
_CONSUMER = ConsumerConfig(
    ack_policy=AckPolicy.EXPLICIT,
    ack_wait=30.0,
    max_deliver=-1,
    max_ack_pending=1_000,
    deliver_policy=DeliverPolicy.ALL,
)


@pytest.fixture
async def js(clean_backend: Servers) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(clean_backend.nats_url)
    yield client.jetstream()
    await client.close()


@pytest.fixture
async def settings(clean_backend: Servers, make_settings: Callable[..., Any], js: JetStreamContext) -> CommonSettings:
    """With streams as these settings say."""
    made: CommonSettings = make_settings(CommonSettings)
    await ensure_streams(js, made)
    return made


async def _ages(js: JetStreamContext) -> list[float | None]:
    return [(await js.stream_info(name)).config.max_age for name in (EVENTS_STREAM, DEAD_LETTER_STREAM)]


async def test_streams_as_they_are_declared_differ_in_nothing(js: JetStreamContext, settings: CommonSettings) -> None:
    assert await changes(js, settings) == []
    assert await apply(js, settings, allow_loss=False) == []


async def test_a_longer_memory_is_applied_once_and_what_the_operator_has_set_stays(
    js: JetStreamContext, settings: CommonSettings, make_settings: Callable[..., Any]
) -> None:
    config = (await js.stream_info(EVENTS_STREAM)).config
    await js.update_stream(replace(config, max_bytes=1 << 30, description="ours"))
    longer = make_settings(CommonSettings, stream_max_age_days=60)
    applied = await apply(js, longer, allow_loss=False)
    assert [(change.stream, change.field, change.loses) for change in applied] == [
        (EVENTS_STREAM, "max_age", None),
        (DEAD_LETTER_STREAM, "max_age", None),
    ]
    assert await apply(js, longer, allow_loss=False) == []
    config = (await js.stream_info(EVENTS_STREAM)).config
    assert (config.max_age, config.max_bytes, config.description, config.deny_delete) == (
        60 * _DAY_S,
        1 << 30,
        "ours",
        True,
    )


async def test_what_loses_events_needs_to_be_allowed(
    js: JetStreamContext, settings: CommonSettings, make_settings: Callable[..., Any]
) -> None:
    shorter = make_settings(CommonSettings, stream_max_age_days=7)
    with pytest.raises(StreamChangeRefusedError, match="older events are removed at once"):
        await apply(js, shorter, allow_loss=False)
    assert await _ages(js) == [30 * _DAY_S] * 2, "neither of them was touched"
    await apply(js, shorter, allow_loss=True)
    assert await _ages(js) == [7 * _DAY_S] * 2


async def test_subjects_that_are_left_out_are_a_loss_and_more_are_none(
    js: JetStreamContext, settings: CommonSettings
) -> None:
    config = (await js.stream_info(EVENTS_STREAM)).config
    await js.update_stream(replace(config, subjects=["devpocket.env.>"]))
    (more,) = await apply(js, settings, allow_loss=False)
    assert (more.field, more.wanted, more.loses) == ("subjects", [EVENTS_SUBJECTS], None)
    await js.update_stream(replace(config, subjects=[EVENTS_SUBJECTS, "devpocket2.>"]))
    with pytest.raises(StreamChangeRefusedError, match="are not kept any more"):
        await apply(js, settings, allow_loss=False)


async def test_what_the_server_will_not_do_is_told(js: JetStreamContext, settings: CommonSettings) -> None:
    config = (await js.stream_info(EVENTS_STREAM)).config
    await js.delete_stream(EVENTS_STREAM)
    await js.add_stream(replace(config, storage=StorageType.MEMORY))
    with pytest.raises(StreamChangeRefusedError, match="the server cannot change it"):
        await apply(js, settings, allow_loss=False)
    with pytest.raises(StreamChangeRefusedError, match=f"{EVENTS_STREAM} was not changed: .*storage"):
        await apply(js, settings, allow_loss=True)


async def test_services_never_change_a_stream_whatever_their_settings(
    js: JetStreamContext, settings: CommonSettings, make_settings: Callable[..., Any]
) -> None:
    await ensure_streams(js, make_settings(CommonSettings, stream_max_age_days=7))
    assert await _ages(js) == [30 * _DAY_S] * 2


async def test_the_command_shows_and_applies(js: JetStreamContext, settings: CommonSettings) -> None:
    environment = {
        "NATS_URL": settings.nats_url.get_secret_value(),
        "MONGODB_URL": settings.mongodb_url.get_secret_value(),
        "STREAM_MAX_AGE_DAYS": "7",
    }

    async def streams(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, command, ["streams", *arguments], env=environment)

    shown = await streams("status", "--json")
    assert (shown.exit_code, [change["field"] for change in json.loads(shown.stdout)]) == (1, ["max_age"] * 2)
    refused = await streams("apply")
    assert (refused.exit_code, "--allow-loss" in refused.output) == (1, True)
    assert (await streams("apply", "--allow-loss")).exit_code == 0
    assert (await streams("status")).exit_code == 0


def _keeper(settings: CommonSettings, config: ConsumerConfig, subject: str, revision: int) -> ConsumerKeeper:
    keeper = ConsumerKeeper(settings, look_every_s=0.05)
    keeper.add("envs-work", subject, replace(config, description=consumers.described(revision)))
    return keeper


async def _info(js: JetStreamContext) -> Any:
    return await js.consumer_info(EVENTS_STREAM, "envs-work")


async def test_a_newer_version_changes_a_consumer_in_its_place_and_an_older_one_leaves_it_alone(
    js: JetStreamContext, settings: CommonSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are up: the consumer of before this was said at all, then the two versions side by side."""
    await js.add_consumer(EVENTS_STREAM, replace(_CONSUMER, durable_name="envs-work", filter_subject="devpocket.env.>"))
    for number in range(4):
        await js.publish(f"devpocket.env.{number}.created", b"{}", stream=EVENTS_STREAM)
    reading = await js.pull_subscribe_bind("envs-work", EVENTS_STREAM)
    for message in await reading.fetch(3):
        await message.ack_sync()
    old = _keeper(settings, _CONSUMER, "devpocket.env.>", consumers.REVISION)
    old.start(js)

    async def is_revised() -> bool:
        info = await _info(js)
        return bool(info.config.description == consumers.described(consumers.REVISION))

    await eventually(is_revised)
    with monkeypatch.context() as newer_version:
        newer_version.setattr(consumers, "REVISION", consumers.REVISION + 1)
        config = replace(_CONSUMER, ack_wait=60.0, max_ack_pending=10)
        new = _keeper(settings, config, "devpocket.>", consumers.REVISION)
        new.start(js)
        await eventually(lambda: _is(js, 60.0))
        await new.stop()
    looks = 0

    async def looked_again() -> bool:
        nonlocal looks
        looks += 1
        old.look_now()
        return looks > 20

    await eventually(looked_again)
    await old.stop()
    info = await _info(js)
    assert (info.config.ack_wait, info.config.max_ack_pending, info.config.filter_subject) == (60.0, 10, "devpocket.>")
    assert (info.ack_floor.stream_seq, info.num_pending) == (3, 1), "the place is kept"


async def _is(js: JetStreamContext, ack_wait: float) -> bool:
    info = await _info(js)
    return bool(info.config.ack_wait == ack_wait)
