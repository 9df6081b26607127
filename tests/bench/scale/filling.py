"""Environments put straight into the databases, as copies of one that was created: to see what size alone does."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from libs.common.ids import new_id
from tests.bench.scale.gauges import Gauges
from tests.bench.scale.ground import Ground
from tests.bench.scale.run import say

_BATCH = 1_000
_EACH = 10
_SPREAD = {"next_reconcile_at", "sampled_at"}
_PLACES = (("envs", "environments"), ("orchestrator", "workspaces"), ("terminal", "environments"))


async def fill(count: int, model: str, gauges: Gauges, ground: Ground) -> None:
    """`count` copies of the environment `model`, of users that nobody is; their workspaces run.

    They want their looks and samples spread over the interval, as if they had come one after the other.
    """
    spread_s = float(ground.settings["RESYNC_INTERVAL_SECONDS"])
    documents = {}
    for service, name in _PLACES:
        found = await gauges.collection(service, name).find_one({"_id": model})
        assert found is not None
        documents[service, name] = found
    for start in range(0, count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        ids = {number: new_id() for number in numbers}
        for (service, name), found in documents.items():
            copies = [_copy(found, number, ids[number], number / count * spread_s) for number in numbers]
            await gauges.collection(service, name).insert_many(copies)
        lines = [f"{ids[number]} {_owner(number)} default 1\n" for number in numbers]
        with (ground.folder / "workspaces").open("ab") as journal:
            journal.write("".join(lines).encode())
        if not (start + _BATCH) % (10 * _BATCH):
            say(f"{start + _BATCH:,} of {count:,} put into the databases")


def _owner(number: int) -> str:
    return f"nobody{number // _EACH:06}"


def _copy(found: dict[str, Any], number: int, new: str, later_s: float) -> dict[str, Any]:
    made = copy.deepcopy(found)
    for name in _SPREAD & made.keys():
        made[name] += timedelta(seconds=later_s)
    made.update({"_id": new, "user_id": _owner(number)})
    if "name" in made:
        made["name"] = f"filled{number % _EACH}"
    if "slot" in made:
        made["slot"] = number % _EACH
    return made
