"""What breaks clients is named, what does not is let through."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deploy.manifests import ROOT
from tests.unit.deploy.scripts import loaded

SCRIPT = ROOT / "deploy" / "scripts" / "contract_diff.py"
Document = dict[str, Any]


def breaks(old: Document, new: Document) -> list[str]:
    found: list[str] = loaded("contract_diff").breaks(old, new)
    return found


OPENAPI: Document = {
    "openapi": "3.1.0",
    "paths": {
        "/things": {
            "post": {
                "parameters": [{"in": "query", "name": "limit", "schema": {"type": "integer", "maximum": 100}}],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ThingIn"}}},
                },
                "responses": {
                    "201": {
                        "headers": {"Link": {}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                    },
                    "422": {"content": {"application/problem+json": {"schema": {}}}},
                },
            }
        }
    },
    "components": {
        "schemas": {
            "ThingIn": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 50},
                    "kind": {"enum": ["a", "b"], "type": "string"},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
            },
            "Thing": {
                "type": "object",
                "required": ["id", "parts"],
                "properties": {
                    "id": {"type": "string"},
                    "status": {"enum": ["on", "off"], "type": "string"},
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}},
                    "labels": {"type": "object", "additionalProperties": {"type": "integer"}},
                },
            },
        }
    },
}


def schemas(document: Document) -> Document:
    found: Document = document["components"]["schemas"]
    return found


def operation(document: Document) -> Document:
    found: Document = document["paths"]["/things"]["post"]
    return found


def pop(where: Callable[[Document], Document], name: str) -> Callable[[Document], object]:
    return lambda document: where(document).pop(name)


def put(where: Callable[[Document], Document], **values: Any) -> Callable[[Document], object]:
    return lambda document: where(document).update(values)


def taken(name: str) -> Callable[[Document], Document]:
    return lambda document: schemas(document)["ThingIn"]["properties"].setdefault(name, {})


def sent(name: str) -> Callable[[Document], Document]:
    return lambda document: schemas(document)["Thing"]["properties"].setdefault(name, {})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (pop(lambda it: it["paths"], "/things"), "POST /things is gone"),
        (pop(lambda it: operation(it)["responses"], "201"), "the answer 201 is gone"),
        (pop(lambda it: operation(it)["responses"]["201"]["headers"], "Link"), "201: the header Link is gone"),
        (pop(lambda it: schemas(it)["Thing"]["properties"], "status"), "201: status is gone"),
        (put(lambda it: schemas(it)["Thing"], required=["parts"]), "201: id may be missing"),
        (put(sent("id"), type="integer"), "201: id may be integer, was string"),
        (put(sent("id"), type=["string", "null"]), "201: id may be null, was string"),
        (put(sent("labels"), additionalProperties={"type": "string"}), "201: labels.* may be string, was integer"),
        (pop(operation, "parameters"), "query limit is gone"),
        (put(lambda it: operation(it)["parameters"][0], required=True), "query limit has become required"),
        (
            put(lambda it: operation(it)["parameters"][0], schema={"type": "integer", "maximum": 50}),
            "query limit has a narrower maximum: 50, was 100",
        ),
        (pop(lambda it: schemas(it)["ThingIn"]["properties"], "kind"), "body: kind is gone"),
        (put(taken("kind"), enum=["a"]), 'body: kind does not take "b" any more'),
        (put(taken("note"), anyOf=[{"type": "string"}]), "body: note must not be null any more"),
        (put(taken("name"), pattern="^x"), "body: name has a narrower pattern: ^x, was None"),
        (put(lambda it: schemas(it)["ThingIn"], required=["name", "kind"]), "body: kind has become required"),
    ],
)
def test_a_break_is_named(change: Callable[[Document], object], named: str) -> None:
    new = copy.deepcopy(OPENAPI)
    change(new)
    found = breaks(OPENAPI, new)
    assert found
    assert all(line.startswith("POST /things") for line in found)
    assert any(line.endswith(named) for line in found), found


def test_a_new_required_field_is_named() -> None:
    new = copy.deepcopy(OPENAPI)
    schemas(new)["ThingIn"]["properties"]["size"] = {"type": "integer"}
    schemas(new)["ThingIn"]["required"].append("size")
    assert breaks(OPENAPI, new) == ["POST /things: body: size is new and required"]


@pytest.mark.parametrize(
    "change",
    [
        put(lambda it: it["paths"], **{"/more": {"get": {"responses": {"200": {}}}}}),
        put(sent("more"), type="string"),
        put(sent("status"), enum=["on", "off", "broken"]),
        put(taken("more"), type="string"),
        put(taken("kind"), enum=["a", "b", "c"]),
        put(taken("name"), maxLength=60),
        put(lambda it: schemas(it)["ThingIn"], required=[]),
        put(lambda it: operation(it)["responses"], **{"409": {}}),
        pop(lambda it: operation(it)["responses"], "422"),
        put(operation, summary="Other words"),
    ],
)
def test_what_breaks_nobody_passes(change: Callable[[Document], object]) -> None:
    new = copy.deepcopy(OPENAPI)
    change(new)
    assert new != OPENAPI
    assert breaks(OPENAPI, new) == []


def test_the_bus_is_compared_too() -> None:
    payload = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
    old: Document = {"asyncapi": "3.0.0", "channels": {"env": {}, "user": {}}}
    old["components"] = {"messages": {"made": {"payload": payload}, "gone": {}}}
    new = copy.deepcopy(old)
    del new["channels"]["user"], new["components"]["messages"]["gone"]
    new["components"]["messages"]["made"]["payload"]["properties"] = {}
    assert breaks(old, new) == ["message made: id is gone", "the channel user is gone", "the message gone is gone"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_as_a_program(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(OPENAPI))
    new.write_text(json.dumps({**OPENAPI, "paths": {}}))
    same, gone = run("--files", str(old), str(old)), run("--files", str(old), str(new))
    assert (same.returncode, same.stdout) == (0, "nothing that clients rely on is gone\n")
    assert (gone.returncode, gone.stdout) == (1, f"{new}: POST /things is gone\n")


def test_our_own_contracts_can_be_compared(tmp_path: Path) -> None:
    for name, first in (("openapi", "paths"), ("asyncapi", "channels")):
        file = ROOT / "docs" / f"{name}.json"
        emptied = tmp_path / file.name
        emptied.write_text(json.dumps({**json.loads(file.read_text()), first: {}}))
        assert run("--files", str(file), str(file)).returncode == 0
        assert run("--files", str(file), str(emptied)).returncode == 1


def test_a_commit_that_is_not_there_is_said() -> None:
    done = run("0" * 40)
    assert done.returncode == 1
    assert "there is no commit" in done.stderr
