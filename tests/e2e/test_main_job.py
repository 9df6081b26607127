"""The demo, through the gateway of a real stack."""

from __future__ import annotations

import json

from tests.support.app import eventually
from tests.support.phone import Phone
from tests.support.stack import LocalStack


def test_the_demo_passes_twice_on_the_same_data(stack: LocalStack) -> None:
    for _ in range(2):
        done = stack.command("demo", "--json")
        steps = json.loads(done.stdout)
        assert done.returncode == 0, steps
        assert all(step["passed"] for step in steps)
        assert {"run python3 in the terminal", "find the file again", "delete it"} <= {step["step"] for step in steps}


def test_the_demo_fails_loudly_where_nothing_listens(stack: LocalStack) -> None:
    done = stack.command("demo", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "register" in done.stderr


async def test_the_story_of_an_environment_is_told_in_order(stack: LocalStack, alice: Phone) -> None:
    environment_id = await alice.create()
    answer = await alice.http.get(f"/api/v1/environments/{environment_id}/events")
    names = [event["type"] for event in answer.json()["events"]]
    # A machine that is busy may be told of in between.
    assert [name for name in names if name != "devpocket.runtime.delayed.v1"][:3] == [
        "devpocket.env.created.v1",
        "devpocket.runtime.provisioning.v1",
        "devpocket.runtime.running.v1",
    ]
    first, second = answer.json()["events"][:2]
    assert second["causation_id"] == first["id"]
    assert second["correlation_id"] == first["correlation_id"]
    listed = stack.command("events", "ls", "--env", environment_id, "--json")
    assert [event["type"] for event in json.loads(listed.stdout)][: len(names)] == names
    await alice.http.delete(f"/api/v1/environments/{environment_id}")
    await alice.until(environment_id, "terminated")


async def test_the_request_id_leads_to_every_event_it_caused(stack: LocalStack, alice: Phone) -> None:
    body = {"name": "traced", "template": "ubuntu"}
    headers = {"X-Request-ID": "trace-me-12345678"}
    answer = await alice.http.post("/api/v1/environments", json=body, headers=headers)
    assert answer.headers["x-request-id"] == "trace-me-12345678"
    environment_id = answer.json()["id"]
    await alice.until(environment_id, "running")

    async def are_told() -> bool:
        """What is said of a status is published after the status can be read."""
        events = (await alice.http.get(f"/api/v1/environments/{environment_id}/events")).json()["events"]
        caused = {event["type"] for event in events if event["correlation_id"] == "trace-me-12345678"}
        return {"devpocket.runtime.running.v1", "devpocket.env.status_changed.v1"} <= caused

    await eventually(are_told)
    await alice.http.delete(f"/api/v1/environments/{environment_id}")
