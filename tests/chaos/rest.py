"""Wait until a stack has come to rest: nothing is on its way any more, in any outbox, queue or state in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from services.envs.domain import CREATING, RESTARTING, STARTING, STOPPING, TERMINATING
from tests.chaos.evidence import Evidence, gather
from tests.chaos.ground import Ground

# A delivery that was lost comes again after 30 s, one that failed after at most 60 s, and either may happen twice.
REST_WITHIN_S = 240.0
_LOOK_EVERY_S = 1.0
_TRANSITIONAL = {status.value for status in (CREATING, STARTING, STOPPING, RESTARTING, TERMINATING)}
_ANSWERS = {"running": ("running", "failed"), "stopped": ("stopped", "failed"), "deleted": ("deleted",)}


def unrest(evidence: Evidence) -> list[str]:
    """What still moves, one phrase each; empty when nothing does."""
    found = [
        f"{consumer.name}: {consumer.waiting} to deliver, {consumer.unanswered} unacknowledged"
        for consumer in evidence.consumers
        if consumer.waiting or consumer.unanswered
    ]
    for service, collections in evidence.databases.items():
        for name, documents in collections.items():
            full = [document["_id"] for document in documents if document.get("pending_events")]
            if full:
                found.append(f"{service}.{name}: events of {len(full)} documents not published, e.g. {full[0]}")
    environments = evidence.documents("envs", "environments").values()
    moving = [environment["_id"] for environment in environments if environment["status"] in _TRANSITIONAL]
    if moving:
        found.append(f"{len(moving)} environments between two states, e.g. {moving[0]}")
    found += [f"{key} {what}" for key, what in _unfinished_work(evidence)]
    found += [f"{thing.kind} {thing.name} is on its way out" for thing in evidence.things if thing.ending]
    sessions = evidence.documents("terminal", "sessions").values()
    if any(session["state"] == "open" for session in sessions):
        found.append("terminal sessions are open")
    return found


def _unfinished_work(evidence: Evidence) -> list[tuple[str, str]]:
    found = []
    for workspace in evidence.documents("orchestrator", "workspaces").values():
        observed = workspace["observed"]
        if observed["generation"] != workspace["generation"] or observed["said"] not in _ANSWERS[workspace["desired"]]:
            found.append((workspace["_id"], f"is wanted {workspace['desired']} but {observed['said']}"))
        elif workspace["desired"] == "deleted" and workspace["next_reconcile_at"] is not None:
            # A deletion is looked at once more.
            found.append((workspace["_id"], "waits for its last look"))
    return found


async def until_rest(
    settings: Mapping[str, str], ground: Ground, not_running: Callable[[], list[str]], tell: Callable[[str], None]
) -> list[str]:
    """Until nothing moves; what still does when the time is over. `tell` hears of what is waited for."""
    deadline = time.monotonic() + REST_WITHIN_S
    said = ""
    while True:
        moving = [f"{name} is not up" for name in not_running()]
        try:
            moving = moving or unrest(await gather(settings, ground, with_streams=False))
        except Exception as error:
            moving.append(f"the servers cannot be asked: {error!r}")
        if not moving or time.monotonic() > deadline:
            return moving
        if moving[0] != said:
            said = moving[0]
            tell(f"waiting: {said}" + (f" (and {len(moving) - 1} more)" if len(moving) > 1 else ""))
        await asyncio.sleep(_LOOK_EVERY_S)
