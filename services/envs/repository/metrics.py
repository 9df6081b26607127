"""The `metrics` collection: one document per environment and hour, with a point per minute.

So a week is 168 small reads instead of ten thousand, and old hours go by themselves.
"""

from __future__ import annotations

from datetime import datetime

from libs.common.contracts.telemetry import UsageSample
from libs.common.mongo import Database
from services.envs.entities import Usage

METRICS_DAYS = 7
_DAY_S = 24 * 60 * 60
_HOUR_S = 60 * 60
_MAX_HOURS = METRICS_DAYS * 24 + 2


class MetricsRepository:
    """Implements UsageHistory."""

    def __init__(self, database: Database) -> None:
        self._collection = database["metrics"]

    async def create_indexes(self) -> None:
        """For the history of one environment, and for forgetting."""
        await self._collection.create_index([("environment_id", 1), ("hour", 1)], name="by_environment")
        # An hour's document is dated by its beginning; its last point must last METRICS_DAYS as well.
        await self._collection.create_index(
            [("hour", 1)], name="expiry", expireAfterSeconds=METRICS_DAYS * _DAY_S + _HOUR_S
        )

    async def add(self, sample: UsageSample) -> None:
        """See UsageHistory."""
        hour = sample.sampled_at.replace(minute=0, second=0, microsecond=0)
        point = {
            "sampled_at": sample.sampled_at,
            "cpu_millis": sample.cpu_millis,
            "memory_bytes": sample.memory_bytes,
            "storage_bytes": sample.storage_bytes,
        }
        await self._collection.update_one(
            {"_id": f"{sample.environment_id}:{hour:%Y%m%d%H}"},
            {
                "$set": {f"points.{sample.sampled_at:%M}": point},
                "$setOnInsert": {"environment_id": sample.environment_id, "hour": hour},
            },
            upsert=True,
        )

    async def since(self, environment_id: str, since: datetime) -> list[Usage]:
        """See UsageHistory."""
        first = since.replace(minute=0, second=0, microsecond=0)
        query = {"environment_id": environment_id, "hour": {"$gte": first}}
        cursor = self._collection.find(query).sort("hour", 1).limit(_MAX_HOURS)
        points = [
            Usage(**point)
            for document in await cursor.to_list(_MAX_HOURS)
            for _, point in sorted(document["points"].items())
        ]
        return [point for point in points if point.sampled_at >= since]
