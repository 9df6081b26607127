"""`devpocket up --tls`, with stand-ins for the services."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import httpx

from libs.cli.demo.trust import client_context
from libs.cli.stack.certificates import read_certificate
from tests.integration.stack.harness import READY, devpocket, running


def test_a_stack_with_tls_is_ready_at_https_and_its_clients_know_it(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--tls") as stack:
        ready = READY.search(stack.lines[-1])
        assert ready is not None
        url = ready[1]
        assert url == stack.stack.url == f"https://127.0.0.1:{stack.port}"
        own = stack.paths.own_certificate
        key = own.with_suffix(".key")
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        shown = next(line for line in stack.lines if "SHA-256" in line)
        assert read_certificate(own, key).fingerprint in shown
        context = client_context(url, stack.data_dir, None)
        assert context is not None
        with httpx.Client(http2=True, verify=context, timeout=30) as client:
            assert client.get(f"{url}/api/v1/auth/me").json()["headers"]["x-forwarded-proto"] == "https"
        plain = httpx.get(f"http://127.0.0.1:{stack.port}/docs", timeout=30)
        assert (plain.status_code, plain.headers["location"]) == (308, f"{url}/docs")
        assert re.search(rf"^{url} ", devpocket("status", "--data-dir", str(stack.data_dir)).stdout)
        # Somebody else's data folder, and nothing says whom to trust.
        stranger = devpocket("demo", "--url", url, "--data-dir", str(tmp_path / "other"))
        assert stranger.returncode == 1
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.stderr
