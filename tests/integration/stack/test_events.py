"""`devpocket events` on a real stream."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import pytest
from nats.js.api import StreamConfig

from libs.common.messaging.streams import EVENTS_STREAM, EVENTS_SUBJECTS
from tests.integration.stack.harness import RunningStack, devpocket, environment

STORY = [
    ("env", "e1", "created"),
    ("env", "e2", "created"),
    ("runtime", "e1", "provisioning"),
    ("runtime", "e1", "running"),
    ("env", "e1", "stop_requested"),
]


def envelope(aggregate: str, subject: str, name: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"{aggregate}-{subject}-{name}",
        "type": f"devpocket.{aggregate}.{name}.v1",
        "subject": subject,
        "source": "test",
        "time": datetime.now(UTC).isoformat(),
        "data": {},
    }


@pytest.fixture(scope="module")
async def told(stack: RunningStack) -> RunningStack:
    """The stack with a story in its stream."""
    client = await nats.connect(stack.stack.environment["NATS_URL"])
    js = client.jetstream(timeout=30)
    await js.add_stream(StreamConfig(name=EVENTS_STREAM, subjects=[EVENTS_SUBJECTS]))
    for part in STORY:
        aggregate, subject, name = part
        await js.publish(f"devpocket.{aggregate}.{subject}.{name}", json.dumps(envelope(*part)).encode())
    await js.publish("devpocket.env.e3.created", b"\xff not json")
    await client.close()
    return stack


def listed(stack: RunningStack, *arguments: str) -> list[str]:
    result = devpocket("events", "ls", "--json", "--data-dir", str(stack.data_dir), *arguments)
    assert result.returncode == 0, result.stderr
    return [event.get("id", event["type"]) for event in json.loads(result.stdout)]


class TestList:
    def test_everything_in_order_with_its_place_in_the_stream(self, told: RunningStack) -> None:
        result = devpocket("events", "ls", "--json", "--data-dir", str(told.data_dir))
        events = json.loads(result.stdout)
        assert [event["sequence"] for event in events] == [1, 2, 3, 4, 5, 6]
        assert [event.get("id") for event in events] == [*("-".join(part) for part in STORY), None]
        assert events[-1]["type"] == "unreadable"

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (
                ["--env", "e1"],
                ["env-e1-created", "runtime-e1-provisioning", "runtime-e1-running", "env-e1-stop_requested"],
            ),
            (["--type", "created"], ["env-e1-created", "env-e2-created"]),
            (["--type", "devpocket.runtime.running.v1"], ["runtime-e1-running"]),
            (["--type", "runtime"], ["runtime-e1-provisioning", "runtime-e1-running"]),
            (["--env", "e1", "--limit", "1"], ["env-e1-stop_requested"]),
            (["--env", "e9"], []),
        ],
    )
    def test_filters(self, told: RunningStack, arguments: list[str], expected: list[str]) -> None:
        assert listed(told, *arguments) == expected

    def test_since(self, told: RunningStack) -> None:
        assert len(listed(told, "--since", "1h")) == 6
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        assert listed(told, "--since", later) == []

    def test_people_see_lines(self, told: RunningStack) -> None:
        result = devpocket("events", "ls", "--env", "e2", "--data-dir", str(told.data_dir))
        assert "devpocket.env.created.v1" in result.stdout
        assert result.stdout.count("\n") == 1

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--since", "yesterday"], "--since yesterday"),
            (["--env", "e1.>"], "no environment id"),
            (["--limit", "0"], "limit"),
        ],
    )
    def test_nonsense_is_refused(self, told: RunningStack, arguments: list[str], complaint: str) -> None:
        result = devpocket("events", "ls", "--data-dir", str(told.data_dir), *arguments)
        assert result.returncode == 2
        assert complaint in result.stderr


class TestTail:
    async def test_it_shows_what_comes(self, told: RunningStack) -> None:
        argv = [sys.executable, "-m", "libs.cli.main", "events", "tail", "--json", "--data-dir", str(told.data_dir)]
        tail = subprocess.Popen(  # noqa: ASYNC220 - it has to run beside this test
            [*argv, "--env", "e7", "--since", "1h", "--limit", "2"],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            client = await nats.connect(told.stack.environment["NATS_URL"])
            for name in ("created", "stop_requested"):
                event = json.dumps(envelope("env", "e7", name)).encode()
                await client.jetstream(timeout=30).publish(f"devpocket.env.e7.{name}", event)
            await client.close()
            output, _ = tail.communicate(timeout=110)
        finally:
            tail.kill()
        assert [json.loads(line)["id"] for line in output.splitlines()] == ["env-e7-created", "env-e7-stop_requested"]


def test_without_a_stack_it_says_what_to_do(tmp_path_factory: pytest.TempPathFactory) -> None:
    result = devpocket("events", "ls", "--data-dir", str(tmp_path_factory.mktemp("none")))
    assert result.returncode == 1
    assert "devpocket up" in result.stderr
