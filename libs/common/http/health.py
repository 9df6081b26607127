"""Health: am I alive, and can I do my work?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Literal

import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel

from libs.common.clock import utc_now
from libs.common.http.problems import PROBLEM_JSON

Probe = Callable[[], Awaitable[None]]

_PROBE_TIMEOUT_S = 2.0
# Probers come often and from several sides; one look per second is enough for all of them.
_FRESH_FOR_S = 1.0
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 5.0

log = structlog.get_logger(__name__)


class Up(BaseModel):
    """The API answers."""

    status: Literal["healthy"] = "healthy"
    service: str = "DevPocket API"
    version: str
    timestamp: datetime


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether the service can do its work, and how its parts are: healthy, unhealthy or starting."""

    status: Literal["ready", "not ready", "starting", "stopping"]
    checks: dict[str, str]


class Health:
    """Knows how to ask every part this service needs. A probe raises when its part does not work."""

    def __init__(self, probes: dict[str, Probe]) -> None:
        self._probes = probes
        self._checked_at = float("-inf")
        self._checks: dict[str, str] = dict.fromkeys(probes, "starting")
        self._lock = asyncio.Lock()
        self._started = asyncio.Event()
        self._stopping = False

    @property
    def started(self) -> bool:
        """Whether the service has finished its start-up."""
        return self._started.is_set()

    def mark_started(self) -> None:
        """The start-up is finished."""
        self._started.set()

    @property
    def status(self) -> Literal["starting", "stopping"] | None:
        """Why it is not ready, whatever its parts say; None when it depends on them."""
        return "stopping" if self._stopping else None if self.started else "starting"

    def mark_stopping(self) -> None:
        """It was asked to end; it still serves, but nobody should begin anything here."""
        self._stopping = True

    async def wait_started(self) -> None:
        """Until the start-up is finished."""
        await self._started.wait()

    def add(self, name: str, probe: Probe) -> None:
        """One more part that the service needs; before it starts."""
        self._probes[name] = probe

    async def wait_for(self, name: str) -> None:
        """Likewise for one of them."""
        await self._wait_for(name, self._probes[name])

    async def wait_for_all(self) -> None:
        """Wait, with backoff and a line in the log that says for what, until every part has answered once."""
        await asyncio.gather(*(self._wait_for(name, probe) for name, probe in self._probes.items()))

    async def checks(self) -> dict[str, str]:
        """`healthy` or `unhealthy` by part."""
        async with self._lock:
            if time.monotonic() - self._checked_at > _FRESH_FOR_S:
                results = await asyncio.gather(*(self._probe(name) for name in self._probes))
                self._checks = dict(zip(self._probes, results, strict=True))
                self._checked_at = time.monotonic()
            return dict(self._checks)

    async def _probe(self, name: str) -> str:
        try:
            await asyncio.wait_for(self._probes[name](), _PROBE_TIMEOUT_S)
        except Exception as error:
            log.warning("not healthy", part=name, error=repr(error))
            return "unhealthy"
        return "healthy"

    async def _wait_for(self, name: str, probe: Probe) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                await probe()
            except Exception as error:
                log.warning("waiting for a part", part=name, retry_in_s=wait_s, error=repr(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
            else:
                log.info("part is there", part=name)
                return


# Where no service is left that could say more, the gateway answers with a problem.
_NOT_READY: dict[str, Any] = {
    "description": "A part is away",
    "model": Readiness,
    "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def health_router(health: Health, version: str) -> APIRouter:
    """GET /health, /health/ready, /health/live."""
    router = APIRouter(tags=["health"])

    @router.get("/health", summary="Is the API up?")
    async def get_health() -> Up:
        return Up(version=version, timestamp=utc_now())

    @router.get("/health/live", summary="Is the process alive?")
    async def get_live() -> Alive:
        return Alive()

    @router.get("/health/ready", summary="Can it do its work?", responses={503: _NOT_READY})
    async def get_ready(response: Response) -> Readiness:
        checks = await health.checks()
        healthy = all(state == "healthy" for state in checks.values())
        status = health.status or ("ready" if healthy else "not ready")
        if status != "ready":
            response.status_code = 503
        return Readiness(status=status, checks=checks)

    return router
