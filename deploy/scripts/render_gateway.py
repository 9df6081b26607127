"""Renders the gateway's files for its image: `render_gateway.py TARGET_FOLDER`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from libs.cli.stack.gateway import TEMPLATE, UPSTREAMS, GatewayConfig, assets_dir, render

_IN_IMAGE = "/etc/devpocket-gateway"
_PORT = 8080
_SERVICE_PORT = 8000
# A number: `auto` would count the cores of the whole machine, and each worker takes memory for all its connections.
_WORKERS = 4


def main() -> int:
    """Copies pages, assets and contract beside the rendered nginx.conf, so that the image needs nothing else."""
    target = Path(sys.argv[1])
    shutil.copytree(assets_dir(), target / "assets")
    shutil.copytree(TEMPLATE.parent, target / "pages", ignore=shutil.ignore_patterns("*.j2", "Dockerfile"))
    shutil.copy(TEMPLATE.parents[2] / "docs" / "openapi.json", target / "openapi.json")
    config = GatewayConfig(
        listen=str(_PORT),
        upstreams={name: [f"{name}:{_SERVICE_PORT}"] for name in UPSTREAMS},
        pid_path="/tmp/nginx.pid",  # noqa: S108 - the only writable place in the container
        temp_dir="/tmp",  # noqa: S108
        pages_dir=f"{_IN_IMAGE}/pages",
        assets_dir=f"{_IN_IMAGE}/assets",
        openapi_path=f"{_IN_IMAGE}/openapi.json",
        proxies_dir=f"{_IN_IMAGE}/proxies",
        worker_processes=_WORKERS,
    )
    (target / "nginx.conf").write_text(render(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
