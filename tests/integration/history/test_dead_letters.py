"""Dead letters, and another chance for them, with a small service played by the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from nats.aio.msg import Msg

from libs.common.history.dead_letters import DeadLetterQuery, DeadLetters
from libs.common.history.errors import NoSuchDeadLetterError
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from tests.integration.history.conftest import Desk
from tests.unit.history.makers import bad_night

CREATED, RUNNING = bad_night()[:2]
Answer = Callable[[Msg], dict[str, Any] | bytes]


async def bury(desk: Desk, service: str = "envs", purpose: str = "runtime", **changes: str) -> int:
    """A dead letter as the services write them; its number."""
    headers = {
        "Nats-Msg-Id": f"{service}-{purpose}:2",
        "Devpocket-Error-Type": "KeyError",
        "Devpocket-Error-Message": "'generation' is missing",
        "Devpocket-Deliveries": "8",
        "Devpocket-Consumer": f"{service}-{purpose}",
        "Devpocket-Original-Subject": RUNNING.subject,
        "Devpocket-Original-Sequence": "2",
        **changes,
    }
    subject = f"dlq.{service}.{headers['Devpocket-Original-Subject']}"
    payload = changes.pop("payload", RUNNING.payload.decode()).encode()
    headers.pop("payload", None)
    return (await desk.js.publish(subject, payload, stream=DEAD_LETTER_STREAM, headers=headers)).seq


async def serve(desk: Desk, answer: Answer, consumer: str = "envs-runtime") -> list[Msg]:
    """A replica; what it was asked."""
    asked: list[Msg] = []

    async def on_request(message: Msg) -> None:
        asked.append(message)
        said = answer(message)
        await message.respond(said if isinstance(said, bytes) else json.dumps(said).encode())

    await desk.client.subscribe(f"redrive.{consumer}", queue="envs", cb=on_request)
    await desk.client.flush()
    return asked


async def left(desk: Desk) -> list[int]:
    return [letter.number async for letter in DeadLetters(desk.js).find(DeadLetterQuery())]


@pytest.fixture
async def dead(desk: Desk) -> Desk:
    """Two dead letters of envs, one of terminal."""
    await desk.store(CREATED, RUNNING)
    await bury(desk)
    await bury(
        desk, purpose="users", **{"Devpocket-Original-Subject": "devpocket.user.u1.registered", "payload": "{bad"}
    )
    await bury(
        desk,
        "terminal",
        "environments",
        **{"Devpocket-Original-Subject": CREATED.subject, "payload": CREATED.payload.decode()},
    )
    return desk


class TestReading:
    async def test_a_list_for_people(self, dead: Desk) -> None:
        lines = (await dead.run("dlq", "ls")).stdout.splitlines()
        assert lines[0].split() == ["ID", "TIME", "(UTC)", "SERVICE", "CONSUMER", "SUBJECT", "TRIES", "ERROR"]
        assert lines[1].endswith(
            "envs-runtime           devpocket.runtime.e1.running      8  KeyError: 'generation' is missing"
        )
        assert len(lines) == 4

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ([], [1, 2, 3]),
            (["--service", "envs"], [1, 2]),
            (["--env", "e1"], [1, 3]),
            (["--env", "e1", "--service", "terminal"], [3]),
            (["--type", "running"], [1]),
            (["--type", "user.registered"], [2]),
            (["--service", "auth"], []),
            (["--limit", "2"], [2, 3]),
        ],
    )
    async def test_filters(self, dead: Desk, arguments: list[str], expected: list[int]) -> None:
        assert [row["id"] for row in (await dead.run("dlq", "ls", "--json", *arguments)).json] == expected

    async def test_everything_about_one_but_secrets(self, dead: Desk) -> None:
        shown = (await dead.run("dlq", "show", "3", "--json")).json
        assert shown["event"]["id"] == "event-1"
        assert shown["headers"]["Devpocket-Deliveries"] == "8"
        people = (await dead.run("dlq", "show", "3")).stdout
        assert '"image": "devpocket/python:latest"' in people
        assert "SEALED" not in people + json.dumps(shown)
        assert "{bad" in (await dead.run("dlq", "show", "2")).stdout

    async def test_one_that_is_not_there(self, dead: Desk) -> None:
        outcome = await dead.run("dlq", "show", "9")
        assert (outcome.code, "no dead letter 9" in outcome.stderr) == (1, True)

    async def test_none_is_good_news(self, desk: Desk) -> None:
        assert (await desk.run("dlq", "ls")).stdout == "no dead letters\n"
        assert (await desk.run("dlq", "redrive", "--all")).code == 0


class TestRedrive:
    async def test_what_is_handled_is_gone(self, dead: Desk) -> None:
        asked = await serve(dead, lambda _: {"ok": True})
        outcome = await dead.run("dlq", "redrive", "1")
        assert (outcome.code, "handled" in outcome.stdout) == (0, True)
        assert await left(dead) == [2, 3]
        assert asked[0].data == RUNNING.payload
        assert (asked[0].headers or {})["Devpocket-Original-Sequence"] == "2"
        with pytest.raises(NoSuchDeadLetterError):
            await DeadLetters(dead.js).get(1)

    async def test_what_fails_stays_and_says_why(self, dead: Desk) -> None:
        await serve(dead, lambda _: {"ok": False, "error_type": "KeyError", "message": "still missing"})
        outcome = await dead.run("dlq", "redrive", "1")
        assert outcome.code == 1
        assert "KeyError: still missing" in outcome.stdout
        assert await left(dead) == [1, 2, 3]

    @pytest.mark.parametrize("answer", [b"", b"[]", b"\xff", b'"ok"', b"{}", b'{"ok": "yes"}'])
    async def test_an_answer_that_is_none_is_a_failure(self, dead: Desk, answer: bytes) -> None:
        await serve(dead, lambda _: answer)
        assert (await DeadLetters(dead.js).redrive(await DeadLetters(dead.js).get(1))).code == "failed"
        assert await left(dead) == [1, 2, 3]

    async def test_nobody_there(self, dead: Desk) -> None:
        outcome = await dead.run("dlq", "redrive", "1")
        assert outcome.code == 1
        assert "no replica of envs is running; the dead letter stays" in outcome.stdout
        assert await left(dead) == [1, 2, 3]

    async def test_all_that_the_filters_leave(self, dead: Desk) -> None:
        await serve(dead, lambda _: {"ok": True})
        await serve(dead, lambda _: {"ok": True}, "terminal-environments")
        outcomes = (await dead.run("dlq", "redrive", "--all", "--env", "e1", "--json")).json
        assert [(outcome["id"], outcome["handled"]) for outcome in outcomes] == [(1, True), (3, True)]
        assert await left(dead) == [2]

    async def test_a_truncated_one_goes_whole(self, desk: Desk) -> None:
        await desk.store(CREATED, RUNNING)
        size = {"Devpocket-Truncated-From-Bytes": str(len(RUNNING.payload)), "payload": RUNNING.payload[:50].decode()}
        number = await bury(desk, **size)
        asked = await serve(desk, lambda _: {"ok": True})
        assert (await desk.run("dlq", "redrive", str(number))).code == 0
        assert asked[0].data == RUNNING.payload

    async def test_a_truncated_one_whose_original_is_gone_is_not_tried(self, desk: Desk) -> None:
        await desk.store(CREATED, RUNNING)
        await desk.js.purge_stream(EVENTS_STREAM)
        number = await bury(desk, **{"Devpocket-Truncated-From-Bytes": "9000", "payload": "{"})
        asked = await serve(desk, lambda _: {"ok": True})
        outcome = await desk.run("dlq", "redrive", str(number), "--json")
        assert (outcome.code, json.loads(outcome.stdout)[0]["code"]) == (1, "lost")
        assert (asked, await left(desk)) == ([], [number])

    async def test_another_event_at_its_place_is_not_taken_for_it(self, desk: Desk) -> None:
        await desk.store(RUNNING, CREATED)
        number = await bury(desk, **{"Devpocket-Truncated-From-Bytes": "9000", "payload": "{"})
        assert (await DeadLetters(desk.js).redrive(await DeadLetters(desk.js).get(number))).code == "lost"

    async def test_a_consumer_that_is_no_name_is_never_asked(self, desk: Desk) -> None:
        number = await bury(desk, **{"Devpocket-Consumer": "envs.>"})
        assert (await DeadLetters(desk.js).redrive(await DeadLetters(desk.js).get(number))).code == "failed"

    async def test_a_replica_that_never_answers(self, dead: Desk) -> None:
        async def silent(_: Msg) -> None:
            """As if it hung."""

        await dead.client.subscribe("redrive.envs-runtime", cb=silent)
        letters = DeadLetters(dead.js, timeout_s=0.2)
        outcome = await letters.redrive(await letters.get(1))
        assert "no answer within 0.2 s" in outcome.message
        assert await left(dead) == [1, 2, 3]

    @pytest.mark.parametrize("arguments", [[], ["1", "--all"], ["1", "--service", "envs"]])
    async def test_it_wants_to_know_which(self, desk: Desk, arguments: list[str]) -> None:
        assert (await desk.run("dlq", "redrive", *arguments)).code == 2
