"""Renders the gateway's files for its image: `render_gateway.py TARGET_FOLDER`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from libs.cli.stack.gateway import TEMPLATE, UPSTREAMS, GatewayConfig, Tls, assets_dir, render

_SERVICE_PORT = 8000
# A number: `auto` would count the cores of the whole machine, and each worker takes memory for all its connections.
_WORKERS = 4
_NOT_SERVED = ("*.j2", "Dockerfile", "*.sh")


def _by_name() -> dict[str, Sequence[str]]:
    return {name: [f"{name}:{_SERVICE_PORT}"] for name in UPSTREAMS}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files will be, and what is around them. In `home`, tls/ and proxies/ may be mounted as well."""

    home: str = "/etc/devpocket-gateway"
    temp: str = "/tmp"  # noqa: S108 - the only writable place in the container
    listen: str = "8080"
    listen_tls: str = "8443"
    upstreams: Mapping[str, Sequence[str]] = field(default_factory=_by_name)


def write_files(target: Path, place: Place = Place()) -> None:
    """Pages, assets, contract, the scripts, names of the services, and a configuration for each case they know."""
    shutil.copytree(assets_dir(), target / "assets")
    shutil.copytree(TEMPLATE.parent, target / "pages", ignore=shutil.ignore_patterns(*_NOT_SERVED))
    shutil.copy(TEMPLATE.parents[2] / "docs" / "openapi.json", target / "openapi.json")
    for script in ("start.sh", "replicas.sh"):
        shutil.copy(TEMPLATE.with_name(script), target)
    lines = (" ".join((name, *addresses)) for name, addresses in place.upstreams.items())
    (target / "upstreams").write_text("".join(f"{line}\n" for line in lines))
    plain = GatewayConfig(
        listen=place.listen,
        upstreams=place.upstreams,
        pid_path=f"{place.temp}/nginx.pid",
        temp_dir=place.temp,
        pages_dir=f"{place.home}/pages",
        assets_dir=f"{place.home}/assets",
        openapi_path=f"{place.home}/openapi.json",
        proxies_dir=f"{place.home}/proxies",
        servers_dir=f"{place.temp}/upstreams",
        worker_processes=_WORKERS,
    )
    tls = Tls(
        listen=place.listen_tls,
        certificate=f"{place.home}/tls/tls.crt",
        key=f"{place.home}/tls/tls.key",
        port_in_urls="",
        has_http2_directive=True,
    )
    (target / "nginx.conf").write_text(render(plain))
    (target / "nginx-tls.conf").write_text(render(replace(plain, tls=tls)))
    older = replace(plain, tls=replace(tls, has_http2_directive=False))
    (target / "nginx-tls-before-1.25.conf").write_text(render(older))


if __name__ == "__main__":
    write_files(Path(sys.argv[1]))
