"""A gateway that reads its configuration again loses no request, also of those who keep their connections."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import httpx
import pytest

from libs.cli.stack.gateway import UPSTREAMS, gateway_process, local_config
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.specs import ProcessSpec, RenewalError
from tests.support.servers import free_port, wait_for_port
from tests.unit.gateway.conftest import StartGateway

_CLIENTS = 12
_RENEWALS = 3


def test_answers_have_clients_connect_anew_while_it_is_about_to_change(
    start_gateway: StartGateway, paths: StackPaths, backend: str
) -> None:
    url = start_gateway(behind=backend)
    leaving = paths.gateway / "temp" / "leaving"
    with httpx.Client(base_url=url) as client:
        for path, status in (("/api/v1/auth/me", 200), ("/nowhere", 404), ("/preview/x", 200)):
            assert "close" not in client.get(path).headers["Connection"]
            leaving.touch()
            answer = client.get(path)
            leaving.unlink()
            assert answer.status_code == status
            # RFC 9112, 9.3: of several options `close` counts.
            assert "close" in answer.headers["Connection"]


def running(paths: StackPaths, port: int, backend: str) -> tuple[ProcessSpec, subprocess.Popen[bytes]]:
    """A gateway as the stack has it."""
    config = local_config(paths, port, {name: [backend] for name in UPSTREAMS}, (0, 0))
    spec = gateway_process(config, paths, port)
    process = subprocess.Popen(spec.argv, stdout=subprocess.DEVNULL)
    wait_for_port(port, process)
    return spec, process


async def test_a_renewal_loses_no_request(paths: StackPaths, backend: str) -> None:
    port = free_port()
    spec, process = running(paths, port, backend)
    assert spec.renew is not None
    over = asyncio.Event()

    async def be_at_it() -> int:
        sent = 0
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while not over.is_set():
                assert (await client.post("/api/v1/auth/login", json={})).status_code == 200
                sent += 1
        return sent

    try:
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(be_at_it()) for _ in range(_CLIENTS)]
            for _ in range(_RENEWALS):
                await spec.renew(process.pid)
            over.set()
        assert min(client.result() for client in clients) > _RENEWALS
        assert not (paths.gateway / "temp" / "leaving").exists()
    finally:
        process.terminate()
        process.wait(60)


async def test_what_nginx_refuses_changes_nothing(paths: StackPaths, backend: str, tmp_path: Path) -> None:
    port = free_port()
    spec, process = running(paths, port, backend)
    assert spec.renew is not None
    file = paths.gateway / "nginx.conf"
    before = file.read_text()
    try:
        config = local_config(paths, port, {name: ["no such address"] for name in UPSTREAMS}, (0, 0))
        refused = gateway_process(config, paths, port)
        file.write_text(before)
        assert refused.renew is not None
        with pytest.raises(RenewalError, match="nginx refuses"):
            await refused.renew(process.pid)
        assert file.read_text() == before
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.post("/api/v1/auth/login")).status_code == 200
    finally:
        process.terminate()
        process.wait(60)
