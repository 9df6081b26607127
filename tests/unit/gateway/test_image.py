"""How the image's start script chooses a configuration, by what is mounted and what the environment says."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import httpx
import pytest

from libs.cli.stack.certificates import Certificate, own_certificate
from libs.cli.stack.gateway import UPSTREAMS
from libs.cli.stack.paths import PROJECT_ROOT
from libs.cli.stack.programs import bare_environment
from tests.support.app import eventually
from tests.support.servers import free_port, wait_for_port
from tests.unit.gateway.backend import running_backend

SYSTEM_DIRS = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Image:
    """The files of the image, somewhere else. `temp` is all that its start writes to."""

    home: Path
    temp: Path
    port: int
    tls_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def https(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}"

    def mount(self, certificate: Certificate) -> None:
        """As Kubernetes does with a Secret of the type kubernetes.io/tls."""
        (self.home / "tls").mkdir(exist_ok=True)
        shutil.copy(certificate.key, self.home / "tls" / "tls.key")
        shutil.copy(certificate.certificate, self.home / "tls" / "tls.crt")

    def start(self, output: IO[str], **settings: str) -> subprocess.Popen[bytes]:
        environment = {**bare_environment(), "GATEWAY_TLS_CHECK_SECONDS": "1", **settings, "TMPDIR": str(self.temp)}
        environment["PATH"] = f"{environment['PATH']}:{SYSTEM_DIRS}"
        argv = [str(self.home / "start.sh")]
        return subprocess.Popen(argv, env=environment, stdout=output, stderr=output)

    @contextmanager
    def running(self, **settings: str) -> Iterator[Path]:
        """Gives the file with its output."""
        log = self.temp / "output.log"
        with log.open("w") as output:
            process = self.start(output, **settings)
        try:
            wait_for_port(self.port, process)
            yield log
        finally:
            process.terminate()
            process.wait(60)

    def refusal(self, **settings: str) -> str:
        """What it says when it does not start."""
        log = self.temp / "output.log"
        with log.open("w") as output:
            assert self.start(output, **settings).wait(60) == 1
        return log.read_text()


@pytest.fixture
def image(tmp_path: Path, backend: str) -> Image:
    made = Image(tmp_path / "home", tmp_path / "temp", free_port(), free_port())
    made.home.mkdir()
    made.temp.mkdir()
    script = runpy.run_path(str(PROJECT_ROOT / "deploy" / "scripts" / "render_gateway.py"))
    place = script["Place"](
        home=str(made.home),
        temp=str(made.temp),
        listen=f"127.0.0.1:{made.port}",
        listen_tls=f"127.0.0.1:{made.tls_port}",
        upstreams={name: [backend] for name in UPSTREAMS},
    )
    script["write_files"](made.home, place)
    if os.geteuid() == 0:
        # Workers would be somebody else, whom pytest's folders are closed to.
        for file in made.home.glob("nginx*.conf"):
            file.write_text("user root;\n" + file.read_text())
    return made


async def test_replicas_come_and_go_without_a_request_being_lost(image: Image) -> None:
    """Names are looked up anew; here it is the list of them that changes."""
    alone = (image.home / "upstreams").read_text()
    servers = image.temp / "upstreams" / "envs.conf"
    with running_backend() as other, image.running(GATEWAY_LOOKUP_SECONDS="1"):
        both = alone.replace("\n", f" {other}\n")
        async with httpx.AsyncClient(base_url=image.url) as client:
            for names, count in ((both, 2), (alone, 1)):
                (image.home / "upstreams").write_text(names)

                async def looked_up(wanted: int = count) -> bool:
                    assert (await client.get("/api/v1/environments")).status_code == 200
                    return len(servers.read_text().splitlines()) == wanted

                await eventually(looked_up)


async def test_a_reload_has_clients_connect_anew(image: Image) -> None:
    """nginx closes idle connections then, also one on which a request is on its way."""
    leaving = image.temp / "leaving"
    leaving.touch()  # what an earlier end has left in the folder
    with running_backend() as other, image.running(GATEWAY_LOOKUP_SECONDS="1"):
        async with httpx.AsyncClient(base_url=image.url) as client:

            async def is_told() -> bool:
                return "close" in (await client.get("/api/v1/environments")).headers["Connection"]

            async def is_left_alone() -> bool:
                return not await is_told()

            assert not leaving.exists()
            assert not await is_told()
            names = image.home / "upstreams"
            names.write_text(names.read_text().replace("\n", f" {other}\n"))
            await eventually(is_told)
            await eventually(is_left_alone)


def test_a_service_whose_name_is_unknown_does_not_keep_the_others_from_starting(image: Image) -> None:
    names = (image.home / "upstreams").read_text()
    unknown = re.sub("^envs .*$", "envs no-such-host.invalid:8000", names, flags=re.MULTILINE)
    (image.home / "upstreams").write_text(unknown)
    with image.running():
        assert httpx.post(f"{image.url}/api/v1/auth/login").status_code == 200
        assert httpx.get(f"{image.url}/api/v1/environments").status_code == 502


def test_without_a_certificate_it_speaks_plain_http(image: Image) -> None:
    files = sorted(image.home.rglob("*"))
    with image.running():
        assert httpx.post(f"{image.url}/api/v1/auth/login").status_code == 200
        assert httpx.get(f"{image.url}/docs/init.js").status_code == 200
        assert httpx.get(f"{image.url}/docs/start.sh").status_code == 404
        with pytest.raises(httpx.ConnectError):
            httpx.get(image.https)
    assert sorted(image.home.rglob("*")) == files


def test_with_one_it_speaks_tls_and_sends_people_there(
    image: Image, certificate: Certificate, trust: ssl.SSLContext
) -> None:
    image.mount(certificate)
    with image.running(GATEWAY_TLS_PORT=str(image.tls_port)):
        link = httpx.get(f"{image.url}/docs").headers["location"]
        assert link == f"{image.https}/docs"
        with httpx.Client(http2=True, verify=trust) as client:
            answer = client.get(link)
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)


def test_the_usual_port_is_in_no_link(image: Image, certificate: Certificate) -> None:
    image.mount(certificate)
    with image.running():
        answer = httpx.get(f"{image.url}/docs", headers={"Host": "phone.example.com:8080"})
        assert answer.headers["location"] == "https://phone.example.com/docs"


async def test_a_renewed_certificate_is_taken_while_it_runs(
    image: Image, certificate: Certificate, tmp_path: Path
) -> None:
    image.mount(certificate)
    renewed = own_certificate(tmp_path / "new" / "tls.crt", "phone.example.com")
    place = urlsplit(image.https)
    address = (str(place.hostname), int(place.port or 0))

    async def shown() -> bool:
        return ssl.get_server_certificate(address) == renewed.certificate.read_text()

    with image.running() as log:
        assert ssl.get_server_certificate(address) == certificate.certificate.read_text()
        # Half-way replaced: the old one goes on.
        shutil.copy(renewed.key, image.home / "tls" / "tls.key")

        async def noticed() -> bool:
            return "cannot be used" in log.read_text()

        await eventually(noticed)
        assert not await shown()
        image.mount(renewed)
        await eventually(shown)


@pytest.mark.parametrize("missing", ["tls.key", "tls.crt"])
def test_half_a_certificate_is_no_reason_to_speak_plain_http(
    image: Image, certificate: Certificate, missing: str
) -> None:
    image.mount(certificate)
    (image.home / "tls" / missing).unlink()
    assert missing in image.refusal()


def test_it_does_not_look_without_a_pause(image: Image, certificate: Certificate) -> None:
    image.mount(certificate)
    assert "GATEWAY_TLS_CHECK_SECONDS" in image.refusal(GATEWAY_TLS_CHECK_SECONDS="0")


class TestLimits:
    def configured(self, image: Image, **settings: str) -> list[str]:
        with image.running(**settings):
            lines = (image.temp / "nginx.conf").read_text().splitlines()
        return [line.strip() for line in lines if line.strip().startswith("limit_")]

    def test_numbers_come_from_the_environment(self, image: Image) -> None:
        assert self.configured(image, GATEWAY_RATE_LIMIT="7", GATEWAY_CONNECTION_LIMIT="9") == [
            "limit_req_zone $client_network zone=requests:10m rate=7r/s;",
            "limit_req_status 429;",
            "limit_conn_zone $client_network zone=connections:10m;",
            "limit_conn_status 429;",
            "limit_req zone=requests burst=14 nodelay;",
            "limit_conn connections 9;",
            "limit_req zone=requests burst=70 delay=14;",
        ]

    def test_each_can_be_turned_off(self, image: Image) -> None:
        without_rate = self.configured(image, GATEWAY_RATE_LIMIT="0")
        assert without_rate[-1] == "limit_conn connections 1000;"
        assert not any(line.startswith("limit_req") for line in without_rate)
        assert self.configured(image, GATEWAY_RATE_LIMIT="0", GATEWAY_CONNECTION_LIMIT="0") == []

    @pytest.mark.parametrize("name", ["GATEWAY_RATE_LIMIT", "GATEWAY_CONNECTION_LIMIT"])
    def test_a_number_that_is_none_is_named(self, image: Image, name: str) -> None:
        assert name in image.refusal(**{name: "10; daemon on"})


def test_defaults_are_those_of_the_local_stack(image: Image) -> None:
    with image.running(GATEWAY_RATE_LIMIT="", GATEWAY_CONNECTION_LIMIT=""):
        configured = (image.temp / "nginx.conf").read_text()
    assert configured == (image.home / "nginx.conf").read_text()
