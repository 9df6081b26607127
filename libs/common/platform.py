"""What all four services stand on, put together once: database, bus, outbox, cache, tokens, limits, health.

A service starts to answer at once and connects in the background: a phone gets a 503 that says so, and the operator a
log line that says what is missing, instead of a crash loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog

from libs.common import mongo, redis
from libs.common.errors import DevPocketError
from libs.common.http.departure import Departure
from libs.common.http.health import Health, Probe
from libs.common.http.rate_limit import RateLimiter
from libs.common.loop_watch import LoopWatch, keep_what_is_loaded
from libs.common.messaging.broker import Bus
from libs.common.messaging.outbox import OutboxRelay, StreamPublisher
from libs.common.metrics.endpoint import metrics_server
from libs.common.metrics.events import EventMetrics
from libs.common.metrics.platform import describe_platform, refusal_counter
from libs.common.metrics.registry import Metrics
from libs.common.migrations.gate import SchemaGate
from libs.common.migrations.plan import Backfill
from libs.common.mongo_pool import PoolWatch
from libs.common.security.api_keys import ApiKeyVerifier, KeyDirectory
from libs.common.security.identities import Identities
from libs.common.security.keys import JwksClient, KeySource
from libs.common.security.revocation import Revocations
from libs.common.security.revocation_feed import RevocationFeed
from libs.common.security.sightings import Sightings
from libs.common.security.tokens import TokenVerifier
from libs.common.settings import CommonSettings
from libs.common.tasks import end_tasks
from libs.common.telemetry import configure_telemetry, flush_traces

log = structlog.get_logger(__name__)

Step = Callable[[], Awaitable[None]]


class Platform:
    """One service's connections.

    `keys` and `api_keys` are given by auth, which has its own; the others fetch auth's keys, and know API keys from its
    events (`identities`, to be subscribed by the service). `extra_probes` are parts that only this
    service needs, by the name `/health/ready` shows. `migrations` are those of its database.
    """

    def __init__(
        self,
        settings: CommonSettings,
        service: str,
        *,
        keys: KeySource | None = None,
        api_keys: KeyDirectory | None = None,
        extra_probes: Mapping[str, Probe] | None = None,
        migrations: Sequence[Backfill] = (),
    ) -> None:
        configure_telemetry(service, settings, export=True)
        self.settings = settings
        self.service = service
        self.metrics = Metrics(service)
        self._event_metrics = EventMetrics(self.metrics)
        self.pool = PoolWatch()
        self.mongo = mongo.connect(settings, self.pool)
        self.database = mongo.database(self.mongo, settings, service)
        self.schema = SchemaGate(self.database, migrations)
        self.redis = redis.connect(settings)
        self.bus = Bus(settings, service, observer=self._event_metrics.handled)
        self.outbox = OutboxRelay(self._event_metrics.counting(StreamPublisher(self.bus)))
        self._jwks = JwksClient(settings.jwks_url) if keys is None else None
        token_life_s = settings.access_token_expire_minutes * 60
        self.revocations = Revocations(self.redis, token_life_s=token_life_s)
        self._revocation_feed = RevocationFeed(self.bus, self.revocations, token_life_s=token_life_s)
        source = keys or self._jwks
        assert source is not None
        self.identities = Identities(self.database, tombstone_days=settings.stream_max_age_days + 1)
        self.tokens = TokenVerifier(
            source,
            self.revocations,
            ApiKeyVerifier(api_keys or self.identities),
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
        )
        self.sightings = Sightings(self._tell)
        refusals = refusal_counter(self.metrics)
        self.limiter = RateLimiter(settings, lambda limit: refusals.labels(limit).inc())
        self.loop_watch = LoopWatch()
        self.health = Health(
            {
                "database": lambda: mongo.ping(self.mongo),
                "messaging": self.bus.probe,
                "cache": self._ping_redis,
                **(extra_probes or {}),
            }
        )
        describe_platform(self)
        self.departure = Departure()
        self.departure.announce_by(self.health.mark_stopping)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Everything is closed at the end, whatever was opened."""
        settings = self.settings
        self._event_metrics.expect(self.bus.consumers)
        try:
            async with metrics_server(self.metrics, settings.metrics_address, settings.metrics_port):
                yield
        finally:
            await self._revocation_feed.stop()
            await self.sightings.stop()
            await self.bus.stop()
            await self.outbox.stop()
            await self.revocations.stop()
            if self._jwks is not None:
                await self._jwks.close()
            await self.redis.aclose()
            await mongo.close(self.mongo)
            await flush_traces()

    @asynccontextmanager
    async def starting(self, prepare: Step, run: Step | None = None) -> AsyncIterator[None]:
        """Connect in the background: migrate, wait for all parts, `prepare` (indexes, seeds), subscribe, then `run`.

        A step that fails is logged and the whole start is tried again; `/health/ready` says 503 meanwhile.
        """
        self.schema.close()
        tasks = [asyncio.create_task(self._start(prepare, run)), asyncio.create_task(self.loop_watch.run())]
        try:
            yield
        finally:
            await end_tasks(tasks)

    async def _start(self, prepare: Step, run: Step | None) -> None:
        steps: list[Step] = [prepare, self.outbox.start, self.revocations.load, self.revocations.start]
        feed = self._revocation_feed
        steps += [self.bus.start, feed.hear, feed.recall, feed.start, self.sightings.start]
        if run is not None:
            steps.append(run)
        await self.health.wait_for("database")
        await _until_it_works(self.schema.pass_through)
        await self.health.wait_for_all()
        for step in steps:
            await _until_it_works(step)
        keep_what_is_loaded()
        self.health.mark_started()
        log.info("service is ready")
        await self.schema.migrations.finish_all()

    async def _tell(self, subject: str, payload: bytes) -> None:
        await self.bus.client.publish(subject, payload)

    async def _ping_redis(self) -> None:
        await self.redis.ping()


async def _until_it_works(step: Step) -> None:
    wait_s = 0.5
    while True:
        try:
            await step()
        except DevPocketError as error:
            log.error("not ready to start", reason=error.message, retry_in_s=wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 5.0)
        except Exception as error:
            log.exception("start-up step failed, will be retried", retry_in_s=wait_s, error=repr(error))
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 5.0)
        else:
            return
