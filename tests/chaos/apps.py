"""The real services, their handlers made to fail now and then. Factories for uvicorn; configured by the environment:

Imports are late, because a process should load its own service only.

CHAOS_HANDLER_ERRORS: which share of deliveries fails, 0 to 1. CHAOS_SEED. CHAOS_DIR: where failures are counted.
CHAOS_ACK_WAIT: seconds after which NATS gives an unacknowledged message to somebody else.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI

from libs.common.messaging.broker import Bus
from tests.chaos.handler_faults import FailingPolicy, HandlerFaults


def _impatient() -> None:
    """No service has a setting for it, so what they all leave at its default is changed there."""
    wait_s = os.environ.get("CHAOS_ACK_WAIT")
    if wait_s is not None:
        defaults = Bus.__init__.__kwdefaults__
        assert defaults is not None
        defaults["ack_wait_s"] = float(wait_s)


def create_auth() -> FastAPI:
    """In auth's place."""
    from services.auth.main import create_app

    _impatient()
    return _failing(create_app())


def create_envs() -> FastAPI:
    """In envs' place."""
    from services.envs.main import create_app

    _impatient()
    return _failing(create_app())


def create_orchestrator() -> FastAPI:
    """In the orchestrator's place."""
    from services.orchestrator.main import create_app

    _impatient()
    return _failing(create_app())


def create_terminal() -> FastAPI:
    """In terminal's place."""
    from services.terminal.main import create_app

    _impatient()
    return _failing(create_app())


def _failing(app: FastAPI) -> FastAPI:
    rate = float(os.environ.get("CHAOS_HANDLER_ERRORS", "0"))
    if rate > 0:
        faults = HandlerFaults(os.environ.get("CHAOS_SEED", "0"), rate, Path(os.environ["CHAOS_DIR"]))
        bus = app.state.platform.bus
        bus._policy = FailingPolicy(bus._policy, faults)
    return app
