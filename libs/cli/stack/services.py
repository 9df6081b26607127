"""The services as processes: uvicorn, one process per replica."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from libs.cli.stack.ports import LOOPBACK
from libs.cli.stack.probes import http_answers
from libs.cli.stack.specs import ProcessSpec, ServiceSpec

# Shorter than what load balancers and phone networks cut silent connections at (60 s).
_WS_PING_S = 25
# A client that does not read for a while is slowed down, not cut off: its pong waits behind the output.
_WS_PING_TIMEOUT_S = 90
# A little more than the 1 MiB that the terminal service allows, so that its own words reach the client.
_WS_MAX_BYTES = 1_114_112
# The supervisor waits as long before it kills.
_GRACEFUL_SHUTDOWN_S = 5


def service_process(
    service: ServiceSpec, name: str, port: int, environment: Mapping[str, str], cwd: Path
) -> ProcessSpec:
    """One replica. `cwd` is where its `.env` file is looked for."""
    options = {
        "--host": LOOPBACK,
        "--port": port,
        "--loop": "uvloop",
        "--http": "httptools",
        "--ws": "libs.common.http.websocket:WebSocketProtocol",
        "--ws-ping-interval": _WS_PING_S,
        "--ws-ping-timeout": _WS_PING_TIMEOUT_S,
        "--ws-max-size": _WS_MAX_BYTES,
        # Compressing terminal output costs a quarter of its rate, and hides from us that a client has stopped reading.
        "--ws-per-message-deflate": "false",
        "--timeout-graceful-shutdown": _GRACEFUL_SHUTDOWN_S,
        "--log-level": "warning",
    }
    flat = [str(part) for option in options.items() for part in option]
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", "uvicorn", service.app, "--factory", *flat, "--no-access-log"),
        cwd=cwd,
        port=port,
        ready=http_answers(port, "/health/ready"),
        environment=environment,
    )


def replica_names(service: str, count: int) -> list[str]:
    """`auth` alone, else `auth-1`, `auth-2`, …"""
    return [service] if count == 1 else [f"{service}-{number}" for number in range(1, count + 1)]
