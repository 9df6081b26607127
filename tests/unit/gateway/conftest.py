"""A real nginx with the rendered configuration, and nobody behind it unless a test says so."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from libs.cli.stack.certificates import Certificate, own_certificate
from libs.cli.stack.gateway import UPSTREAMS, Tls, local_config, render
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.programs import find_program
from tests.support.servers import free_port, wait_for_port
from tests.unit.gateway.backend import running_backend

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
    return _folders(tmp_path)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """As `devpocket up --tls` makes one."""
    return own_certificate(tmp_path_factory.mktemp("tls") / "tls" / "tls.crt", "phone.example.com")


@pytest.fixture
def trust(certificate: Certificate) -> ssl.SSLContext:
    """A client that knows the certificate, and nobody else."""
    return ssl.create_default_context(cafile=certificate.certificate)


@pytest.fixture(scope="session")
def backend() -> Iterator[str]:
    """The address of a service that takes everything."""
    with running_backend() as address:
        yield address


@dataclass(frozen=True)
class Beside:
    """A gateway with TLS at a port of its own, as in the image: where it speaks plain text, and where it does not."""

    plain: str
    secure: str


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate, backend: str) -> Iterator[str]:
    """The URL of a gateway with TLS and a service behind it, as in the local stack."""
    with _running(_folders(tmp_path_factory.mktemp("secure")), {}, certificate, backend) as url:
        yield url


@pytest.fixture(scope="session")
def beside(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate, backend: str) -> Iterator[Beside]:
    """It trusts 127.0.0.2 as a proxy, and promises TLS for ever."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "ours.conf").write_text("set_real_ip_from 127.0.0.2;\nreal_ip_header X-Forwarded-For;\n")
    port = free_port()
    tls = Tls(f"127.0.0.1:{port}", str(certificate.certificate), str(certificate.key), f":{port}", False)
    with _running(_folders(folder), {"tls": tls, "proxies_dir": str(folder)}, None, backend) as url:
        yield Beside(url, f"https://127.0.0.1:{port}")


def _folders(root: Path) -> StackPaths:
    made = StackPaths.of(root / "data")
    made.create()
    return made


@contextmanager
def _running(
    paths: StackPaths, changes: dict[str, Any], certificate: Certificate | None, behind: str | None
) -> Iterator[str]:
    port = free_port()
    upstreams = {name: [behind or f"127.0.0.1:{free_port()}"] for name in UPSTREAMS}
    config = local_config(paths, port, upstreams, certificate=certificate)
    process = subprocess.Popen(nginx(paths, render(replace(config, **changes))), stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def start_gateway(paths: StackPaths) -> Iterator[StartGateway]:
    """`start_gateway(**changes of GatewayConfig)` gives the URL of a running gateway; `certificate` makes it https,
    `behind` is the address of what stands behind it."""
    with ExitStack() as exits:

        def start(certificate: Certificate | None = None, behind: str | None = None, **changes: Any) -> str:
            return exits.enter_context(_running(paths, changes, certificate, behind))

        yield start
