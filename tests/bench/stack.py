"""The stack that is measured: fresh, on a port and a folder of its own, without limits."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import free_port


@dataclass(frozen=True)
class OwnStack:
    """Where it answers, its administrator, and its processes by name."""

    url: str
    email: str
    password: str
    envs_url: str
    pids: Mapping[str, int]


@contextmanager
def own_stack(**more: str) -> Iterator[OwnStack]:
    """Start it, stop it and remove its data. `more` are further settings. Raises CalledProcessError."""
    email, password = "bench@example.com", f"Aa1-{secrets.token_urlsafe(12)}"
    devpocket = str(Path(sys.executable).with_name("devpocket"))
    settings = {
        **{"ADMIN_EMAIL": email, "ADMIN_PASSWORD": password, "RATE_LIMIT_GLOBAL": "", "RATE_LIMIT_AUTH": ""},
        # No person types like that.
        "TERMINAL_MESSAGES_PER_SECOND": "1000000",
        **more,
    }
    with tempfile.TemporaryDirectory(prefix="devpocket-bench-") as folder:
        port = free_port()
        up = [devpocket, "up", "--detach", "--port", str(port), "--data-dir", folder]
        try:
            subprocess.run(up, check=True, env={**os.environ, **settings, "LOG_LEVEL": "WARNING"})
            status = subprocess.run(
                [devpocket, "status", "--json", "--data-dir", folder], check=True, capture_output=True
            )
            rows = json.loads(status.stdout)
            envs_port = next(row["port"] for row in rows if row["name"] == "envs")
            pids = {row["name"]: row["pid"] for row in rows if row["pid"] is not None}
            yield OwnStack(f"http://127.0.0.1:{port}", email, password, f"http://127.0.0.1:{envs_port}", pids)
        finally:
            subprocess.run([devpocket, "down", "--data-dir", folder], check=False)
