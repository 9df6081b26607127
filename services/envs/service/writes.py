"""Decide, write, and decide again when somebody else was faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from libs.common.context import current_cause
from libs.common.contracts.events import Event
from services.envs.entities import Change, Environment
from services.envs.errors import EditConflictError
from services.envs.ports import EnvironmentStore

SOURCE = "envs"
# A user, a reconcile loop and a report at once are three writers; more than this is not contention but a loop.
_MAX_TRIES = 10


def envelopes(change: Change) -> list[Event]:
    """The events of a change, as caused by what goes on in this task."""
    cause = current_cause()
    return [Event.new(data, subject=change.after.id, source=SOURCE, cause=cause) for data in change.events]


async def change_environment(
    store: EnvironmentStore,
    load: Callable[[], Awaitable[Environment]],
    decide: Callable[[Environment], Change],
) -> Environment:
    """Load, decide and save until no other writer was in between. Raises EditConflictError and what the two raise."""
    for _ in range(_MAX_TRIES):
        change = decide(await load())
        if change.is_empty or await store.save(change, envelopes(change)):
            return change.after
    raise EditConflictError
