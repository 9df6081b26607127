"""The container engine, as far as tests of the images need it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PYTHON = "python:3.11-slim-bookworm"
NGINX = "nginx:1.29-bookworm"
_DOCKER = os.environ.get("DOCKER", "docker")

# As docker-compose.yaml runs every container.
CONTAINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp")


def docker(*arguments: str, check: bool = True) -> str:
    """Standard output and error. Raises AssertionError with them when it fails."""
    done = subprocess.run([_DOCKER, *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def is_there() -> bool:
    """Whether an engine answers."""
    try:
        return subprocess.run([_DOCKER, "version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def inspect(name: str) -> dict[str, Any]:
    """An image or a container."""
    (found,) = json.loads(docker("inspect", name))
    return found  # type: ignore[no-any-return]


def built(name: str) -> str:
    """The image of a service, of `cli` or of `gateway`, with its tag for tests."""
    tag = f"devpocket-{name or 'none'}:test"
    file, more = "deploy/Dockerfile", ["--build-arg", f"SERVICE={name}"]
    if name == "gateway":
        file, more = "deploy/gateway/Dockerfile", []
    if name == "cli":
        more += ["--target", "cli"]
    options = os.environ.get("DOCKER_BUILD_ARGS", "").split()
    labels = ["--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abc"]
    docker("build", "--quiet", *options, "--file", str(ROOT / file), *more, *labels, "--tag", tag, str(ROOT))
    return tag


def megabytes_beyond(image: str, base: str) -> float:
    """What an image adds to its base."""
    return float(inspect(image)["Size"] - inspect(base)["Size"]) / 1e6


def output_of(image: str, script: str, *options: str) -> str:
    """What a shell says in it."""
    return docker("run", "--rm", *CONTAINED, *options, "--entrypoint", "sh", image, "-c", script)


@contextmanager
def running(image: str, *options: str) -> Iterator[str]:
    """A container's id; removed afterwards."""
    identifier = docker("run", "--detach", *CONTAINED, *options, image).strip()
    try:
        yield identifier
    finally:
        docker("rm", "--force", "--volumes", identifier)
