"""The streams, declared here and nowhere else. Services attach to them; one that exists is never changed from here,
only by an operator (see `stream_changes`).

One stream holds every lifecycle event, because replay needs one total order. Dead letters have their own, so that
they outlive neither too short nor too long and never mix with history.
"""

from __future__ import annotations

from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

from libs.common.settings import CommonSettings

EVENTS_STREAM = "DEVPOCKET_EVENTS"
EVENTS_SUBJECTS = "devpocket.>"
DEAD_LETTER_STREAM = "DEVPOCKET_DLQ"
DEAD_LETTER_SUBJECTS = "dlq.>"

_DAY_S = 24 * 60 * 60
_DUPLICATE_WINDOW_S = 10 * 60


def stream_configs(settings: CommonSettings) -> list[StreamConfig]:
    """Both streams as they are created."""
    return [
        StreamConfig(
            name=EVENTS_STREAM,
            subjects=[EVENTS_SUBJECTS],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=settings.stream_max_age_days * _DAY_S,
            duplicate_window=_DUPLICATE_WINDOW_S,
            num_replicas=settings.stream_replicas,
            allow_rollup_hdrs=False,
            deny_delete=True,
        ),
        StreamConfig(
            name=DEAD_LETTER_STREAM,
            subjects=[DEAD_LETTER_SUBJECTS],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=settings.stream_max_age_days * _DAY_S,
            duplicate_window=_DUPLICATE_WINDOW_S,
            num_replicas=settings.stream_replicas,
        ),
    ]


async def ensure_streams(js: JetStreamContext, settings: CommonSettings) -> None:
    """Create the streams that are missing and leave the others alone."""
    for config in stream_configs(settings):
        name = config.name or ""
        try:
            await js.stream_info(name)
        except NotFoundError:
            try:
                await js.add_stream(config)
            except BadRequestError:
                # Another replica was faster.
                await js.stream_info(name)
