"""`devpocket events …` as people and programs use it, on a real stream with garbage in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nats.js.api import StreamConfig

from libs.common.history.query import ALL_EVENTS
from libs.common.messaging.streams import EVENTS_STREAM
from tests.integration.history.conftest import STORY, Desk


class TestStories:
    async def test_a_timeline_holds_the_garbage_too(self, told: Desk) -> None:
        steps = (await told.run_process("timeline", "--env", "e1", "--json")).json
        assert [step["sequence"] for step in steps] == list(range(1, 10))
        assert [step["what"] for step in steps[6:]] == ["unreadable"] * 3
        assert all(step["problem"] for step in steps[6:])

    async def test_one_request_across_aggregates(self, told: Desk) -> None:
        steps = (await told.run("timeline", "--correlation", "request-1", "--json")).json
        assert {step["about"] for step in steps} == {"e1", "e2"}
        assert 4 not in [step["sequence"] for step in steps]

    async def test_state_then_and_now(self, told: Desk) -> None:
        now = (await told.run("state", "--env", "e1", "--json")).json
        assert (now["status"]["value"], now["not_understood"]) == ("error", 3)
        then = (await told.run("state", "--env", "e1", "--seq", "3", "--json")).json
        assert then["status"] == {"value": "running", "since": "2026-11-25T03:00:03.000000Z", "sequence": 3}
        assert then["changed"][0] == {"field": "status", "before": "creating", "after": "running"}
        at = (await told.run("state", "--env", "e1", "--at", "2026-11-25T03:00:03Z", "--json")).json
        assert at == then

    async def test_show_by_place_and_by_id(self, told: Desk) -> None:
        by_place = (await told.run("show", "2", "--json")).json
        by_id = (await told.run("show", "event-2", "--json")).json
        assert by_place == by_id
        people = await told.run("show", "7")
        assert "problem    not JSON: not UTF-8" in people.stdout
        missing = await told.run("show", "77")
        assert (missing.code, "no event has the sequence or the id 77" in missing.stderr) == (1, True)

    @pytest.mark.parametrize(
        "arguments", [["ls"], ["ls", "--json"], ["show", "1"], ["timeline", "--env", "e1"], ["state", "--env", "e1"]]
    )
    async def test_no_secret_is_shown(self, told: Desk, arguments: list[str]) -> None:
        outcome = await told.run(*arguments)
        assert outcome.code == 0, outcome.stderr
        assert "SEALED" not in outcome.stdout

    async def test_nobody_there_is_a_sentence(self, desk: Desk) -> None:
        outcome = await Desk("nats://127.0.0.1:9", desk.client).run_process("ls")
        assert (outcome.code, outcome.stdout) == (1, "")
        assert "NATS cannot be reached" in outcome.stderr
        assert "Traceback" not in outcome.stderr


STORIES = (
    ("timeline", "--env", "e1"),
    ("state", "--env", "e1"),
    ("state", "--env", "e1", "--seq", "4"),
    ("ls", "--env", "e1"),
    ("ls", "--env", "e1", "--limit", "2"),
)


class TestTransfer:
    async def test_an_empty_machine_tells_the_same_story(self, told: Desk, laptop: Desk, tmp_path: Path) -> None:
        file = tmp_path / "slice.ndjson"
        # Places in the stream must differ on the two machines, or nothing would be proved.
        await told.store(*[item for item in STORY if item.about == "e1" and item.id is None])
        exported = await told.run("export", "--env", "e1", "--output", str(file))
        assert "exported 12 events" in exported.stderr
        assert file.stat().st_mode & 0o077 == 0
        shown = [(await told.run(*story, "--json")).json for story in STORIES]
        # Somebody lived on the laptop before.
        await laptop.run("import", "-", stdin=_a_stranger())
        assert (await laptop.run("import", str(file))).stdout == "12 events imported, 0 were there already\n"
        assert [(await laptop.run(*story, "--json")).json for story in STORIES] == shown
        from_file = [(await laptop.run(*story, "--json", "--file", str(file))).json for story in STORIES]
        assert from_file == shown

    async def test_the_export_of_an_import_is_the_same_file(self, told: Desk, laptop: Desk) -> None:
        text = (await told.run_process("export")).stdout
        await laptop.run_process("import", "-", stdin=text.encode())
        assert (await laptop.run("export")).stdout == text

    async def test_importing_twice_adds_nothing(self, told: Desk, laptop: Desk) -> None:
        text = (await told.run("export", "--env", "e1")).stdout.encode()
        # The duplicate window of the server is over sooner than a command starts: it must not rely on that.
        await laptop.js.add_stream(StreamConfig(EVENTS_STREAM, subjects=[ALL_EVENTS], duplicate_window=0.1))
        assert (await laptop.run("import", "-", "--json", stdin=text)).json == {"added": 9, "already_there": 0}
        assert (await laptop.run("import", "-", "--json", stdin=text)).json == {"added": 0, "already_there": 9}

    async def test_where_it_came_from_nothing_is_added(self, told: Desk) -> None:
        text = (await told.run("export")).stdout.encode()
        assert (await told.run("import", "-", "--json", stdin=text)).json == {"added": 0, "already_there": len(STORY)}

    async def test_a_bad_line_stops_everything_before_it_begins(self, told: Desk, laptop: Desk) -> None:
        text = (await told.run("export")).stdout + '{"sequence": 1}\n'
        outcome = await laptop.run("import", "-", stdin=text.encode())
        assert outcome.code == 1
        assert "line 11: `subject` is no subject" in outcome.stderr
        assert (await laptop.js.stream_info("DEVPOCKET_EVENTS")).state.messages == 0

    async def test_what_belongs_to_a_user(self, told: Desk) -> None:
        lines = (await told.run("export", "--user", "u1")).stdout.splitlines()
        assert [json.loads(line)["sequence"] for line in lines] == [1, 2, 3, 4, 5, 6, 10]
        assert (await told.run("export", "--user", "nobody")).stdout == ""

    async def test_variables_travel_for_operators(self, told: Desk) -> None:
        assert "SEALED-SECRET" in (await told.run("export", "--env", "e1")).stdout

    async def test_a_place_that_cannot_be_written_is_a_sentence(self, told: Desk, tmp_path: Path) -> None:
        outcome = await told.run_process("export", "--output", str(tmp_path / "none" / "x"))
        assert (outcome.code, "No such file" in outcome.stderr, "Traceback" in outcome.stderr) == (1, True, False)


def _a_stranger() -> bytes:
    event = {"sequence": 4, "subject": "devpocket.env.e5.created", "stored_at": "2026-11-25T03:00:00Z", "event": {}}
    return json.dumps(event).encode()
