"""The services as processes: one for each replica, and for a moment two, when one takes over from another."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from libs.cli.stack.probes import http_answers
from libs.cli.stack.specs import ProcessSpec, ServiceSpec

_READY = "/health/ready"


def service_process(
    service: ServiceSpec, name: str, port: int, environment: Mapping[str, str], cwd: Path
) -> ProcessSpec:
    """One replica. `cwd` is where its `.env` file is looked for."""
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", "libs.common.http.server", service.app),
        cwd=cwd,
        port=port,
        ready=http_answers(port, _READY),
        environment=environment,
        # SIGTERM would have it wait for clients that the gateway does not send any more.
        stop_signal=signal.SIGINT,
        ready_at=partial(http_answers, path=_READY),
    )


def replica_names(service: str, count: int) -> list[str]:
    """`auth` alone, else `auth-1`, `auth-2`, …"""
    return [service] if count == 1 else [f"{service}-{number}" for number in range(1, count + 1)]
