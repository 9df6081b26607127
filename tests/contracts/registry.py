"""The recorded events in `events/`: one folder per type, one numbered file per shape, kept for ever.

`SHA256SUMS` lists every file with its digest, as `sha256sum` writes it; it only ever grows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVENTS = Path(__file__).with_name("events")
_SUMS = "SHA256SUMS"

Shape = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Fixture:
    """One recorded envelope."""

    name: str
    type: str
    envelope: dict[str, Any]


def fixtures(folder: Path = EVENTS) -> list[Fixture]:
    """All that were recorded, in order of type and number."""
    return [
        Fixture(path.relative_to(folder).as_posix(), path.parent.name, json.loads(path.read_text()))
        for path in sorted(folder.glob("*/*.json"))
    ]


def record(envelope: dict[str, Any], folder: Path = EVENTS) -> Path | None:
    """Keep an event unless its type and shape are there already; the new file."""
    shape = shape_of(envelope)
    known = [fixture for fixture in fixtures(folder) if fixture.type == envelope["type"]]
    if any(shape_of(fixture.envelope) == shape for fixture in known):
        return None
    path = folder.joinpath(envelope["type"], f"{len(known) + 1:04}.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(envelope, indent=2) + "\n")
    with (folder / _SUMS).open("a") as sums:
        sums.write(f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n")
    return path


def shape_of(envelope: dict[str, Any]) -> Shape:
    """Which fields there are, and whether each holds a text, a number, a truth value or nothing."""
    return frozenset(_leaves("", envelope))


def recorded_digests(folder: Path = EVENTS) -> dict[str, str]:
    """What `SHA256SUMS` says, by name."""
    lines = (folder / _SUMS).read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def present_digests(folder: Path = EVENTS) -> dict[str, str]:
    """What the files are, by name."""
    return {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.glob("*/*"))}


def _leaves(where: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{where}.{key}", item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(f"{where}[]", item)
    else:
        yield where, type(value).__name__


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
