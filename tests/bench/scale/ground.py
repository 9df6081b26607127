"""What the bench runs on: three servers of its own, or given ones, and each service in a process."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.bench.scale.noop import JOURNAL
from tests.support.servers import Servers, free_port, mongo_server, nats_server, redis_server

SERVICES = ("auth", "envs", "orchestrator", "terminal")
_APPS = {
    **{service: f"services.{service}.main:create_app" for service in SERVICES},
    "orchestrator": "tests.bench.scale.noop:create_app",
}
_READY_TIMEOUT_S = 600.0
ADMIN_EMAIL = "bench@example.com"


@dataclass
class Ground:
    """`pids` are those of everything that was started here, by name; `urls` those of the services."""

    servers: Servers
    folder: Path
    settings: dict[str, str]
    admin_password: str
    urls: dict[str, str] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    _processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, service: str) -> float:
        """Start one service; returns the seconds until it was ready."""
        port = int(self.urls[service].rpartition(":")[2])
        argv = [sys.executable, "-m", "uvicorn", "--factory", _APPS[service], "--port", str(port), "--loop", "uvloop"]
        argv += ["--http", "httptools", "--log-level", "warning", "--no-access-log"]
        began = time.perf_counter()
        with (self.folder / f"{service}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *argv, env={**os.environ, **self.settings}, stdout=log, stderr=log
            )
        self._processes[service], self.pids[service] = process, process.pid
        async with asyncio.timeout(_READY_TIMEOUT_S), httpx.AsyncClient() as http:
            while not await _is_ready(http, self.urls[service]):
                if process.returncode is not None:
                    raise RuntimeError(f"{service} ended with code {process.returncode}, see {self.folder}")
                await asyncio.sleep(0.1)
        return time.perf_counter() - began

    async def stop(self, service: str) -> None:
        """Stop one service politely."""
        process = self._processes.pop(service, None)
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def stop_all(self) -> None:
        """Stop every service."""
        await asyncio.gather(*(self.stop(service) for service in list(self._processes)))


@contextmanager
def ground(folder: Path, given: Servers | None, **more: str) -> Iterator[Ground]:
    """The servers, started unless given; the services are started with `Ground.start`. `more` are further settings."""
    with ExitStack() as stack:
        pids: dict[str, int] = {}
        servers = given
        if servers is None:
            started = {"nats": nats_server(folder), "redis": redis_server(folder), "mongodb": mongo_server(folder)}
            for name, server in started.items():
                server.start()
                stack.callback(server.stop)
                pids[name] = server.pid
            servers = Servers(
                nats_url=f"nats://127.0.0.1:{started['nats'].port}",
                redis_url=f"redis://127.0.0.1:{started['redis'].port}/0",
                # The embedded database looks through the records of all retryable writes of half an hour at each write.
                mongodb_url=f"mongodb://127.0.0.1:{started['mongodb'].port}/?retryWrites=false",
            )
        urls = {service: f"http://127.0.0.1:{free_port()}" for service in SERVICES}
        password = f"Aa1-{secrets.token_urlsafe(12)}"
        settings = {
            **{"NATS_URL": servers.nats_url, "REDIS_URL": servers.redis_url, "MONGODB_URL": servers.mongodb_url},
            **{"RATE_LIMIT_GLOBAL": "", "RATE_LIMIT_AUTH": "", "LOG_LEVEL": "WARNING", "PASSWORD_HASH_COST": "4"},
            **{"ADMIN_EMAIL": ADMIN_EMAIL, "ADMIN_PASSWORD": password, "ACCESS_TOKEN_EXPIRE_MINUTES": "1440"},
            **{"JWKS_URL": f"{urls['auth']}/api/v1/auth/.well-known/jwks.json", JOURNAL: str(folder / "workspaces")},
            **{"LOCAL_RUNTIME_DIR": str(folder / "runtime"), "LOCAL_RUNTIME_ISOLATION": "none"},
            **more,
        }
        yield Ground(servers, folder, settings, password, urls, pids)


async def _is_ready(http: httpx.AsyncClient, url: str) -> bool:
    with suppress(httpx.HTTPError):
        return (await http.get(f"{url}/health/ready")).status_code == 200
    return False
