"""docs/asyncapi.json: complete, consistent with itself, and true of every event that was ever recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.common.asyncapi.families import PUBLISHERS, Family, families
from libs.common.contracts.events import EVENT_TYPES
from libs.common.contracts.telemetry import UsageSample
from tests.contracts.registry import Fixture, fixtures
from tests.support.json_schema import complaints, resolve

_FIXTURES = fixtures()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """As it is checked in; tests/architecture checks that it is what the code says."""
    found: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "asyncapi.json").read_text())
    return found


def references(value: Any) -> Iterator[dict[str, Any]]:
    """Every object with a `$ref`."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


class TestDocument:
    def test_every_reference_leads_somewhere_and_stands_alone(self, document: dict[str, Any]) -> None:
        found = list(references(document))
        assert len(found) > 100
        for reference in found:
            assert resolve(document, reference["$ref"]) is not None
            # Older readers of JSON Schema ignore what stands beside a reference.
            assert reference.keys() == {"$ref"}

    def test_every_type_has_a_message_that_one_service_sends(self, document: dict[str, Any]) -> None:
        assert document["components"]["messages"].keys() == {*EVENT_TYPES, "usage", "sighting", "deadLetter"}
        for name, model in EVENT_TYPES.items():
            aggregate = model.TYPE.split(".")[0]
            senders = [
                key
                for key, operation in document["operations"].items()
                if operation["action"] == "send" and f"/messages/{name}" in json.dumps(operation["messages"])
            ]
            assert senders == [f"{PUBLISHERS[aggregate]}.send.{aggregate}"]

    def test_operations_name_messages_of_their_channel(self, document: dict[str, Any]) -> None:
        for operation in document["operations"].values():
            channel = operation["channel"]["$ref"]
            assert operation["messages"]
            for message in operation["messages"]:
                assert message["$ref"].startswith(f"{channel}/messages/")

    def test_addresses_and_parameters_fit(self, document: dict[str, Any]) -> None:
        for channel in document["channels"].values():
            assert set(re.findall(r"{(\w+)}", channel["address"])) == channel["parameters"].keys()

    def test_names_every_durable_consumer(self, document: dict[str, Any]) -> None:
        durables = {operation.get("x-nats-durable") for operation in document["operations"].values()} - {None}
        assert {
            "envs-runtime", "envs-users", "envs-terminal", "orchestrator-environments", "terminal-environments",
        } <= durables  # fmt: skip

    def test_plain_subscribers_are_a_queue_group_with_a_schema(self, document: dict[str, Any]) -> None:
        operation = document["operations"]["envs.receive.telemetry.usage"]
        assert operation["bindings"]["nats"]["queue"] == "envs"
        schema = document["components"]["schemas"]["UsageSample"]
        assert schema["properties"].keys() == UsageSample.model_fields.keys()

    def test_fits_the_specification(self, document: dict[str, Any]) -> None:
        """The parts of the AsyncAPI 3.0 meta-schema that a generator gets wrong most easily."""
        assert document["asyncapi"] == "3.0.0"
        assert document.keys() <= {
            "asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components",
        }  # fmt: skip
        for kind in ("messages", "schemas"):
            for name in document["components"][kind]:
                assert re.fullmatch(r"[\w.-]+", name)
        for operation in document["operations"].values():
            allowed = {"action", "title", "description", "channel", "messages", "tags", "bindings"}
            assert {key for key in operation if not key.startswith("x-")} <= allowed


@pytest.mark.parametrize("fixture", _FIXTURES, ids=lambda fixture: fixture.name)
class TestEveryRecordedEvent:
    def test_fits_its_message(self, document: dict[str, Any], fixture: Fixture) -> None:
        message = document["components"]["messages"][fixture.type]
        assert list(complaints(fixture.envelope, message["payload"], document)) == []

    def test_without_a_required_field_it_does_not(self, document: dict[str, Any], fixture: Fixture) -> None:
        payload = document["components"]["messages"][fixture.type]["payload"]
        data = {key: value for key, value in fixture.envelope["data"].items() if key not in {"user_id", "cluster_id"}}
        assert list(complaints({**fixture.envelope, "data": data}, payload, document))
        assert list(complaints({**fixture.envelope, "type": "devpocket.env.other.v1"}, payload, document))

    def test_came_from_the_service_that_the_document_names(self, document: dict[str, Any], fixture: Fixture) -> None:
        operation = f"{fixture.envelope['source']}.send.{fixture.type.split('.')[1]}"
        assert f"/messages/{fixture.type}" in json.dumps(document["operations"][operation])


class TestFamilies:
    @pytest.mark.parametrize(
        ("subject_filter", "heard"),
        [
            ("devpocket.env.*.*", ["created", "updated"]),
            ("devpocket.env.*.created", ["created"]),
            ("devpocket.>", ["created", "updated"]),
            ("devpocket.env.*", []),
            ("devpocket.env.*.*.>", []),
            ("devpocket.runtime.*.*", []),
        ],
    )
    def test_a_filter_means_what_it_means_to_the_server(self, subject_filter: str, heard: list[str]) -> None:
        messages = {name: f"devpocket.env.id.{name}" for name in ("created", "updated")}
        assert Family("env", "", ("envs",), messages).heard_by(subject_filter) == heard

    def test_each_type_is_in_one(self) -> None:
        names = [name for family in families() for name in family.messages]
        assert sorted(names) == sorted([*EVENT_TYPES, "usage", "sighting"])
