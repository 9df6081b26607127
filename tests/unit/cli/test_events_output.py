"""What people see of events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from libs.cli.events.output import Column, Row, clean, duration, print_table
from libs.cli.main import app
from libs.common.history.ndjson import to_line
from tests.unit.history.makers import bad_night, raw


@pytest.fixture
def slice_file(tmp_path: Path) -> str:
    file = tmp_path / "slice.ndjson"
    file.write_text("".join(to_line(item) + "\n" for item in [*bad_night(), raw(b"\xff", 7)]))
    return str(file)


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["events", *arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 µs"),
        (0.000_84, "840 µs"),
        (0.012, "12 ms"),
        (-0.01, "-10 ms"),
        (3.42, "3.4 s"),
        (65, "1 min 05 s"),
        (7_500, "2 h 05 min"),
        (400_000, "4 d 15 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_what_strangers_wrote_moves_no_cursor() -> None:
    assert clean("\x1b[2Jwipe\r\nnext\u202e") == "\ufffd[2Jwipe\ufffd\ufffdnext\ufffd"


def test_a_table_in_a_pipe_is_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        [Column("N", right=True), Column("TEXT"), Column("LAST")], [Row(["1", "a" * 200, "x"]), Row(["12", "b", ""])]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f" N  TEXT{' ' * 196}  LAST", f" 1  {'a' * 200}  x", "12  b"]


class TestFromAFile:
    def test_a_timeline_reads_like_a_story(self, slice_file: str) -> None:
        lines = run("timeline", "--env", "e1", "--file", slice_file).splitlines()
        assert lines[0] == "environment e1 · 7 events in 6.0 s · 3 of them bad news · times are UTC"
        assert lines[1].split() == ["SEQ", "TIME", "STEP", "SERVICE", "WHAT", "BECAUSE", "OF", "DETAIL"]
        assert "└ runtime.running" in lines[3]
        assert "← 1" in lines[3]
        assert "creating → running" in lines[4]
        assert lines[7].endswith("running → error, generation 1, It keeps ending.")
        assert "not UTF-8" in lines[8]
        assert "\x1b" not in "".join(lines)

    def test_state_says_what_changed(self, slice_file: str) -> None:
        text = run("state", "--env", "e1", "--seq", "6", "--file", slice_file)
        assert "environment e1 after 6 events" in text
        assert "status           running → error" in text
        assert "SEALED" not in text

    @pytest.mark.parametrize("arguments", [["ls"], ["ls", "--env", "e1", "--limit", "3"], ["ls", "--type", "nothing"]])
    def test_json_is_json(self, slice_file: str, arguments: list[str]) -> None:
        assert isinstance(json.loads(run(*arguments, "--json", "--file", slice_file)), list)

    def test_the_newest_of_a_file(self, slice_file: str) -> None:
        events = json.loads(run("ls", "--limit", "2", "--json", "--file", slice_file))
        assert [event["sequence"] for event in events] == [6, 7]

    @pytest.mark.parametrize(
        ("arguments", "code", "complaint"),
        [
            (["timeline", "--env", "e9"], 1, "no event is about environment e9"),
            (["state", "--env", "e9"], 1, "no event is about environment e9"),
            (["state", "--env", "e1", "--at", "2020-01-01"], 1, "had no event by then; its first is 1"),
            (["state", "--env", "e1", "--at", "noon"], 2, "--at noon: write 30s"),
            (["timeline", "--env", "e1.>"], 2, "no environment id"),
            (["timeline", "--correlation", "none"], 1, "no event belongs to the request none"),
        ],
    )
    def test_errors_are_sentences(self, slice_file: str, arguments: list[str], code: int, complaint: str) -> None:
        output = run(*arguments, "--file", slice_file, code=code)
        assert complaint in output
        assert "Traceback" not in output

    def test_a_timeline_of_nothing_is_refused(self) -> None:
        assert "--correlation" in run("timeline", code=2)

    def test_a_bad_file_names_the_line(self, tmp_path: Path) -> None:
        file = tmp_path / "bad"
        file.write_text("{}\n")
        assert "line 1" in run("ls", "--file", str(file), code=1)
        assert "No such file" in run("ls", "--file", str(tmp_path / "none"), code=1)
