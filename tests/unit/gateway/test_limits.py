"""Limits per address: who is counted together, and what happens to those above."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from libs.cli.stack.certificates import Certificate
from tests.support.app import eventually
from tests.unit.gateway.conftest import StartGateway


def assert_refused(response: httpx.Response) -> None:
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    assert response.json()["code"] == "rate_limited"


class TestRequests:
    async def statuses(self, url: str, number: int) -> list[int]:
        limits = httpx.Limits(max_connections=number)
        async with httpx.AsyncClient(limits=limits) as http:
            answers = await asyncio.gather(*(http.get(url) for _ in range(number)))
        return [answer.status_code for answer in answers]

    async def test_a_flood_of_the_api_is_refused_and_the_files_of_a_page_wait(
        self, start_gateway: StartGateway, backend: str
    ) -> None:
        url = start_gateway(behind=backend, requests_per_second=5)
        api = await self.statuses(f"{url}/api/v1/templates", 60)
        assert 11 <= api.count(200) < 60
        assert api.count(429) == 60 - api.count(200)
        assert await self.statuses(f"{url}/preview/7/3000/module.js", 8) == [200] * 8

    async def test_a_preview_has_its_limit_too(self, start_gateway: StartGateway, backend: str) -> None:
        url = start_gateway(behind=backend, requests_per_second=1)
        async with httpx.AsyncClient() as http:
            waiting = [asyncio.create_task(http.get(f"{url}/preview/7/3000/")) for _ in range(30)]
            done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            while not any(task.result().status_code == 429 for task in done):
                more, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            assert_refused(next(task.result() for task in done if task.result().status_code == 429))
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def test_an_ipv6_client_is_its_network(
        self, start_gateway: StartGateway, backend: str, tmp_path: Path
    ) -> None:
        (tmp_path / "ours.conf").write_text("set_real_ip_from 127.0.0.0/8;\nreal_ip_header X-Forwarded-For;\n")
        url = start_gateway(behind=backend, requests_per_second=1, proxies_dir=str(tmp_path))

        async def ask(address: str) -> int:
            return (await http.get(f"{url}/api/v1/templates", headers={"X-Forwarded-For": address})).status_code

        # One client, as each takes longer to make than a request, and the limit is by the second.
        async with httpx.AsyncClient() as http:
            assert 429 in await asyncio.gather(*(ask(f"2001:db8:1:2:{number}::{number}") for number in range(60)))
            assert await ask("2001:db8:1:3::1") == 200
            assert await asyncio.gather(*(ask(f"192.0.2.{number}") for number in range(12))) == [200] * 12


class TestConnections:
    async def test_what_lasts_is_counted_and_the_next_is_refused(
        self, start_gateway: StartGateway, certificate: Certificate, trust: ssl.SSLContext, backend: str
    ) -> None:
        url = start_gateway(certificate, backend, connections_per_address=3, requests_per_second=0)
        wss = url.replace("https", "wss")
        # httpx has its context say h2.
        http1 = ssl.create_default_context(cafile=certificate.certificate)

        async def accepts() -> bool:
            return (await http.get(f"{url}/api/v1/templates")).status_code == 200

        async with httpx.AsyncClient(http2=True, verify=trust) as http:
            assert await accepts()
            async with (
                connect(f"{wss}/api/v1/ws/terminal/7", ssl=http1, proxy=None),
                connect(f"{wss}/preview/7/3000/live", ssl=http1, proxy=None),
                http.stream("GET", f"{url}/api/v1/events"),
            ):
                assert_refused(await http.get(f"{url}/api/v1/templates"))
                assert_refused(await http.get(f"{url}/preview/7/3000/"))
                for path in ("/api/v1/ws/terminal/7", "/preview/7/3000/live"):
                    with pytest.raises(InvalidStatus) as refusal:
                        await connect(wss + path, ssl=http1, proxy=None)
                    assert refusal.value.response.status_code == 429
                    assert refusal.value.response.headers["Retry-After"] == "1"
            await eventually(accepts)
