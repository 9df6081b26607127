"""Events and quantities: the contracts other services decode."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.context import Cause
from libs.common.contracts.events import EVENT_TYPES, Event, RuntimeRunning, UnknownEventError
from libs.common.contracts.quantities import byte_count, cpu_millis


def report() -> RuntimeRunning:
    return RuntimeRunning(environment_id="e1", user_id="u1", generation=3, runtime="local")


class TestEvent:
    def test_a_new_event_carries_cause_and_subject(self) -> None:
        event = Event.new(report(), subject="e1", source="orchestrator", cause=Cause("request-1", "event-0", "u1"))
        assert event.nats_subject == "devpocket.runtime.e1.running"
        assert (event.correlationid, event.causationid, event.actor) == ("request-1", "event-0", "u1")
        assert event.payload() == report()

    def test_an_event_that_nothing_caused_correlates_with_itself(self) -> None:
        event = Event.new(report(), subject="e1", source="orchestrator", cause=Cause())
        assert event.correlationid == event.id
        assert event.actor == "orchestrator"

    def test_the_envelope_survives_the_wire(self) -> None:
        event = Event.new(report(), subject="e1", source="orchestrator", cause=Cause("r"))
        assert Event.model_validate_json(event.model_dump_json(exclude_none=True)) == event

    def test_ids_sort_by_time(self) -> None:
        ids = [Event.new(report(), subject="e1", source="o", cause=Cause()).id for _ in range(50)]
        assert ids == sorted(ids)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"type": "devpocket.env.exploded.v1"}, "unknown event type"),
            ({"data": {"environment_id": "e1"}}, "data does not fit"),
        ],
    )
    def test_what_cannot_be_decoded_is_named(self, change: dict[str, object], words: str) -> None:
        event = Event.new(report(), subject="e1", source="o", cause=Cause()).model_copy(update=change)
        with pytest.raises(UnknownEventError, match=words):
            event.payload()

    def test_fields_of_a_later_version_are_ignored(self) -> None:
        event = Event.new(report(), subject="e1", source="o", cause=Cause())
        later = event.model_copy(update={"data": {**event.data, "colour": "blue"}})
        assert later.payload() == report()

    def test_every_type_is_registered_under_its_name(self) -> None:
        assert all(name == f"devpocket.{model.TYPE}" for name, model in EVENT_TYPES.items())
        assert len(EVENT_TYPES) >= 20


class TestQuantities:
    @pytest.mark.parametrize(("text", "millis"), [("500m", 500), ("1", 1000), ("0.5", 500), ("1.25", 1250)])
    def test_cpu(self, text: str, millis: int) -> None:
        assert cpu_millis(text) == millis

    @pytest.mark.parametrize(
        ("text", "count"), [("1Ki", 1024), ("512Mi", 512 << 20), ("5Gi", 5 << 30), ("1.5Gi", 3 << 29)]
    )
    def test_bytes(self, text: str, count: int) -> None:
        assert byte_count(text) == count

    @given(text=st.text(max_size=12))
    def test_anything_else_is_a_value_error(self, text: str) -> None:
        for parse in (cpu_millis, byte_count):
            with contextlib.suppress(ValueError):
                assert parse(text) > 0

    @pytest.mark.parametrize("text", ["500m\n", "", "0", "0m", "-1", "1 ", "1k", "m", "1e3", "٣"])
    def test_bad_cpu(self, text: str) -> None:
        with pytest.raises(ValueError, match="CPU must be"):
            cpu_millis(text)
