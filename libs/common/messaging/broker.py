"""The connection to NATS and the one way to subscribe to lifecycle events."""

from __future__ import annotations

import logging
from typing import Any

import nats
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.aio.client import Client as NatsClient
from nats.js import JetStreamContext
from nats.js.api import AckPolicy as ServerAckPolicy
from nats.js.api import ConsumerConfig, DeliverPolicy

from libs.common import mongo
from libs.common.messaging.delivery import DeliveryPolicy
from libs.common.messaging.streams import EVENTS_STREAM, ensure_streams
from libs.common.settings import CommonSettings

# Longer than any handler takes; a message that is not acknowledged by then goes to another replica.
_ACK_WAIT_S = 30
# What one replica may hold unacknowledged: bounds memory and what a crash delays.
_MAX_ACK_PENDING = 1_000
_BATCH = 64
_FETCH_TIMEOUT_S = 5.0
_RECONNECT_WAIT_S = 1
_PING_INTERVAL_S = 20
_PUBLISH_TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)


class _NoIdleFetches(logging.Filter):
    """nats-py may end an idle fetch with the built-in TimeoutError, which FastStream takes for a failure of the task:
    it starts the next fetch and logs a traceback of nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], TimeoutError))


def _faststream_logger() -> logging.Logger:
    """Warnings and errors only: two lines for each message cost more than handling it."""
    logger = logging.getLogger("devpocket.faststream")
    logger.setLevel(logging.WARNING)
    logger.filters = [_NoIdleFetches()]
    return logger


class Bus:
    """One service's connection to NATS: a FastStream broker for subscribers, a JetStream context for publishing."""

    def __init__(self, settings: CommonSettings, service: str) -> None:
        self.service = service
        self._settings = settings
        self._servers = [url.strip() for url in settings.nats_url.get_secret_value().split(",")]
        self._client: NatsClient | None = None
        self._stopping = False
        self.broker = NatsBroker(
            self._servers,
            name=f"devpocket-{service}",
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_WAIT_S,
            ping_interval=_PING_INTERVAL_S,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_reconnect,
            ack_policy=AckPolicy.MANUAL,
            middlewares=[DeliveryPolicy(service, lambda: self.jetstream, mongo.UNAVAILABLE_ERRORS)],
            logger=_faststream_logger(),
            log_level=logging.DEBUG,
            graceful_timeout=5.0,
        )

    def durable(self, purpose: str, subject: str) -> Any:
        """Decorator: handle every event on `subject` with a durable consumer that this service's replicas share.

        The consumer is named `<service>-<purpose>` and starts at the beginning of the stream. The handler takes an
        `Event`; see `delivery` for what its exceptions mean.
        """
        return self.broker.subscriber(
            subject,
            durable=f"{self.service}-{purpose}",
            stream=JStream(EVENTS_STREAM, declare=False),
            pull_sub=PullSub(batch_size=_BATCH, timeout=_FETCH_TIMEOUT_S),
            config=ConsumerConfig(
                ack_policy=ServerAckPolicy.EXPLICIT,
                ack_wait=_ACK_WAIT_S,
                max_deliver=-1,
                max_ack_pending=_MAX_ACK_PENDING,
                deliver_policy=DeliverPolicy.ALL,
            ),
        )

    async def probe(self) -> None:
        """Try to reach NATS, once, and make sure that the streams exist. Raises what nats-py raises."""
        if self._client is not None:
            if not self._client.is_connected:
                raise ConnectionError("not connected to NATS")
            return
        client = await nats.connect(
            self._servers, allow_reconnect=False, connect_timeout=2, error_cb=_ignore, name="devpocket-probe"
        )
        try:
            await ensure_streams(client.jetstream(), self._settings)
        finally:
            await client.close()

    async def start(self) -> None:
        """Connect and start the subscribers. Call after `probe` has succeeded."""
        self._client = await self.broker.connect()
        await self.broker.start()

    async def stop(self) -> None:
        """Finish the messages at hand, then disconnect."""
        self._stopping = True
        await self.broker.stop()

    @property
    def client(self) -> NatsClient:
        """The connection, for core NATS subjects. Raises RuntimeError before `start`."""
        if self._client is None:
            raise RuntimeError("the bus is not started")
        return self._client

    @property
    def connected(self) -> bool:
        """Whether publishing can work right now."""
        return self._client is not None and self._client.is_connected

    @property
    def jetstream(self) -> JetStreamContext:
        """For publishing and for stream management."""
        return self.client.jetstream(timeout=_PUBLISH_TIMEOUT_S)

    async def _on_error(self, error: Exception) -> None:
        log.warning("nats error", error=repr(error))

    async def _on_disconnect(self) -> None:
        if not self._stopping:
            log.warning("nats connection lost, reconnecting")

    async def _on_reconnect(self) -> None:
        log.info("nats connection is back")


async def _ignore(_error: Exception) -> None:
    """The probe's caller reports the failure."""
