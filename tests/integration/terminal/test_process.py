"""A replica as it is started in production: its own process, uvloop, and signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from libs.common.contracts.events import TerminalSessionClosed
from libs.common.ids import new_id
from tests.integration.terminal.harness import Service, terminal_settings
from tests.integration.terminal.test_lifecycle import story
from tests.support.app import eventually
from tests.support.servers import Servers, free_port


@asynccontextmanager
async def replica(
    backend: Servers, service: Service, user_id: str, folder: Path
) -> AsyncIterator[tuple[Service, str, asyncio.subprocess.Process]]:
    """Another replica; the Service given back speaks to it, and publishes through `service`."""
    settings, port, tokens = terminal_settings(backend), free_port(), folder / "tokens.json"
    names = ("mongodb_url", "redis_url", "nats_url", "secret_key")
    secrets = {name.upper(): getattr(settings, name).get_secret_value() for name in names}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "libs.common.http.server", "tests.integration.terminal.replica:create_app"),
        *("--port", str(port)),
        env={
            **os.environ,
            **secrets,
            "DATABASE_NAME": settings.database_name,
            "TEST_USERS": user_id,
            "TEST_TOKENS_FILE": str(tokens),
            "LOG_LEVEL": "INFO",
        },
        stderr=(folder / "log").open("wb"),
    )
    other = Service(service.app, service.settings, service.issuer, service.runtime, f"127.0.0.1:{port}")

    async def is_ready() -> bool:
        assert process.returncode is None, (folder / "log").read_text()
        try:
            async with other.http as client:
                return (await client.get("/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

    try:
        await eventually(is_ready, timeout_s=60)
        yield other, json.loads(tokens.read_text())[user_id], process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "stuck"])
async def test_sigterm_says_1001_ends_shells_and_tells_the_bus(
    backend: Servers, service: Service, tmp_path: Path, reading: bool
) -> None:
    user_id = new_id()
    environment_id = await service.environment(user_id)
    async with replica(backend, service, user_id, tmp_path) as (other, token, process):
        async with (
            other.shell(environment_id, token) as shell,
            other.shell(environment_id, token, lazy=True) as second,
        ):
            await shell.run("PS1=; sleep 1000 & echo =$((6*7))=$$=", "=42=")
            await shell.until(lambda: b"=" in shell.output)
            pid = int(shell.output.split(b"=")[0])
            if not reading:
                await second.type("yes\n")
                await second.expect("y\r\ny\r\n")
            process.send_signal(signal.SIGTERM)
            assert await shell.closed() == 1001
            assert (await shell.frame("error"))["code"] == "shutting_down"
            # By itself: it also waits 5 s for a socket whose client takes nothing, not even the close frame.
            assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGTERM
        assert not psutil.pid_exists(pid)
    events = await story(service, environment_id, 4)
    assert [event.reason for event in events if isinstance(event, TerminalSessionClosed)] == ["shutdown", "shutdown"]
    log = (tmp_path / "log").read_text()
    assert "not complete" not in log
    assert token not in log


async def test_health_names_the_runtime(service: Service) -> None:
    async with service.http as client:
        checks = (await client.get("/health/ready")).json()["checks"]
    assert checks == dict.fromkeys(("database", "messaging", "cache", "runtime"), "healthy")
