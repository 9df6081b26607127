"""What is measured: a whole stack, fresh, on a port and a folder of its own, without limits; or one service alone."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.servers import Servers, free_port

_READY_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class OwnStack:
    """Where it answers, its administrator, and its processes by name."""

    url: str
    email: str
    password: str
    envs_url: str
    pids: Mapping[str, int]


@contextmanager
def own_stack(**more: str) -> Iterator[OwnStack]:
    """Start it, stop it and remove its data. `more` are further settings. Raises CalledProcessError."""
    email, password = "bench@example.com", f"Aa1-{secrets.token_urlsafe(12)}"
    devpocket = str(Path(sys.executable).with_name("devpocket"))
    settings = {
        **{"ADMIN_EMAIL": email, "ADMIN_PASSWORD": password, "RATE_LIMIT_GLOBAL": "", "RATE_LIMIT_AUTH": ""},
        # No person types like that.
        "TERMINAL_MESSAGES_PER_SECOND": "1000000",
        "TERMINAL_CONNECTIONS_PER_USER": "2000",
        "TERMINAL_SESSIONS_PER_USER": "2000",
        **more,
    }
    with tempfile.TemporaryDirectory(prefix="devpocket-bench-") as folder:
        port = free_port()
        up = [devpocket, "up", "--detach", "--port", str(port), "--data-dir", folder]
        try:
            subprocess.run(up, check=True, env={**os.environ, **settings, "LOG_LEVEL": "WARNING"})
            status = subprocess.run(
                [devpocket, "status", "--json", "--data-dir", folder], check=True, capture_output=True
            )
            rows = json.loads(status.stdout)
            envs_port = next(row["port"] for row in rows if row["name"] == "envs")
            pids = {row["name"]: row["pid"] for row in rows if row["pid"] is not None}
            yield OwnStack(f"http://127.0.0.1:{port}", email, password, f"http://127.0.0.1:{envs_port}", pids)
        finally:
            subprocess.run([devpocket, "down", "--data-dir", folder], check=False)


@asynccontextmanager
async def service_process(app: str, servers: Servers, folder: Path, **more: str) -> AsyncIterator[str]:
    """One service in a process, ready, without a gateway; gives its URL. `more` are further settings."""
    port = free_port()
    settings = {
        **{"NATS_URL": servers.nats_url, "REDIS_URL": servers.redis_url, "MONGODB_URL": servers.mongodb_url},
        **{"LOG_LEVEL": "WARNING", "LOCAL_RUNTIME_DIR": str(folder / "runtime"), "LOCAL_RUNTIME_ISOLATION": "none"},
        **more,
    }
    argv = [sys.executable, "-m", "uvicorn", "--factory", app, "--port", str(port), "--loop", "uvloop"]
    process = await asyncio.create_subprocess_exec(*argv, "--log-level", "warning", env={**os.environ, **settings})
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S), httpx.AsyncClient() as http:
            while True:
                with suppress(httpx.HTTPError):
                    if (await http.get(f"{url}/health/ready")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        await process.wait()
