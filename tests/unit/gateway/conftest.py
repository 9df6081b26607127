"""A real nginx with the rendered configuration and nobody behind it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.cli.stack.gateway import REQUESTS_PER_SECOND, UPSTREAMS, local_config, render
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.programs import find_program
from tests.support.servers import free_port, wait_for_port

StartGateway = Callable[..., str]


def nginx(paths: StackPaths, configuration: str, *more: str) -> list[str]:
    """The command line for a configuration."""
    program = find_program("nginx")
    assert program is not None, "nginx is not installed; `make up` installs it"
    file = paths.gateway / "nginx.conf"
    file.write_text(configuration)
    (paths.gateway / "temp").mkdir(exist_ok=True)
    return [program, "-p", str(paths.gateway), "-e", "stderr", "-c", str(file), *more]


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    """An empty data folder."""
    made = StackPaths.of(tmp_path / "data")
    made.create()
    return made


@contextmanager
def _running(paths: StackPaths, changes: dict[str, Any]) -> Iterator[str]:
    port = free_port()
    config = local_config(paths, port, {name: [f"127.0.0.1:{free_port()}"] for name in UPSTREAMS}, REQUESTS_PER_SECOND)
    process = subprocess.Popen(nginx(paths, render(replace(config, **changes))), stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def start_gateway(paths: StackPaths) -> Iterator[StartGateway]:
    """`start_gateway(**changes of GatewayConfig)` gives the URL of a running gateway."""
    with ExitStack() as exits:
        yield lambda **changes: exits.enter_context(_running(paths, changes))
