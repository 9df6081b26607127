"""Where a stack keeps its things: one private folder, one name per thing."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[3]
DEFAULT_DATA_DIR = Path(".devpocket")

_PRIVATE_DIR = 0o700


@dataclass(frozen=True, slots=True)
class StackPaths:
    """The layout of a data folder. `root` is absolute."""

    root: Path

    @classmethod
    def of(cls, data_dir: Path) -> StackPaths:
        """The layout below `data_dir`, which need not exist."""
        return cls(Path(data_dir).expanduser().absolute())

    @property
    def state(self) -> Path:
        """What runs: pids, ports, states; no secrets."""
        return self.root / "stack.json"

    @property
    def secrets(self) -> Path:
        """Generated credentials, made once."""
        return self.root / "secrets.json"

    @property
    def environment(self) -> Path:
        """The settings of the last start, with credentials, for commands that join the stack."""
        return self.root / "environment.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.root / "supervisor.lock"

    @property
    def control(self) -> Path:
        """The socket on which the supervisor takes orders."""
        return self.root / "control.sock"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.root / "logs"

    @property
    def mails(self) -> Path:
        """What would have been mailed, where no SMTP server is set up."""
        return self.root / "mails"

    @property
    def nats(self) -> Path:
        """Configuration and JetStream's files."""
        return self.root / "nats"

    @property
    def redis(self) -> Path:
        """Configuration and the append-only file."""
        return self.root / "redis"

    @property
    def database(self) -> Path:
        """The database's folder."""
        return self.root / "mongodb"

    @property
    def gateway(self) -> Path:
        """nginx's configuration, pid and temporary files."""
        return self.root / "gateway"

    @property
    def own_certificate(self) -> Path:
        """The gateway's, self-signed, in a folder with its key; there after `devpocket up --tls`."""
        return self.gateway / "tls" / "tls.crt"

    @property
    def runtime(self) -> Path:
        """State and workspaces of the local runtime."""
        return self.root / "runtime"

    def create(self) -> None:
        """Make the folders, readable by their owner only."""
        for folder in (self.root, self.logs, self.nats, self.redis, self.database, self.gateway):
            folder.mkdir(mode=_PRIVATE_DIR, parents=True, exist_ok=True)
        self.root.chmod(_PRIVATE_DIR)


def write_private(path: Path, text: str) -> None:
    """Replace `path` in one step, readable by its owner only: readers see the old or the new text, never half."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
