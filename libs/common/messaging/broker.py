"""The connection to NATS and the one way to subscribe to lifecycle events."""

from __future__ import annotations

import asyncio
import logging

import nats
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy as ServerAckPolicy
from nats.js.api import ConsumerConfig, DeliverPolicy

from libs.common import mongo
from libs.common.messaging.consumers import REVISION, ConsumerKeeper, described
from libs.common.messaging.delivery import DeliveryPolicy, Observer, turn_of, unobserved
from libs.common.messaging.fetching import PromptJetStream
from libs.common.messaging.intake import Intake
from libs.common.messaging.redrive import RedriveDesk
from libs.common.messaging.stream_changes import changes
from libs.common.messaging.streams import EVENTS_STREAM, ensure_streams
from libs.common.messaging.subscriptions import Subscription
from libs.common.settings import CommonSettings

# A message that is not acknowledged by then goes to another replica; whoever still works on it extends the time.
ACK_WAIT_S = 30.0
# What one replica may hold unacknowledged: bounds memory and what a crash delays.
_MAX_ACK_PENDING = 1_000
_BATCH = 64
_FETCH_TIMEOUT_S = 5.0
_RECONNECT_WAIT_S = 1
_PING_INTERVAL_S = 20
_PUBLISH_TIMEOUT_S = 5.0
# What handlers at work get when the service stops; what is not done by then is delivered again, to another replica.
GRACE_S = 5.0

log = structlog.get_logger(__name__)


def _faststream_logger() -> logging.Logger:
    """Warnings and errors only: two lines for each message cost more than handling it."""
    logger = logging.getLogger("devpocket.faststream")
    logger.setLevel(logging.WARNING)
    return logger


class Bus:
    """One service's connection to NATS: a FastStream broker for subscribers, a JetStream context for publishing."""

    def __init__(
        self,
        settings: CommonSettings,
        service: str,
        *,
        ack_wait_s: float = ACK_WAIT_S,
        grace_s: float = GRACE_S,
        observer: Observer = unobserved,
    ) -> None:
        """`observer` hears what became of each event that a subscriber was given."""
        self.service = service
        self._ack_wait_s = ack_wait_s
        self._grace_s = grace_s
        self._settings = settings
        self._servers = [url.strip() for url in settings.nats_url.get_secret_value().split(",")]
        self._client: NatsClient | None = None
        self._jetstream: JetStreamContext | None = None
        self._fetching: PromptJetStream | None = None
        self._stopping = False
        self._consumers = ConsumerKeeper(settings)
        self._redrives = RedriveDesk(service)
        self._policy = DeliveryPolicy(service, lambda: self.jetstream, mongo.UNAVAILABLE_ERRORS, observer)
        self._intakes: list[Intake] = []
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
            logger=_faststream_logger(),
            log_level=logging.DEBUG,
            graceful_timeout=grace_s,
            # Injecting and converting parameters would cost as much again; the delivery policy decodes.
            apply_types=False,
        )

    def subscribe(self, subscription: Subscription) -> None:
        """Handle every event with a durable consumer that this service's replicas share. Call before `start`.

        The consumer is named `<service>-<purpose>` and starts at the beginning of the stream.
        """
        name = f"{self.service}-{subscription.purpose}"
        config = ConsumerConfig(
            ack_policy=ServerAckPolicy.EXPLICIT,
            ack_wait=self._ack_wait_s,
            max_deliver=-1,
            max_ack_pending=_MAX_ACK_PENDING,
            deliver_policy=DeliverPolicy.ALL,
            description=described(REVISION),
        )
        subscriber = self.broker.subscriber(
            subscription.subject,
            durable=name,
            stream=JStream(EVENTS_STREAM, declare=False),
            pull_sub=PullSub(batch_size=_BATCH, timeout=_FETCH_TIMEOUT_S),
            config=config,
            parser=_parse,
            decoder=_as_it_is,
            title=name,
        )
        intake = Intake(
            lambda message: self._policy.deliver(message, subscription.handle, told=subscription.told),
            turn_of,
            ack_wait_s=self._ack_wait_s,
            on_taken=self._on_taken,
        )
        subscriber(intake.take)
        self._intakes.append(intake)
        self._consumers.add(name, subscription.subject, config)
        self._redrives.add(name, subscription)

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
        self._jetstream = self._client.jetstream(timeout=_PUBLISH_TIMEOUT_S)
        # Before the subscribers start: they take their subscriptions from here.
        self._fetching = PromptJetStream(self._client)
        self.broker.config.connection_state.connect(self._client, self._fetching)
        await self.broker.start()
        await self._redrives.open(self._client)
        self._consumers.start(self._jetstream)
        for change in await changes(self._jetstream, self._settings):
            log.warning("stream is not as set, see `devpocket streams apply`", change=str(change))

    async def stop(self) -> None:
        """Finish the messages at hand, then disconnect."""
        self._stopping = True
        await self._consumers.stop()
        # All at once: what one has fetched waits for the last.
        await asyncio.gather(*(subscriber.stop() for subscriber in self.broker.subscribers))
        if self._fetching is not None:
            await self._fetching.give_back()
        await asyncio.gather(*(intake.drain(self._grace_s) for intake in self._intakes))
        await self.broker.stop()

    @property
    def consumers(self) -> list[str]:
        """The names of this service's durable consumers."""
        return self._consumers.names

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
        """For publishing and for stream management. Raises RuntimeError before `start`."""
        if self._jetstream is None:
            raise RuntimeError("the bus is not started")
        return self._jetstream

    def _on_taken(self, message: Msg) -> None:
        if self._fetching is not None:
            self._fetching.taken(message)

    async def _on_error(self, error: Exception) -> None:
        log.warning("nats error", error=repr(error))

    async def _on_disconnect(self) -> None:
        if not self._stopping:
            log.warning("nats connection lost, reconnecting")

    async def _on_reconnect(self) -> None:
        log.info("nats connection is back")
        if self._fetching is not None:
            self._fetching.reconnected()
        self._consumers.look_now()


async def _parse(raw: Msg) -> NatsMessage:
    # With ids given, FastStream makes none up.
    return NatsMessage(raw_message=raw, body=raw.data, message_id=raw.reply, correlation_id=raw.reply)


async def _as_it_is(message: NatsMessage) -> Msg:
    return message.raw_message


async def _ignore(_error: Exception) -> None:
    """The probe's caller reports the failure."""
