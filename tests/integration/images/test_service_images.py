"""The images as an engine builds and runs them. Takes minutes, so only with TEST_IMAGES=1, and where Docker is.

The bases are whatever has their names: the originals, or stand-ins by deploy/images/standins/build.sh.
"""

from __future__ import annotations

import os
import re

import pytest

from tests.integration.images.engine import (
    NGINX,
    PYTHON,
    built,
    docker,
    inspect,
    is_there,
    megabytes_beyond,
    output_of,
    running,
)
from tests.support.app import eventually

pytestmark = [
    pytest.mark.skipif(os.environ.get("TEST_IMAGES") != "1", reason="TEST_IMAGES=1 builds and runs the images"),
    pytest.mark.skipif(not is_there(), reason="no container engine answers"),
    pytest.mark.timeout(1200),
]

SERVICES = ("auth", "envs", "orchestrator", "terminal")
EVERY = (*SERVICES, "cli", "gateway")
SECRET = "s" * 40
MOST_MB = 200
# A volume or memory in a container that runs; whatever else the user could change would be somebody else's.
WRITABLE = ("/tmp", "/var/tmp", "/run/lock", "/var/lib/devpocket", "/backups")


@pytest.fixture(scope="module", params=EVERY)
def image(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Its name and tag."""
    return request.param, built(request.param)


async def test_it_is_small_labelled_and_runs_as_a_plain_user(image: tuple[str, str]) -> None:
    name, tag = image
    size = megabytes_beyond(tag, NGINX if name == "gateway" else PYTHON)
    print(f"\n{name}: {size:.0f} MB beyond its base")  # noqa: T201
    assert size < MOST_MB
    config = inspect(tag)["Config"]
    assert config["User"] == ("101:101" if name == "gateway" else "10001:10001")
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == "abc"
    assert not [line for line in config["Env"] if re.match("PIP_|SECRET|.*PASSWORD", line)]


async def test_it_holds_its_own_service_and_nothing_to_build_with(image: tuple[str, str]) -> None:
    name, tag = image
    if name == "gateway":
        assert "start.sh" in output_of(tag, "ls /etc/devpocket-gateway")
        return
    code = set(output_of(tag, "cd /app/services && ls -d */").replace("/", "").split()) - {"__pycache__"}
    assert code == (set(SERVICES) if name == "cli" else {name})
    assert "tests" not in output_of(tag, "ls /app")
    tests_of_packages = "find / -xdev -type d -name tests -path '*site-packages*' 2>/dev/null"
    assert output_of(tag, f"command -v pip pip3 gcc cc make; {tests_of_packages}; true") == ""
    find_writable = "find / -xdev -writable ! -type l ! -path '/proc/*' ! -path '/dev/*' 2>/dev/null; true"
    writable = output_of(tag, find_writable).split()
    assert [path for path in writable if not path.startswith(WRITABLE)] == []


async def test_a_service_starts_contained_says_that_it_lives_and_ends_when_told(image: tuple[str, str]) -> None:
    name, tag = image
    if name == "cli":
        assert "users" in docker("run", "--rm", tag)
        return
    settings = ("--env", f"SECRET_KEY={SECRET}", "--env", "ENVIRONMENT=production")
    with running(tag, *settings) as container:

        async def healthy() -> bool:
            state = inspect(container)["State"]
            assert state["Running"], docker("logs", container)
            return bool(state["Health"]["Status"] == "healthy")

        # Its servers are not there, which is for readiness to say.
        await eventually(healthy, timeout_s=90)
        first = docker("exec", container, "cat", "/proc/1/cmdline")
        assert ("nginx" if name == "gateway" else "http.server") in first
        docker("stop", "--time", "30", container)
        state = inspect(container)["State"]
        assert state["ExitCode"] in {0, 143}, docker("logs", container)
        assert not state["OOMKilled"]


@pytest.mark.parametrize("service", ["", "billing"])
async def test_a_build_without_a_service_says_which_there_are(service: str) -> None:
    with pytest.raises(AssertionError, match=r"auth\|envs\|orchestrator\|terminal"):
        built(service)
