"""Every kind of gateway that there is, as nginx reads it, and what has to hold in each."""

from __future__ import annotations

import itertools
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.cli.stack.certificates import Certificate
from libs.cli.stack.gateway import UPSTREAMS, local_config, render
from libs.cli.stack.paths import StackPaths
from libs.common.http.server import WS_PING_S, WS_PING_TIMEOUT_S
from tests.unit.gateway.conftest import nginx

ONE = {name: [f"127.0.0.{number}:8000"] for number, name in enumerate(UPSTREAMS, start=1)}
SEVERAL = {name: [*addresses, "127.0.0.9:8000"] for name, addresses in ONE.items()}
LIMITS = [(100, 1000), (100, 0), (0, 1000), (0, 0)]
# What else nginx 1.22 would say of a directive that it takes differently than we mean it.
_UNHAPPY = re.compile(r"\[(warn|emerg|crit|error)\]")


@pytest.mark.parametrize("proxies", [True, False], ids=["proxies", "direct"])
@pytest.mark.parametrize("tls", [None, "tls only", "both"])
def test_nginx_accepts_it_without_a_warning(
    paths: StackPaths, certificate: Certificate, tls: str | None, proxies: bool
) -> None:
    folder = Path(paths.gateway / "proxies")
    folder.mkdir()
    (folder / "ours.conf").write_text("set_real_ip_from 10.0.0.0/8;\n")
    more: dict[str, Any] = {"proxies_dir": str(folder)} if proxies else {}
    if tls == "both":
        more["listen"] = "127.0.0.1:8080"
    for limits, upstreams in itertools.product(LIMITS, [ONE, SEVERAL]):
        config = local_config(paths, 8123, upstreams, limits, certificate if tls else None)
        text = render(replace(config, **more))
        result = subprocess.run(nginx(paths, text, "-t"), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert not _UNHAPPY.search(result.stderr), result.stderr


@pytest.mark.parametrize(("limits", "directives"), zip(LIMITS, ["req conn", "req", "conn", ""], strict=True))
def test_each_limit_can_be_turned_off(paths: StackPaths, limits: tuple[int, int], directives: str) -> None:
    text = render(local_config(paths, 8123, ONE, limits))
    assert set(re.findall(r"^ *limit_(req|conn) ", text, re.MULTILINE)) == set(directives.split())


def test_the_directive_for_http2_is_the_one_that_this_nginx_knows(paths: StackPaths, certificate: Certificate) -> None:
    config = local_config(paths, 8123, ONE, certificate=certificate)
    assert config.tls is not None
    newer = render(replace(config, tls=replace(config.tls, has_http2_directive=True)))
    older = render(replace(config, tls=replace(config.tls, has_http2_directive=False)))
    assert "listen 127.0.0.1:8123 default_server ssl backlog=1024;\n        http2 on;\n" in newer
    assert "listen 127.0.0.1:8123 default_server ssl http2 backlog=1024;\n" in older
    assert "http2 on" not in older


def _locations(text: str) -> dict[str, dict[str, str]]:
    """The directives of each location, by its address."""
    blocks = re.findall(r"^        location ([^{]+) \{\n(.*?)^        \}", text, re.MULTILINE | re.DOTALL)
    return {address: dict(re.findall(r"^ +([a-z_]+) ([^;]+);", body, re.MULTILINE)) for address, body in blocks}


def test_silence_that_a_ping_would_break_cuts_no_connection(paths: StackPaths) -> None:
    locations = _locations(render(local_config(paths, 8123, ONE)))
    sockets = ["~ ^/api/v1/ws/", "^~ /preview/"]
    event_streams = "~ ^/api/v1/(?:events|environments/[^/]+/events)/?$"
    # Until a service gives up on a client that does not answer.
    patience = WS_PING_S + WS_PING_TIMEOUT_S
    for address in [*sockets, event_streams]:
        for directive in ("proxy_read_timeout", "proxy_send_timeout"):
            assert int(locations[address][directive].removesuffix("s")) > 10 * patience, address
    for address in sockets:
        assert int(locations[address]["send_timeout"].removesuffix("s")) > patience, address


def test_who_sends_slowly_is_cut_off(paths: StackPaths) -> None:
    text = render(local_config(paths, 8123, ONE))
    for directive, at_most in {
        "client_header_timeout": 15,
        "client_body_timeout": 30,
        "send_timeout": 60,
        "keepalive_timeout": 75,
    }.items():
        found = re.search(rf"^    {directive} (\d+)s;", text, re.MULTILINE)
        assert found is not None
        assert int(found[1]) <= at_most
