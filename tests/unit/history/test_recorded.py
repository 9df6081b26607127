"""What the stream holds, garbage included."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.history.ndjson import from_line, to_line
from libs.common.history.recorded import IMPORTED_STORED_AT, UNREADABLE, in_order, iso
from libs.common.history.state import fold
from libs.common.history.timeline import timeline
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE
from tests.unit.history.makers import NOW, bad_night, raw, report, stored, wish


class TestSound:
    def test_it_knows_who_when_and_where(self) -> None:
        item = stored(wish(), 7)
        assert (item.sequence, item.stored_sequence, item.id, item.about) == (7, 7, "event-7", "e1")
        assert item.time == NOW + timedelta(seconds=7)
        assert item.problem is None

    def test_as_json_is_the_envelope_without_secrets_and_its_place(self) -> None:
        shown = stored(wish(), 7).as_json()
        assert shown["sequence"] == 7
        assert shown["type"] == "devpocket.env.created.v1"
        assert shown["data"]["spec"]["image"] == "devpocket/python:latest"
        assert "SEALED" not in json.dumps(shown)

    def test_an_imported_one_keeps_its_place_and_time(self) -> None:
        earlier = NOW - timedelta(days=3)
        item = raw(b"{}", 2, **{IMPORTED_SEQUENCE: "812", IMPORTED_STORED_AT: iso(earlier)})
        assert (item.sequence, item.stored_sequence, item.stored_at) == (812, 2, earlier)
        assert item.is_imported

    @pytest.mark.parametrize("sequence", ["", "-1", "many", "²"])
    def test_an_import_header_that_is_none_is_ignored(self, sequence: str) -> None:
        assert raw(b"{}", 2, **{IMPORTED_SEQUENCE: sequence}).sequence == 2


class TestGarbage:
    @pytest.mark.parametrize(
        ("payload", "problem"),
        [
            (b"\xff not json", "not UTF-8"),
            (b"{", "not JSON"),
            (b"", "not JSON"),
            (b"[1]", "JSON object"),
            (b'{"a": NaN}', "NaN"),
            (b"[" * 100_000, "nested too deeply"),
        ],
    )
    def test_what_is_no_object_shows_as_unreadable(self, payload: bytes, problem: str) -> None:
        item = raw(payload, 3)
        assert item.event is None
        assert problem in (item.problem or "")
        assert item.as_json() == {
            "type": UNREADABLE, "subject": item.subject, "error": item.problem, "sequence": 3,
        }  # fmt: skip

    def test_an_object_that_is_no_envelope_says_what_is_wrong(self) -> None:
        item = raw(b'{"id": 5, "type": 7}', 3)
        assert item.event is None
        assert "no CloudEvents envelope" in (item.problem or "")
        assert (item.id, item.type) == (None, UNREADABLE)
        assert item.as_json() == {"id": 5, "type": 7, "sequence": 3}

    def test_data_that_do_not_fit_and_foreign_subjects_are_problems(self) -> None:
        assert "does not fit" in (stored(report(), 1, data={"a": 1}).problem or "")
        assert "unknown event type" in (stored(report(), 1, type="devpocket.runtime.running.v9").problem or "")
        other = raw(stored(report(), 1).payload, 1, "devpocket.runtime.e2.running")
        assert "belongs on devpocket.runtime.e1.running" in (other.problem or "")

    @given(
        st.binary(max_size=200)
        | st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(["id", "type", "time", "data", "causationid", "status", "spec", "x"]), inner
                )
            ),
            max_leaves=10,
        ).map(lambda value: json.dumps(value).encode())
    )
    def test_nothing_breaks_a_tool(self, payload: bytes) -> None:
        item = raw(payload, 3)
        json.dumps(item.as_json())
        json.dumps([step.as_json() for step in timeline([item])])
        state = fold("e1", [item])
        assert state is not None
        json.dumps(state.as_json())
        again = from_line(to_line(item).encode())
        assert again.as_json() == item.as_json()


class TestOrder:
    def test_each_once_where_it_was_first(self) -> None:
        night = bad_night()
        again = raw(night[0].payload, 99, night[0].subject)
        assert in_order([again, *reversed(night), *night]) == night

    def test_garbage_without_a_name_is_told_apart(self) -> None:
        assert len(in_order([raw(b"x", 1), raw(b"x", 2)])) == 2
