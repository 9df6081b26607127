"""The event stream and the dead letters for administrators."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from libs.common.contracts.events import RuntimeRunning
from libs.common.contracts.identity import Plan
from libs.common.history.ndjson import from_lines
from libs.common.messaging.streams import DEAD_LETTER_STREAM
from tests.integration.envs.conftest import World

ADMIN = "/api/v1/admin"
PATHS = [
    ("GET", "events"),
    ("GET", "events/1"),
    ("GET", "events/export"),
    ("GET", "environments/e1/timeline"),
    ("GET", "environments/e1/state"),
    ("GET", "dead-letters"),
    ("GET", "dead-letters/1"),
    ("POST", "dead-letters/1/redrive"),
]


class Desk:
    """An administrator."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.headers = world.issuer.headers(plan=Plan.ADMIN)

    async def ask(self, path: str, expected: int = 200, method: str = "GET") -> Any:
        """The JSON of an answer that must have this code."""
        return await self.world.call(method, f"{ADMIN}/{path}", expected, headers=self.headers)

    async def text(self, path: str) -> httpx.Response:
        """An answer that is no JSON."""
        return await self.world.http.get(f"{ADMIN}/{path}", headers=self.headers)


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


@pytest.fixture
async def environment_id(world: World) -> str:
    """One that runs, with variables, and garbage about it."""
    environment_id = await world.running(environment_variables={"TOKEN": "a-secret"})
    await world.stored(environment_id, 3)
    await world.publish_raw(f"devpocket.env.{environment_id}.updated", b'{"variables_sealed": "half')
    return environment_id


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_it_is_for_administrators(world: World, method: str, path: str) -> None:
    answer = await world.http.request(method, f"{ADMIN}/{path}")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    answer = await world.http.request(method, f"{ADMIN}/{path}", headers=world.headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


class TestEvents:
    async def test_everything_in_order_garbage_included(self, desk: Desk, environment_id: str) -> None:
        found = await desk.ask(f"events?env={environment_id}")
        assert [event["type"] for event in found["events"]] == [
            "devpocket.env.created.v1", "devpocket.runtime.running.v1", "devpocket.env.status_changed.v1", "unreadable",
        ]  # fmt: skip
        assert found["next_cursor"] is None
        assert "sealed" not in json.dumps(found["events"][:3])
        one = await desk.ask(f"events/{found['events'][0]['sequence']}")
        assert one == found["events"][0]

    async def test_pages(self, desk: Desk, environment_id: str) -> None:
        whole = (await desk.ask("events"))["events"]
        paged, cursor = [], ""
        while True:
            page = await desk.ask(f"events?limit=2{cursor}")
            paged += page["events"]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert paged == whole
        assert len(whole) == 4

    async def test_filters(self, desk: Desk, environment_id: str) -> None:
        found = await desk.ask(f"events?env={environment_id}&type=status_changed&since=1h")
        assert [event["data"]["status"] for event in found["events"]] == ["running"]

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("since=noon", "bad_time"),
            ("env=a.>", "validation_error"),
            ("limit=0", "validation_error"),
            ("cursor=x", "invalid_cursor"),
        ],
    )
    async def test_nonsense_is_422(self, desk: Desk, query: str, code: str) -> None:
        assert (await desk.ask(f"events?{query}", 422))["code"] == code

    async def test_nothing_there_is_404(self, desk: Desk) -> None:
        assert (await desk.ask("events/99", 404))["code"] == "event_not_found"

    async def test_an_export_is_one_that_can_be_imported_without_secrets(self, desk: Desk, environment_id: str) -> None:
        answer = await desk.text(f"events/export?env={environment_id}")
        assert answer.headers["content-type"] == "application/x-ndjson"
        items = [item for _, item in from_lines(answer.content.splitlines())]
        assert [item.sequence for item in items] == [1, 2, 3, 4]
        assert not any(b"sealed" in item.payload for item in items)
        assert (await desk.text("events/export?env=nobody")).content == b""


class TestStories:
    async def test_a_timeline(self, desk: Desk, environment_id: str) -> None:
        found = await desk.ask(f"environments/{environment_id}/timeline")
        assert found["environment_id"] == environment_id
        assert [step["what"] for step in found["steps"]] == [
            "env.created", "runtime.running", "env.status_changed", "unreadable",
        ]  # fmt: skip
        assert found["steps"][2]["cause"] == 2
        assert "sealed" not in json.dumps(found)

    async def test_a_state_then_and_now(self, desk: Desk, environment_id: str) -> None:
        now = await desk.ask(f"environments/{environment_id}/state")
        assert (now["status"]["value"], now["variables"]["value"], now["not_understood"]) == ("running", "sealed", 1)
        then = await desk.ask(f"environments/{environment_id}/state?seq=1")
        assert then["status"]["value"] == "creating"
        assert then["last_event"]["sequence"] == 1

    async def test_unknown_ones_are_404_and_times_before_the_beginning_too(
        self, desk: Desk, environment_id: str
    ) -> None:
        assert (await desk.ask("environments/nobody/timeline", 404))["code"] == "event_not_found"
        assert (await desk.ask("environments/nobody/state", 404))["code"] == "event_not_found"
        problem = await desk.ask(f"environments/{environment_id}/state?at=2020-01-01", 404)
        assert "its first is 1" in problem["detail"]


class TestDeadLetters:
    async def bury(self, world: World, environment_id: str, consumer: str = "envs-runtime") -> int:
        data = RuntimeRunning(environment_id=environment_id, user_id="u1", generation=1, runtime="local")
        sequence = await world.publish(data, environment_id)
        message = await world.js.get_msg("DEVPOCKET_EVENTS", seq=sequence)
        headers = {
            "Devpocket-Error-Type": "KeyError",
            "Devpocket-Error-Message": "why not",
            "Devpocket-Deliveries": "8",
            "Devpocket-Consumer": consumer,
            "Devpocket-Original-Subject": message.subject or "",
            "Devpocket-Original-Sequence": str(sequence),
        }
        subject = f"dlq.envs.{message.subject}"
        return (await world.js.publish(subject, message.data or b"", stream=DEAD_LETTER_STREAM, headers=headers)).seq

    async def test_they_are_listed_and_shown(self, desk: Desk, environment_id: str) -> None:
        numbers = [await self.bury(desk.world, environment_id) for _ in range(3)]
        page = await desk.ask("dead-letters?limit=2")
        assert [letter["id"] for letter in page["dead_letters"]] == numbers[:2]
        rest = await desk.ask(f"dead-letters?cursor={page['next_cursor']}&env={environment_id}&type=running")
        assert [letter["id"] for letter in rest["dead_letters"]] == numbers[2:]
        whole = await desk.ask(f"dead-letters/{numbers[0]}")
        assert whole["event"]["type"] == "devpocket.runtime.running.v1"
        assert (whole["deliveries"], whole["error_message"]) == (8, "why not")

    async def test_the_service_itself_tries_again(self, desk: Desk, environment_id: str) -> None:
        number = await self.bury(desk.world, environment_id)
        answer = await desk.ask(f"dead-letters/{number}/redrive", method="POST")
        assert answer == {"id": number, "handled": True}
        assert (await desk.ask(f"dead-letters/{number}", 404))["code"] == "dead_letter_not_found"
        assert (await desk.ask(f"dead-letters/{number}/redrive", 404, "POST"))["code"] == "dead_letter_not_found"

    async def test_a_failure_is_409_and_says_why(self, desk: Desk, environment_id: str) -> None:
        number = await self.bury(desk.world, environment_id, "envs-broken")

        async def refuse(message: Any) -> None:
            await message.respond(b'{"ok": false, "error_type": "KeyError", "message": "still missing"}')

        await desk.world.bus.subscribe("redrive.envs-broken", cb=refuse)
        await desk.world.bus.flush()
        problem = await desk.ask(f"dead-letters/{number}/redrive", 409, "POST")
        assert (problem["code"], "KeyError: still missing" in problem["detail"]) == ("redrive_failed", True)
        await desk.ask(f"dead-letters/{number}")

    async def test_nobody_there_is_503(self, desk: Desk, environment_id: str) -> None:
        number = await self.bury(desk.world, environment_id, "envs-nobody")
        problem = await desk.ask(f"dead-letters/{number}/redrive", 503, "POST")
        assert (problem["code"], "no replica of envs is running" in problem["detail"]) == ("no_replica", True)
