"""A proxy in front is believed only where a deployment says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.support.app import eventually
from tests.unit.gateway.conftest import StartGateway

KUBERNETES = Path(__file__).parents[3] / "deploy" / "k8s" / "base" / "proxies.conf"
CLAIMS = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
HSTS = "strict-transport-security"


@pytest.fixture
def proxies(tmp_path: Path) -> Path:
    """What Kubernetes mounts, and loopback, where the tests come from."""
    folder = tmp_path / "proxies"
    folder.mkdir()
    (folder / "proxies.conf").write_text(KUBERNETES.read_text() + "set_real_ip_from 127.0.0.0/8;\n")
    return folder


async def ask(url: str, headers: dict[str, str]) -> httpx.Response:
    """A file that the gateway has itself."""
    async with httpx.AsyncClient() as client:
        return await client.get(f"{url}/docs/init.js", headers=headers)


async def clients_address(url: str, log: Path, name: str, headers: dict[str, str]) -> str:
    """Whom the gateway takes a request for."""
    await ask(url, {**headers, "X-Request-ID": name})
    lines: list[str] = []

    async def logged() -> bool:
        text = await asyncio.to_thread(log.read_text)
        lines[:] = [line for line in text.splitlines() if f"id={name}" in line]
        return bool(lines)

    await eventually(logged)
    return lines[0].split()[0]


async def test_a_trusted_proxy_says_who_asks_and_how(
    start_gateway: StartGateway, proxies: Path, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    url = start_gateway(proxies_dir=str(proxies), access_log=str(log))
    assert HSTS in (await ask(url, CLAIMS)).headers
    assert await clients_address(url, log, "by-a-proxy", CLAIMS) == "203.0.113.7"


async def test_what_a_client_says_before_the_proxy_does_is_not_believed(
    start_gateway: StartGateway, proxies: Path, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    url = start_gateway(proxies_dir=str(proxies), access_log=str(log))
    claims = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}
    assert await clients_address(url, log, "two-claims", claims) == "203.0.113.7"


async def test_nobody_is_believed_without_a_word_from_the_deployment(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    url = start_gateway(proxies_dir=str(tmp_path / "nothing"), access_log=str(log))
    assert HSTS not in (await ask(url, CLAIMS)).headers
    assert await clients_address(url, log, "no-proxies", CLAIMS) == "127.0.0.1"


async def test_a_trusted_proxy_without_tls_is_no_tls(start_gateway: StartGateway, proxies: Path) -> None:
    url = start_gateway(proxies_dir=str(proxies))
    response = await ask(url, {**CLAIMS, "X-Forwarded-Proto": "http"})
    assert response.status_code == 200
    assert HSTS not in response.headers
