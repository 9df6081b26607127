"""Real NATS, Redis and a MongoDB for tests: started here on free loopback ports, or in containers.

TEST_BACKEND=containers takes testcontainers (needs Docker and images); the default starts the programs that are
installed: nats-server, redis-server, and `mongod` or else SecantusDB.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from libs.cli.stack.ports import claimed, is_free

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Servers:
    """URLs of the three servers."""

    nats_url: str
    redis_url: str
    mongodb_url: str


# Below Linux's range for outgoing connections: none of those can take a port between looking and listening.
_PORTS = range(10_000, 20_000)
# So that no other test takes it either; after so many more everybody listens who wanted to.
_claims: deque[socket.socket] = deque(maxlen=200)


def free_port() -> int:
    """A loopback port nobody listens on, and that no other call of any process gets soon."""
    while True:
        port = random.choice(_PORTS)
        claim = claimed(port)
        if claim is not None and is_free(port):
            _claims.append(claim)
            return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until `process` accepts connections on `port`. Raises RuntimeError when it ends or takes too long."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen on {port} after {_START_TIMEOUT_S} s")


class LocalServer:
    """One program on one port; can be stopped, killed and started again on the same port and data."""

    def __init__(self, argv: list[str], port: int, log: Path) -> None:
        self.argv = argv
        self.port = port
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it accepts connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        wait_for_port(self.port, self._process)

    @property
    def pid(self) -> int:
        """The running process's."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Politely, then not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """As a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None


def nats_server(folder: Path) -> LocalServer:
    """nats-server with JetStream storing below `folder`."""
    port = free_port()
    argv = ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "jetstream")]
    return LocalServer(argv, port, folder / "nats.log")


def redis_server(folder: Path) -> LocalServer:
    """redis-server without persistence."""
    port = free_port()
    argv = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    return LocalServer(argv, port, folder / "redis.log")


def mongo_server(folder: Path) -> LocalServer:
    """An installed mongod, else SecantusDB."""
    port = free_port()
    data = folder / "mongo"
    data.mkdir()
    if shutil.which("mongod"):
        argv = ["mongod", "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(data)]
    else:
        secantus = Path(sys.executable).with_name("secantusd-py")
        argv = [str(secantus), "--port", str(port), "--storage-path", str(data), "--log-level", "WARNING"]
    return LocalServer(argv, port, folder / "mongo.log")


@contextmanager
def local_servers(folder: Path) -> Iterator[Servers]:
    """All three, for the length of the block."""
    with ExitStack() as stack:
        nats, redis, mongo = nats_server(folder), redis_server(folder), mongo_server(folder)
        for server in (nats, redis, mongo):
            server.start()
            stack.callback(server.stop)
        yield Servers(
            nats_url=f"nats://127.0.0.1:{nats.port}",
            redis_url=f"redis://127.0.0.1:{redis.port}/0",
            mongodb_url=f"mongodb://127.0.0.1:{mongo.port}",
        )


@contextmanager
def container_servers() -> Iterator[Servers]:
    """All three in containers."""
    from testcontainers.mongodb import MongoDbContainer
    from testcontainers.nats import NatsContainer
    from testcontainers.redis import RedisContainer

    with ExitStack() as stack:
        nats = stack.enter_context(NatsContainer("nats:2.12-alpine", jetstream=True))
        redis = stack.enter_context(RedisContainer("redis:8-alpine"))
        mongo = stack.enter_context(MongoDbContainer("mongo:8"))
        redis_url = f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0"
        yield Servers(nats_url=nats.nats_uri(), redis_url=redis_url, mongodb_url=mongo.get_connection_url())


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """The backend that TEST_BACKEND names."""
    chosen = container_servers() if os.environ.get("TEST_BACKEND") == "containers" else local_servers(folder)
    with chosen as running:
        yield running
