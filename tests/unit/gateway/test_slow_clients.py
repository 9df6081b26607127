"""Who holds a connection and never gets to the point is cut off. With a shorter time than the real one."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import Iterator

import pytest

from libs.cli.stack.certificates import Certificate
from libs.cli.stack.gateway import UPSTREAMS, local_config, render
from libs.cli.stack.paths import StackPaths
from tests.support.servers import free_port, wait_for_port
from tests.unit.gateway.conftest import nginx

_ALLOWED_S = 1.0
# A busy machine is late; without the limit it would be a minute or for ever.
_PATIENCE_S = 50.0


@pytest.fixture
def port(paths: StackPaths, certificate: Certificate) -> Iterator[int]:
    chosen = free_port()
    upstreams = {name: [f"127.0.0.1:{free_port()}"] for name in UPSTREAMS}
    text = render(local_config(paths, chosen, upstreams, certificate=certificate))
    assert "client_header_timeout 15s;" in text
    text = text.replace("client_header_timeout 15s;", f"client_header_timeout {_ALLOWED_S:.0f}s;")
    process = subprocess.Popen(nginx(paths, text), stdout=subprocess.DEVNULL)
    try:
        wait_for_port(chosen, process)
        yield chosen
    finally:
        process.terminate()
        process.wait(60)


async def seconds_until_cut(port: int, context: ssl.SSLContext | None, dribble: bytes) -> float:
    """Sends `dribble` byte by byte for as long as the gateway listens."""
    started = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except (ConnectionError, ssl.SSLError):  # on a very busy machine its handshake takes as long
        return time.monotonic() - started
    closed = asyncio.create_task(reader.read(-1))
    try:
        async with asyncio.timeout(_PATIENCE_S):
            for byte in dribble:
                writer.write(bytes([byte]))
                done, _ = await asyncio.wait([closed], timeout=0.2)
                if done:
                    break
            await asyncio.wait([closed])
    finally:
        writer.transport.abort()
        await asyncio.gather(closed, return_exceptions=True)
    return time.monotonic() - started


async def test_a_client_that_never_gets_to_the_point_is_cut_off(port: int, certificate: Certificate) -> None:
    http2 = ssl.create_default_context(cafile=certificate.certificate)
    http2.set_alpn_protocols(["h2"])
    http1 = ssl.create_default_context(cafile=certificate.certificate)
    lasted = await asyncio.gather(
        seconds_until_cut(port, None, b""),
        seconds_until_cut(port, None, b"\x16\x03\x01"),
        seconds_until_cut(port, http1, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 500),
        seconds_until_cut(port, http2, b"PRI * HTTP/2"),
    )
    assert all(_ALLOWED_S * 0.9 <= seconds < _PATIENCE_S for seconds in lasted), lasted
