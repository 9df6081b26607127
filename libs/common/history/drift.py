"""Compares a service's live read models with replayed ones, field by field, with flat memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from libs.common.history.redaction import HIDDEN
from libs.common.history.replay import ReadModel
from libs.common.ids import time_of
from libs.common.mongo import Database, Document

_BATCH = 500
MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class Drift:
    """One field that differs; `field` is `*` when the whole document is on one side only."""

    collection: str
    id: str
    field: str
    live: Any
    replayed: Any

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "collection": self.collection,
            "id": self.id,
            "field": self.field,
            "live": _plain(self.live),
            "replayed": _plain(self.replayed),
        }


async def drifts(
    live: Database,
    replayed: Database,
    model: ReadModel,
    *,
    since: datetime | None,
    only: Collection[str] | None = None,
    about: Mapping[str, str] | None = None,
) -> AsyncIterator[Drift]:
    """Every difference in the fields of the model.

    What was made before `since`, the beginning of the stream, is not expected in the replay. `only`: just these ids.
    `about`: just documents with these values.
    """
    query: Document = {**(about or {}), **({} if only is None else {"_id": {"$in": list(only)}})}
    projection = dict.fromkeys(model.fields, 1)
    left = live[model.collection].find(query, projection, batch_size=_BATCH).sort("_id", 1)
    right = replayed[model.collection].find(query, projection, batch_size=_BATCH).sort("_id", 1)
    async for key, one, other in _side_by_side(left, right):
        if other is None and since is not None and _is_older(key, since):
            continue
        for drift in compare(model, key, one, other):
            yield drift


def compare(
    model: ReadModel, key: str, live: Mapping[str, Any] | None, replayed: Mapping[str, Any] | None
) -> Sequence[Drift]:
    """The differences of one document; None where there is none."""
    if live is None or replayed is None:
        sides = [MISSING if side is None else "(there)" for side in (live, replayed)]
        return [Drift(model.collection, key, "*", *sides)] if live is not replayed else []
    return [
        Drift(model.collection, key, path, _shown(path, ours), _shown(path, theirs))
        for path in model.fields
        if (ours := _at(live, path)) != (theirs := _at(replayed, path))
    ]


async def _side_by_side(
    left: AsyncIterator[Document], right: AsyncIterator[Document]
) -> AsyncIterator[tuple[str, Document | None, Document | None]]:
    """Pairs of two sequences in the order of `_id`."""
    one, other = await anext(left, None), await anext(right, None)
    while one is not None or other is not None:
        key: str = min(document["_id"] for document in (one, other) if document is not None)
        ours = one if one is not None and one["_id"] == key else None
        theirs = other if other is not None and other["_id"] == key else None
        yield key, ours, theirs
        one = one if ours is None else await anext(left, None)
        other = other if theirs is None else await anext(right, None)


def _is_older(key: str, since: datetime) -> bool:
    made_at = time_of(key)
    return made_at is not None and made_at < since


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _shown(path: str, value: Any) -> Any:
    """Sealed or not, variables are nobody's business who looks for a difference: a digest tells one from another."""
    if isinstance(value, Mapping):
        return {key: _shown(key, item) for key, item in value.items()}
    if path.rpartition(".")[2] in HIDDEN and value is not None:
        return f"(hidden {hashlib.sha256(str(value).encode()).hexdigest()[:8]})"
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
