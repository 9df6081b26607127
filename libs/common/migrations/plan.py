"""What a migration is: data, so that its checksum says all about it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# A roll-out takes minutes; replicas of the version before write as they always did until it is over.
_ROLL_OUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Backfill:
    """Makes documents that match `old` match it no more, by `change`, in batches; safe to begin again at any point.

    `blocking`: the service does its work only when it is done. Only for what replicas of the version before, which are
    still up, do not write any more. One that is not blocking goes on beside the service, whose code must read both
    shapes, and is done when it has found nothing for `settle_s` seconds.
    `needs`: a service may work on the database, from the beginning of this migration on, only if it knows the migration
    with this number. 0 for one that adds; the number of an earlier one for one that takes away what older code reads.
    `pause_s`: between batches, so that others get their turn.
    """

    number: int
    name: str
    collection: str
    old: dict[str, Any]
    change: dict[str, Any]
    blocking: bool = False
    needs: int = 0
    batch: int = 500
    pause_s: float = 0.05
    settle_s: float = _ROLL_OUT_S

    @property
    def id(self) -> str:
        """Its name in the database, and its place among the others."""
        return f"{self.number:04}-{self.name}"

    @property
    def checksum(self) -> str:
        """Of what it does."""
        content = json.dumps([self.collection, self.old, self.change, self.needs], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def level(migrations: Sequence[Backfill]) -> int:
    """What code with these migrations knows."""
    return max((item.number for item in migrations), default=0)


def ordered(migrations: Sequence[Backfill]) -> list[Backfill]:
    """By number. Raises ValueError when two share one, or one needs what comes after it."""
    found = sorted(migrations, key=lambda item: item.number)
    if len({item.number for item in found}) < len(found):
        raise ValueError("two migrations have the same number")
    for item in found:
        if item.needs > item.number:
            raise ValueError(f"{item.id} needs a migration that comes after it")
    return found
