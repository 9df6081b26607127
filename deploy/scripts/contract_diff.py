"""Names what a change of docs/openapi.json and docs/asyncapi.json would break for those who rely on them.

    contract_diff.py [BASE]              the working tree against a commit (default: origin/main)
    contract_diff.py --files OLD NEW     two documents

Exit code 1 when something breaks. What we send may gain fields and lose none; what we take may gain optional fields and
must not become narrower. Only the standard library, so that it runs before anything is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("docs/openapi.json", "docs/asyncapi.json")

_METHODS = frozenset({"get", "put", "post", "delete", "patch", "head", "options"})
_AT_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_AT_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems")

Json = Mapping[str, Any]


@dataclass
class Field:
    """What a document says of one place in a message. No `types`: anything."""

    types: set[str] = field(default_factory=set)
    required: bool = True
    values: set[str] = field(default_factory=set)
    limits: dict[str, Any] = field(default_factory=dict)


def fields_of(schema: Json, document: Json, *, where: str = "") -> dict[str, Field]:
    """Every place of a schema, by its path: `user.name`, `items[].id`, `labels.*`."""
    found: dict[str, Field] = {}
    _collect(schema, document, where, found, required=True, seen=())
    return found


def _collect(  # one level of a schema
    schema: Json, document: Json, where: str, found: dict[str, Field], *, required: bool, seen: tuple[str, ...]
) -> None:
    if "$ref" in schema:
        reference = schema["$ref"]
        if reference not in seen:
            _collect(_resolve(reference, document), document, where, found, required=required, seen=(*seen, reference))
        return
    alternatives = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    for alternative in alternatives or ():
        _collect(alternative, document, where, found, required=required, seen=seen)
    if alternatives is None:
        _note(schema, found.setdefault(where, Field(required=required)))
    for name, inner in schema.get("properties", {}).items():
        is_needed = name in schema.get("required", ())
        _collect(inner, document, f"{where}.{name}" if where else name, found, required=is_needed, seen=seen)
    if isinstance(schema.get("items"), Mapping):
        _collect(schema["items"], document, f"{where}[]", found, required=True, seen=seen)
    if isinstance(schema.get("additionalProperties"), Mapping):
        _collect(schema["additionalProperties"], document, f"{where}.*", found, required=False, seen=seen)


def _note(schema: Json, into: Field) -> None:
    kinds = schema.get("type", [])
    into.types |= {kinds} if isinstance(kinds, str) else set(kinds)
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    into.values |= {json.dumps(value) for value in values}
    into.limits |= {name: schema[name] for name in (*_AT_MOST, *_AT_LEAST, "pattern") if name in schema}


def _resolve(reference: str, document: Json) -> Json:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    resolved: Json = found
    return resolved


def breaks_in_what_we_send(old: Mapping[str, Field], new: Mapping[str, Field]) -> Iterator[str]:
    """A reader of `old` meets `new`."""
    for path, before in old.items():
        name = path or "the message"
        now = new.get(path)
        if now is None:
            yield f"{name} is gone"
            continue
        if before.required and not now.required:
            yield f"{name} may be missing"
        if before.types and (strange := (now.types or {"anything"}) - before.types):
            yield f"{name} may be {_words(strange)}, was {_words(before.types)}"


def breaks_in_what_we_take(old: Mapping[str, Field], new: Mapping[str, Field]) -> Iterator[str]:
    """A writer of `old` sends it to `new`."""
    for path, now in new.items():
        before = old.get(path)
        parent_is_new = path.rpartition(".")[0] not in old
        if before is None:
            if now.required and not parent_is_new:
                yield f"{path} is new and required"
            continue
        yield from (f"{path or 'the body'} {what}" for what in _narrower(before, now))
    yield from (f"{path} is gone" for path in old if path not in new)


def _narrower(before: Field, now: Field) -> Iterator[str]:
    if now.required and not before.required:
        yield "has become required"
    if now.types and (
        refused := (before.types or {"anything"}) - now.types - ({"integer"} if "number" in now.types else set())
    ):
        yield f"must not be {_words(refused)} any more"
    if now.values and (refused := (before.values or {"anything else"}) - now.values):
        yield f"does not take {_words(refused)} any more"
    for limit, value in now.limits.items():
        was = before.limits.get(limit)
        if was == value:
            continue
        if limit == "pattern" or was is None or (value < was if limit in _AT_MOST else value > was):
            yield f"has a narrower {limit}: {value}, was {was}"


def _words(items: set[str]) -> str:
    return " or ".join(sorted(items))


def openapi_breaks(old: Json, new: Json) -> Iterator[str]:
    """What a client of the HTTP API that was written for `old` would stumble over."""
    for path, operations in old["paths"].items():
        for method in operations.keys() & _METHODS:
            name = f"{method.upper()} {path}"
            now = new["paths"].get(path, {}).get(method)
            if now is None:
                yield f"{name} is gone"
            else:
                yield from (f"{name}: {what}" for what in _operation_breaks(operations[method], now, old, new))


def _operation_breaks(before: Json, now: Json, old: Json, new: Json) -> Iterator[str]:
    yield from breaks_in_what_we_take(_parameters(before, old), _parameters(now, new))
    for kind, content in before.get("requestBody", {}).get("content", {}).items():
        taken = now.get("requestBody", {}).get("content", {}).get(kind)
        if taken is None:
            yield f"does not take {kind} any more"
        else:
            fields = fields_of(content.get("schema", {}), old), fields_of(taken.get("schema", {}), new)
            yield from (f"body: {what}" for what in breaks_in_what_we_take(*fields))
    if now.get("requestBody", {}).get("required") and not before.get("requestBody", {}).get("required"):
        yield "the body has become required"
    for status, answer in before["responses"].items():
        if status.startswith("2"):
            yield from _answer_breaks(status, answer, now["responses"].get(status), old, new)


def _answer_breaks(status: str, before: Json, now: Json | None, old: Json, new: Json) -> Iterator[str]:
    if now is None:
        yield f"the answer {status} is gone"
        return
    for kind, content in before.get("content", {}).items():
        sent = now.get("content", {}).get(kind)
        if sent is None:
            yield f"{status} is not {kind} any more"
        else:
            fields = fields_of(content.get("schema", {}), old), fields_of(sent.get("schema", {}), new)
            yield from (f"{status}: {what}" for what in breaks_in_what_we_send(*fields))
    yield from (
        f"{status}: the header {name} is gone"
        for name in before.get("headers", {})
        if name not in now.get("headers", {})
    )


def _parameters(operation: Json, document: Json) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for parameter in operation.get("parameters", ()):
        where = f"{parameter['in']} {parameter['name']}"
        inner = fields_of(parameter.get("schema", {}), document, where=where)
        inner.setdefault(where, Field()).required = parameter.get("required", False)
        found |= inner
    return found


def asyncapi_breaks(old: Json, new: Json) -> Iterator[str]:
    """What a reader of the bus that was written for `old` would stumble over."""
    for channel in old["channels"].keys() - new["channels"].keys():
        yield f"the channel {channel} is gone"
    for name, message in old["components"]["messages"].items():
        now = new["components"]["messages"].get(name)
        if now is None:
            yield f"the message {name} is gone"
            continue
        fields = fields_of(message.get("payload", {}), old), fields_of(now.get("payload", {}), new)
        yield from (f"message {name}: {what}" for what in breaks_in_what_we_send(*fields))


def breaks(old: Json, new: Json) -> list[str]:
    """All of them, whichever kind of document it is."""
    find = openapi_breaks if "openapi" in old else asyncapi_breaks
    return sorted(find(old, new))


def _at(commit: str, file: str) -> Json | None:
    """The file in a commit; None when it is not there. Raises SystemExit for a commit that is not there."""
    run = ["git", "-C", str(ROOT)]
    if subprocess.run(
        [*run, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"], capture_output=True, check=False
    ).returncode:
        raise SystemExit(f"contract_diff: there is no commit {commit!r} here; fetch it first")
    done = subprocess.run([*run, "show", f"{commit}:{file}"], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def main(arguments: list[str]) -> int:
    """See the module."""
    if arguments[:1] == ["--files"]:
        old, new = (json.loads(Path(file).read_text()) for file in arguments[1:])
        pairs = [(arguments[2], old, new)]
    else:
        base = arguments[0] if arguments else "origin/main"
        pairs = [(file, _at(base, file), json.loads((ROOT / file).read_text())) for file in DOCUMENTS]
    found = [f"{file}: {what}" for file, old, new in pairs if old is not None for what in breaks(old, new)]
    print("\n".join(found) or "nothing that clients rely on is gone")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
