"""Makes event handlers fail at random, from outside: the delivery policy of a service gets handlers that do.

A failure *before* the handler is an event that was delivered and not handled; one *after* it is an event that was
handled, but whose acknowledgement never left. Both are delivered again, so the second one proves that handlers are
idempotent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from nats.aio.msg import Msg
from pymongo.errors import AutoReconnect

from libs.common.contracts.events import EventData
from libs.common.errors import TemporaryError
from libs.common.messaging.delivery import DeliveryPolicy
from libs.common.messaging.subscriptions import Delivery, Handler

BEFORE, AFTER = "before", "after"
_COUNTS = (BEFORE, AFTER)


class InjectedError(Exception):
    """What a bug in a handler would raise."""


_KINDS: tuple[Callable[[str], Exception], ...] = (
    InjectedError,
    InjectedError,
    TemporaryError,
    # What a database raises that has just gone away.
    AutoReconnect,
)


@dataclass(frozen=True, slots=True)
class HandlerFaults:
    """How often (0 to 1) which deliveries fail. What happens to one delivery depends on the seed and on it alone.

    `folder` gets one byte per failure in the files `handler-before` and `handler-after`, which survive any kill.
    """

    seed: str
    rate: float
    folder: Path

    def draw(self, consumer: str, sequence: int, delivery: int) -> tuple[str, Exception] | None:
        """When to fail and with what; None to leave this delivery alone."""
        choice = random.Random(f"{self.seed}:{consumer}:{sequence}:{delivery}")
        if choice.random() >= self.rate:
            return None
        return choice.choice(_COUNTS), choice.choice(_KINDS)(f"injected into delivery {delivery} of {sequence}")

    def applied(self, message: Msg, handler: Handler) -> Handler:
        """The handler as this delivery gets it: it fails once at most.

        The delivery policy tries again within one delivery when a part is away; that part is back then.
        """
        metadata = message.metadata
        drawn = self.draw(metadata.consumer, metadata.sequence.stream, metadata.num_delivered)
        if drawn is None:
            return handler
        when, error = drawn
        has_failed = False

        async def fail(delivery: Delivery) -> None:
            nonlocal has_failed
            if has_failed or when == AFTER:
                await handler(delivery)
            if not has_failed:
                has_failed = True
                self._count(when)
                raise error

        return fail

    def _count(self, when: str) -> None:
        with _file(self.folder, when).open("ab", buffering=0) as file:
            file.write(b".")


class FailingPolicy(DeliveryPolicy):
    """A service's delivery policy, with faults in the handlers that it calls."""

    def __init__(self, policy: DeliveryPolicy, faults: HandlerFaults) -> None:
        self.__dict__.update(vars(policy))
        self._faults = faults

    async def deliver(self, message: Msg, handler: Handler, *, told: Collection[type[EventData]] = ()) -> None:
        """As any policy delivers."""
        await super().deliver(message, self._faults.applied(message, handler), told=told)


def counted(folder: Path) -> dict[str, int]:
    """How many failures there were, by when."""
    return {when: path.stat().st_size if (path := _file(folder, when)).exists() else 0 for when in _COUNTS}


def _file(folder: Path, when: str) -> Path:
    return folder / f"handler-{when}"
