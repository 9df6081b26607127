"""Whatever was ever published stays readable: streams keep events for weeks, exports for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libs.common.contracts.events import EVENT_TYPES, Event, UnknownEventError
from tests.contracts.record import envelopes
from tests.contracts.registry import Fixture, fixtures, present_digests, record, recorded_digests

_FIXTURES = fixtures()
_RECORD = "devpocket events ls --json | .venv/bin/python -m tests.contracts.record"


@pytest.mark.parametrize("fixture", _FIXTURES, ids=lambda fixture: fixture.name)
class TestEveryRecordedEvent:
    def test_still_decodes_with_all_its_values(self, fixture: Fixture) -> None:
        event = Event.model_validate(fixture.envelope)
        try:
            data = event.payload()
        except UnknownEventError as error:
            pytest.fail(
                f"{error}. {fixture.name} was published once and lies in streams and exports: keep the type in "
                "EVENT_TYPES and its fields readable. A new meaning is a new version; see docs/adr/0006."
            )
        kept = {**event.model_dump(mode="json"), "data": data.model_dump(mode="json")}
        lost = differences(fixture.envelope, kept)
        assert not lost, f"{fixture.name} has values that its model no longer keeps: {lost}; see docs/adr/0006"

    def test_fields_of_a_later_release_are_ignored_at_every_level(self, fixture: Fixture) -> None:
        later = Event.model_validate(with_unknown_fields(fixture.envelope))
        assert later.payload() == Event.model_validate(fixture.envelope).payload()

    def test_lies_where_its_type_says_and_is_about_its_subject(self, fixture: Fixture) -> None:
        event = Event.model_validate(fixture.envelope)
        assert event.type == fixture.type
        assert event.payload().aggregate_id == event.subject


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_every_type_has_a_recorded_event(name: str) -> None:
    recorded = {fixture.type for fixture in _FIXTURES}
    assert name in recorded, f"no {name} is recorded: publish one on a running stack, then {_RECORD}"


def test_recorded_events_are_never_edited_or_removed() -> None:
    recorded, present = recorded_digests(), present_digests()
    changed = {name for name, digest in recorded.items() if present.get(name) != digest}
    assert not changed, (
        f"{sorted(changed)} differ from what was recorded. They say what older releases have published: restore "
        f"them, and add a new fixture instead: {_RECORD}"
    )
    assert not present.keys() - recorded.keys(), f"these are not in SHA256SUMS; record them: {_RECORD}"


class TestRecording:
    def test_keeps_one_of_each_shape_and_touches_none(self, tmp_path: Path) -> None:
        first = {"type": "devpocket.a.b.v1", "data": {"reason": None}}
        assert record(first, tmp_path) == tmp_path / "devpocket.a.b.v1" / "0001.json"
        before = present_digests(tmp_path)
        assert record({**first, "time": "now"}, tmp_path) == tmp_path / "devpocket.a.b.v1" / "0002.json"
        assert record({"type": "devpocket.a.b.v1", "data": {"reason": None}}, tmp_path) is None
        assert record({**first, "data": {"reason": "x"}}, tmp_path) == tmp_path / "devpocket.a.b.v1" / "0003.json"
        assert before.items() <= present_digests(tmp_path).items()
        assert recorded_digests(tmp_path) == present_digests(tmp_path)

    @pytest.mark.parametrize("text", ['[{"id": "1", "sequence": 7}, {"id": "2"}]', '{"id": "1"}\n{"id": "2"}\n'])
    def test_reads_what_the_tools_print(self, text: str) -> None:
        assert envelopes(text) == [{"id": "1"}, {"id": "2"}]


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ({"a": 1, "b": {"c": None}}, {"a": 1, "b": {"c": None, "new": 2}, "d": 3}, []),
        ({"a": 1}, {"a": "1"}, [".a"]),
        ({"a": True}, {"a": 1}, [".a"]),
        ({"b": {"c": 1}}, {"b": {}}, [".b.c"]),
        ({"l": [1, 2]}, {"l": [1]}, [".l"]),
        ({"l": [{"x": 1}]}, {"l": [{"x": 2}]}, [".l[0].x"]),
    ],
)
def test_differences_names_what_is_lost(before: Any, after: Any, lost: list[str]) -> None:
    assert differences(before, after) == lost


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Which values of `before` are not in `after`; what is new there does not count."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            path
            for key, value in before.items()
            for path in (differences(value, after[key], f"{where}.{key}") if key in after else [f"{where}.{key}"])
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [path for i, (old, new) in pairs for path in differences(old, new, f"{where}[{i}]")]
    return [] if type(before) is type(after) and before == after else [where]


def with_unknown_fields(value: Any) -> Any:
    """As a later release might publish it: every object has one more field."""
    if isinstance(value, dict):
        return {**{key: with_unknown_fields(item) for key, item in value.items()}, "of_a_later_release": {"x": 1}}
    return [with_unknown_fields(item) for item in value] if isinstance(value, list) else value
