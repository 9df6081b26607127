"""The gateway: nginx with a configuration rendered from the one template that compose uses as well."""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from libs.cli.stack.certificates import Certificate
from libs.cli.stack.paths import PROJECT_ROOT, StackPaths, write_private
from libs.cli.stack.ports import LOOPBACK
from libs.cli.stack.probes import http_answers
from libs.cli.stack.programs import MissingProgramError, bare_environment, require_program
from libs.cli.stack.renewal import LEAVING, nginx_renewal
from libs.cli.stack.specs import ProcessSpec

TEMPLATE = PROJECT_ROOT / "deploy" / "gateway" / "nginx.conf.j2"
UPSTREAMS = ("auth", "envs", "orchestrator", "terminal")

# Carriers put some hundred phones behind one address; one that opens the app makes twenty requests, then few.
REQUESTS_PER_SECOND = 100
# Of those phones each may have several terminals and event streams open for hours.
CONNECTIONS_PER_ADDRESS = 1000
_HTTP2_DIRECTIVE_SINCE = (1, 25, 1)
_MAX_WORKERS = 4
_MAX_CONNECTIONS = 8192


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS and HTTP/2. `certificate` and `key` are PEM files. `port_in_urls` is what follows the host where clients that
    came in plain text are sent: `:8443`, or nothing for 443. nginx before 1.25.1 has no directive `http2`."""

    listen: str
    certificate: str
    key: str
    port_in_urls: str
    has_http2_directive: bool
    hsts: bool = True


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The parameters of the template.

    `listen` is for plain text; with `tls` only probes and trusted proxies are served there. `upstreams` gives the
    addresses (host:port) of each service's replicas. The limits are per client address: requests per second (twice as
    many at once before 429), and requests at the same time, open WebSockets included; 0 turns a limit off.
    `proxies_dir` may hold files that say which proxies in front are trusted. `servers_dir` holds a file of `server`
    lines for each service, kept by deploy/gateway/replicas.sh; the addresses in `upstreams` are not used then.
    """

    listen: str | None
    upstreams: Mapping[str, Sequence[str]]
    pid_path: str
    temp_dir: str
    pages_dir: str
    assets_dir: str
    openapi_path: str
    access_log: str = "/dev/stdout"
    tls: Tls | None = None
    user: str | None = None
    proxies_dir: str | None = None
    servers_dir: str | None = None
    worker_processes: int | str = "auto"
    worker_connections: int = _MAX_CONNECTIONS
    requests_per_second: int = REQUESTS_PER_SECOND
    connections_per_address: int = CONNECTIONS_PER_ADDRESS


def assets_dir() -> Path:
    """Swagger UI and ReDoc as files, from the package that carries them. Raises MissingProgramError."""
    spec = importlib.util.find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise MissingProgramError("the Python package fastapi-offline is not installed; `make up` installs it")
    return Path(spec.origin).parent / "static"


def render(config: GatewayConfig, template: Path = TEMPLATE) -> str:
    """The nginx configuration. Raises ValueError when a service has no address."""
    from jinja2 import Environment, StrictUndefined

    missing = [name for name in UPSTREAMS if not config.upstreams.get(name)]
    if missing:
        raise ValueError(f"no address for {', '.join(missing)}")
    # Nothing is HTML here, and escaping would break the paths.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    return environment.from_string(template.read_text()).render(asdict(config))


def local_config(
    paths: StackPaths,
    port: int,
    upstreams: Mapping[str, Sequence[str]],
    limits: tuple[int, int] = (REQUESTS_PER_SECOND, CONNECTIONS_PER_ADDRESS),
    certificate: Certificate | None = None,
) -> GatewayConfig:
    """For the local stack: everything below the data folder, so that a plain user can run it.

    Raises MissingProgramError.
    """
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    listen = f"{LOOPBACK}:{port}"
    return GatewayConfig(
        listen=None if certificate else listen,
        tls=_local_tls(listen, port, certificate) if certificate else None,
        upstreams=upstreams,
        requests_per_second=limits[0],
        connections_per_address=limits[1],
        pid_path=str(paths.gateway / "nginx.pid"),
        temp_dir=str(paths.gateway / "temp"),
        pages_dir=str(TEMPLATE.parent),
        assets_dir=str(assets_dir()),
        openapi_path=str(PROJECT_ROOT / "docs" / "openapi.json"),
        # As root, nginx would run its workers as another user, who may not look into the private data folder.
        user="root" if os.geteuid() == 0 else None,
        worker_processes=min(os.cpu_count() or 1, _MAX_WORKERS),
        worker_connections=min(_MAX_CONNECTIONS, open_files),
    )


def _local_tls(listen: str, port: int, certificate: Certificate) -> Tls:
    """One port for both: nginx recognises plain text, and sends it to where it came."""
    return Tls(
        listen=listen,
        certificate=str(certificate.certificate),
        key=str(certificate.key),
        port_in_urls=f":{port}",
        has_http2_directive=_nginx_version() >= _HTTP2_DIRECTIVE_SINCE,
        # A browser would remember for a year what is here for an afternoon.
        hsts=not certificate.is_self_signed,
    )


def _nginx() -> str:
    return require_program("nginx", "nginx-light")


def _nginx_version() -> tuple[int, ...]:
    shown = subprocess.run([_nginx(), "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", shown)
    # What does not say its version has been built by somebody who keeps it new.
    return tuple(map(int, found.groups())) if found else _HTTP2_DIRECTIVE_SINCE


def gateway_process(config: GatewayConfig, paths: StackPaths, port: int) -> ProcessSpec:
    """Raises MissingProgramError."""
    program = _nginx()
    Path(config.temp_dir).mkdir(mode=0o700, exist_ok=True)
    file = paths.gateway / "nginx.conf"
    write_private(file, render(config))
    # -e: before it has read the configuration, nginx would open a log that only root may write.
    argv = (program, "-p", str(paths.gateway), "-e", "stderr", "-c", str(file))
    return ProcessSpec(
        name="gateway",
        argv=argv,
        cwd=paths.gateway,
        port=port,
        ready=http_answers(port, "/health/ready", tls=config.tls is not None),
        environment=bare_environment(),
        drain_signal=signal.SIGQUIT,
        renew=nginx_renewal(
            argv,
            file,
            lambda: render(config),
            workers=int(config.worker_processes),
            leaving=Path(config.temp_dir) / LEAVING,
        ),
    )
