"""One stack for a run: the real supervisor, several replicas of each service, and where to find all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from libs.cli.stack.paths import PROJECT_ROOT, StackPaths
from libs.cli.stack.processes import is_alive, send
from libs.cli.stack.settings import KNOWN
from libs.cli.stack.specs import SERVICES
from libs.cli.stack.state import ProcessRecord, Stack, State, load_stack, load_state
from tests.support.servers import free_port

SERVICE_NAMES = tuple(spec.name for spec in SERVICES)
INFRASTRUCTURE_NAMES = ("nats", "mongodb", "redis")

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.1

# What makes a run shorter without making it kinder; see the settings of each service.
QUICK_SETTINGS = {
    "RATE_LIMIT_GLOBAL": "",
    "RATE_LIMIT_AUTH": "",
    "PASSWORD_HASH_COST": "4",
    # No token may expire during a run: a 401 always means something.
    "ACCESS_TOKEN_EXPIRE_MINUTES": "1440",
    "RESYNC_INTERVAL_SECONDS": "5",
    "ORPHAN_SCAN_INTERVAL_SECONDS": "10",
    "METRICS_INTERVAL_SECONDS": "20",
    "TERMINAL_DETACHED_SECONDS": "10",
}


class ChaosStack:
    """Starts it, finds its processes, stops it. `settings` are environment variables for all of its processes."""

    def __init__(self, data_dir: Path, *, replicas: int, settings: Mapping[str, str]) -> None:
        self.paths = StackPaths.of(data_dir)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.notes = self.paths.root / "chaos"
        self._replicas = replicas
        # A service that is killed every few seconds should not compile its modules each time.
        left_out = {*KNOWN, "PYTHONDONTWRITEBYTECODE"}
        inherited = {name: value for name, value in os.environ.items() if name not in left_out}
        self._environment = {
            **inherited,
            "PYTHONPATH": str(PROJECT_ROOT),
            **QUICK_SETTINGS,
            "CHAOS_DIR": str(self.notes),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def replicas(self) -> list[str]:
        """Names of the processes that run services."""
        if self._replicas == 1:
            return list(SERVICE_NAMES)
        return [f"{name}-{number}" for name in SERVICE_NAMES for number in range(1, self._replicas + 1)]

    def up(self) -> None:
        """Returns once it works. Raises RuntimeError with what the supervisor said."""
        self.notes.mkdir(parents=True, exist_ok=True)
        where = ("--port", str(self.port), "--data-dir", str(self.paths.root), "--replicas", str(self._replicas))
        with (self.notes / "supervisor.log").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.up", *where],
                cwd=self.paths.root.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the stack did not come up:\n{(self.notes / 'supervisor.log').read_text()}")
            time.sleep(_POLL_S)

    def _is_up(self) -> bool:
        state = load_state(self.paths.state)
        return state is not None and state.state is State.RUNNING

    def down(self) -> None:
        """Stop it; afterwards none of its processes runs. Raises RuntimeError otherwise."""
        process, self._process = self._process, None
        if process is None:
            return
        for record in self.processes().values():
            if record.identity is not None:
                send(record.identity, signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RuntimeError("the supervisor did not stop and was killed") from None

    def note(self, text: str) -> None:
        """Write it down with the time (UTC, as in the logs): to be read beside them."""
        with (self.notes / "faults.log").open("a") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {text}\n")

    @property
    def stack(self) -> Stack:
        """As other commands find it."""
        found = load_stack(self.paths.root)
        assert found is not None
        return found

    def processes(self) -> dict[str, ProcessRecord]:
        """What the supervisor knows of its processes now, by name."""
        state = load_state(self.paths.state)
        return {record.name: record for record in state.processes} if state is not None else {}

    def not_running(self) -> list[str]:
        """Names of processes that are away or not yet ready again."""
        return [
            record.name
            for record in self.processes().values()
            if record.state is not State.RUNNING or record.identity is None or not is_alive(record.identity)
        ]
