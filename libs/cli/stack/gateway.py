"""The gateway: nginx with a configuration rendered from the one template that compose uses as well."""

from __future__ import annotations

import importlib.util
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from libs.cli.stack.paths import PROJECT_ROOT, StackPaths, write_private
from libs.cli.stack.ports import LOOPBACK
from libs.cli.stack.probes import http_answers
from libs.cli.stack.programs import MissingProgramError, bare_environment, require_program
from libs.cli.stack.specs import ProcessSpec

TEMPLATE = PROJECT_ROOT / "deploy" / "gateway" / "nginx.conf.j2"
UPSTREAMS = ("auth", "envs", "orchestrator", "terminal")

# What an app that loads a screen does not reach, nor a few people behind one address.
REQUESTS_PER_SECOND = 100
_MAX_WORKERS = 4
_MAX_CONNECTIONS = 8192


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The parameters of the template.

    `upstreams` gives the addresses (host:port) of each service's replicas. The limits are per client address: requests
    per second (twice as many at once before 429; 0 turns both limits off), and requests at the same time, open
    WebSockets included. `proxies_dir` may hold files that say which proxies in front are trusted.
    """

    listen: str
    upstreams: Mapping[str, Sequence[str]]
    pid_path: str
    temp_dir: str
    pages_dir: str
    assets_dir: str
    openapi_path: str
    access_log: str = "/dev/stdout"
    user: str | None = None
    proxies_dir: str | None = None
    worker_processes: int | str = "auto"
    worker_connections: int = _MAX_CONNECTIONS
    requests_per_second: int = REQUESTS_PER_SECOND
    connections_per_address: int = 1000


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
    paths: StackPaths, port: int, upstreams: Mapping[str, Sequence[str]], requests_per_second: int
) -> GatewayConfig:
    """For the local stack: everything below the data folder, so that a plain user can run it."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return GatewayConfig(
        listen=f"{LOOPBACK}:{port}",
        upstreams=upstreams,
        requests_per_second=requests_per_second,
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


def gateway_process(config: GatewayConfig, paths: StackPaths, port: int) -> ProcessSpec:
    """Raises MissingProgramError."""
    program = require_program("nginx", "nginx-light")
    Path(config.temp_dir).mkdir(mode=0o700, exist_ok=True)
    file = paths.gateway / "nginx.conf"
    write_private(file, render(config))
    return ProcessSpec(
        name="gateway",
        # -e: before it has read the configuration, nginx would open a log that only root may write.
        argv=(program, "-p", str(paths.gateway), "-e", "stderr", "-c", str(file)),
        cwd=paths.gateway,
        port=port,
        ready=http_answers(port, "/health/ready"),
        environment=bare_environment(),
        drain_signal=signal.SIGQUIT,
    )
