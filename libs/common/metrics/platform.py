"""What every service tells of the parts it stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter

from libs.common.clock import utc_now
from libs.common.ids import time_of
from libs.common.messaging.backlog import consumer_backlog, dead_letters
from libs.common.messaging.outbox import OutboxBacklog
from libs.common.metrics.families import Family, Values
from libs.common.metrics.registry import Metrics

if TYPE_CHECKING:
    from libs.common.platform import Platform

_UP = Family("devpocket_dependency_up", "Whether a part that the service needs answers: 1 or 0.", ("dependency",))
_LAG = Family(
    "devpocket_event_loop_lag_seconds",
    "The longest that the event loop was held up during the last minute, in seconds.",
)
_POOL = Family("devpocket_mongodb_pool_connections", "Connections to MongoDB, in_use or idle.", ("state",))
_POOL_MAX = Family("devpocket_mongodb_pool_size_max", "The most connections to one MongoDB server at a time.")
_PENDING = Family("devpocket_outbox_pending_events", "Events in the service's database that the stream has not taken.")
_OLDEST = Family(
    "devpocket_outbox_oldest_event_age_seconds",
    "Age of the oldest event that is still to be published, in seconds; 0 when there is none.",
)
_WAITING = Family(
    "devpocket_consumer_pending_messages", "Events in the stream that a consumer was not yet sent.", ("consumer",)
)
_UNACKNOWLEDGED = Family(
    "devpocket_consumer_unacknowledged_messages",
    "Events that a consumer was sent and has not finished; those to be retried are among them.",
    ("consumer",),
)
_DEAD = Family("devpocket_dead_letters", "Events of this service in the dead-letter stream.", ("service",))


def refusal_counter(metrics: Metrics) -> Counter:
    """For the rate limiter."""
    return Counter(
        "devpocket_rate_limit_refusals_total",
        "Requests refused with 429, by the limit that was passed.",
        ("limit",),
        registry=metrics.registry,
    )


def describe_platform(platform: Platform) -> None:
    """Have the platform's metrics tell how its parts are."""
    metrics, service = platform.metrics, platform.service

    async def dependencies() -> Values:
        checks = await platform.health.checks()
        return {_UP.name: {(part,): float(state == "healthy") for part, state in checks.items()}}

    async def streams() -> Values:
        found = await consumer_backlog(platform.bus.jetstream, platform.bus.consumers)
        return {
            _WAITING.name: {(name,): backlog.pending for name, backlog in found.items()},
            _UNACKNOWLEDGED.name: {(name,): backlog.unacknowledged for name, backlog in found.items()},
        }

    async def dead() -> Values:
        return {_DEAD.name: {(service,): await dead_letters(platform.bus.jetstream, service)}}

    async def outbox() -> Values:
        backlog = await platform.outbox.backlog()
        return {_PENDING.name: {(): backlog.events}, _OLDEST.name: {(): _age_s(backlog)}}

    def process() -> Values:
        pool = platform.pool
        return {
            _LAG.name: {(): platform.loop_watch.worst_lately_s()},
            _POOL.name: {("in_use",): pool.in_use, ("idle",): pool.idle},
            _POOL_MAX.name: {(): pool.size_max},
        }

    # Longer than a probe may take: a part that hangs is down, not unknown.
    metrics.ask([_UP], dependencies, keep_s=1.0, limit_s=4.0)
    metrics.ask([_PENDING, _OLDEST], outbox)
    metrics.ask([_WAITING, _UNACKNOWLEDGED], streams)
    metrics.ask([_DEAD], dead, keep_s=15.0)
    metrics.read([_LAG, _POOL, _POOL_MAX], process)


def _age_s(backlog: OutboxBacklog) -> float:
    born = time_of(backlog.oldest_id) if backlog.oldest_id else None
    return 0.0 if born is None else max((utc_now() - born).total_seconds(), 0.0)
