"""Fixtures for all tests. Servers are started once per run and only when a test asks for them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx
import hypothesis
import nats
import pytest
import structlog
from httpx._transports import default as httpx_transports
from nats.js.errors import NotFoundError
from redis.asyncio import Redis

from libs.common.ids import new_id
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from libs.common.settings import CommonSettings
from tests.support.servers import Servers, servers

# A slow machine is no bug; timings belong into benchmarks. And what one run of many finds by chance is looked for on
# purpose, with TEST_RANDOM=1, not by whoever changes something else.
hypothesis.settings.register_profile(
    "devpocket",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize="TEST_RANDOM" not in os.environ,
)
hypothesis.settings.load_profile("devpocket")

# httpx gives up after five seconds unless it is told otherwise: a busy machine takes as long now and then. It has one
# object for all who do not say how long they wait.
_patience = inspect.signature(httpx.Client).parameters["timeout"].default
_patience.connect = _patience.read = _patience.write = _patience.pool = 60.0

# Each client would read the certificates of all authorities anew, 20 ms of work; whom a test trusts besides, it passes.
httpx_transports.create_ssl_context = functools.cache(httpx_transports.create_ssl_context)  # type: ignore[attr-defined]

# A run in the background of a script, or below nohup, is born deaf to these, and so would all that it starts be: shells
# that no Ctrl-C interrupts, stacks that do not hear a hangup. A handler stays with us; what we start is not born deaf.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda _number, _frame: None)

_configure_logs = structlog.configure


def _configure_logs_anew(*arguments: Any, **options: Any) -> None:
    """A logger that keeps the setup of its first use, as it does in a service, would keep that of some earlier test."""
    _configure_logs(*arguments, **options | {"cache_logger_on_first_use": False})


structlog.configure = _configure_logs_anew

# Where no service has set logs up, rich would take a third of a second to draw each traceback.
*_others, _ = structlog.get_config()["processors"]
structlog.configure([*_others, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])

SettingsT = TypeVar("SettingsT", bound=CommonSettings)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Commands join a stack by putting its settings into the environment: no other test may find them there."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A service sets up logs for its process: the next test must neither be silenced nor write out every debug line."""
    root = logging.getLogger()
    level, handlers, configuration = root.level, list(root.handlers), structlog.get_config()
    was_configured = structlog.is_configured()
    yield
    root.setLevel(level)
    root.handlers = handlers
    if was_configured:
        structlog.configure(**configuration)
    else:
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """NATS, Redis and MongoDB for the whole run."""
    with servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture
async def clean_backend(backend: Servers) -> Servers:
    """The servers with empty streams and an empty Redis; databases get a new name by `make_settings`."""
    client = await nats.connect(backend.nats_url)
    js = client.jetstream()
    for stream in (EVENTS_STREAM, DEAD_LETTER_STREAM):
        with contextlib.suppress(NotFoundError):
            await js.delete_stream(stream)
    await client.close()
    redis = Redis.from_url(backend.redis_url)
    await redis.flushdb()
    await redis.aclose()
    return backend


@pytest.fixture
def make_settings(backend: Servers) -> Callable[..., Any]:
    """`make_settings(SettingsClass, **changes)`: settings on the test servers with a database of their own."""
    database_name = f"test_{new_id()[-12:]}"

    def make(kind: type[SettingsT], **changes: Any) -> SettingsT:
        values: dict[str, Any] = {
            "_env_file": None,
            "mongodb_url": backend.mongodb_url,
            "redis_url": backend.redis_url,
            "nats_url": backend.nats_url,
            "database_name": database_name,
            "secret_key": "test-secret-key-0123456789-0123456789",
            "rate_limit_global": "",
            "rate_limit_auth": "",
            "log_level": "WARNING",
            **changes,
        }
        return kind(**values)

    return make
