"""A slice of the stream as text."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from libs.common.history.errors import BadSliceError
from libs.common.history.ndjson import from_line, from_lines, to_line
from libs.common.history.redaction import readable_text
from libs.common.history.transfer import import_headers
from tests.unit.history.makers import raw, stored, wish

GOOD: dict[str, Any] = {
    "sequence": 3,
    "subject": "devpocket.env.e1.created",
    "stored_at": "2026-11-25T03:00:00Z",
    "headers": {"traceparent": "00-1"},
    "event": {"id": "x"},
}


def test_a_line_says_everything() -> None:
    item = stored(wish(), 3)
    line = json.loads(to_line(item))
    assert list(line) == ["sequence", "subject", "stored_at", "headers", "event"]
    assert line["event"] == json.loads(item.payload)
    assert from_line(to_line(item).encode()).as_json() == item.as_json()


@pytest.mark.parametrize("payload", [b"\xff\x00", b"[1]", b'{"raw": "eA=="}', b'{"a": NaN}', b""])
def test_what_is_no_object_travels_as_bytes(payload: bytes) -> None:
    line = to_line(raw(payload, 3))
    assert json.loads(line)["event"] == {"raw": base64.b64encode(payload).decode()}
    assert from_line(line.encode()).payload == payload


def test_the_export_of_an_import_is_the_same_line() -> None:
    for item in (stored(wish(), 812), raw(b"garbage", 813), raw(b"named", 814, **{"Nats-Msg-Id": "name", "X": "y"})):
        there = raw(item.payload, 2, item.subject, **import_headers(item))
        assert to_line(there) == to_line(item)
        assert there.identity == item.identity


def test_headers_that_instruct_the_server_are_not_followed() -> None:
    hostile = raw(b"{}", 1, **{"Nats-Rollup": "all", "Nats-Expected-Last-Sequence": "1", "traceparent": "t"})
    assert import_headers(hostile).keys() == {
        "traceparent", "Nats-Msg-Id", "Devpocket-Imported-Sequence", "Devpocket-Imported-Stored-At",
    }  # fmt: skip


def test_an_id_that_fits_into_no_header_gets_one_that_does() -> None:
    for name in ("two\r\nlines", "x" * 500, "späterer", "\ud800"):
        header = import_headers(raw(json.dumps({"id": name}).encode(), 1))["Nats-Msg-Id"]
        assert header.startswith("sha256-")


def test_secrets_stay_on_request() -> None:
    items = [stored(wish(), 1), raw(b'{"variables_sealed": "SEALED-SECRET', 2)]
    for item in items:
        assert b"SEALED" in from_line(to_line(item).encode()).payload
        assert b"SEALED" not in from_line(to_line(item, hide_secrets=True).encode()).payload
    assert "SEALED" not in readable_text(items[1].payload)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sequence": 0}, "sequence"),
        ({"sequence": "3"}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"sequence": 10**30}, "sequence"),
        ({"subject": "other.subject"}, "subject"),
        ({"subject": "devpocket.env.>"}, "subject"),
        ({"subject": "devpocket.env.a b"}, "subject"),
        ({"subject": "devpocket.env..x"}, "subject"),
        ({"subject": None}, "subject"),
        ({"stored_at": "then"}, "stored_at"),
        ({"stored_at": "2026-11-25T03:00:00"}, "time zone"),
        ({"headers": []}, "headers"),
        ({"headers": {"a": "x\r\nNats-Rollup: all"}}, "one line"),
        ({"headers": {"a b": "x"}}, "headers"),
        ({"headers": {"a": 1}}, "one line"),
        ({"event": "text"}, "event"),
        ({"event": {"raw": "no base64!"}}, "raw"),
        ({"event": {"raw": 5}}, "raw"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(change: dict[str, Any], complaint: str) -> None:
    lines = [json.dumps(GOOD).encode(), b"\n", json.dumps({**GOOD, **change}).encode()]
    with pytest.raises(BadSliceError, match=f"line 3: .*{complaint}"):
        list(from_lines(lines))


@pytest.mark.parametrize("line", [b"{", b"\xff", b"null", b"[" * 50_000])
def test_what_is_no_json_object_is_refused(line: bytes) -> None:
    with pytest.raises(BadSliceError, match="line 1: not"):
        list(from_lines([line]))
