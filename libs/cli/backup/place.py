"""What a backup is made of, or restored into: a local stack that runs, one that is down, or servers by their URLs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libs.cli.options import fail
from libs.cli.stack.credentials import Credentials, load_or_create
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.settings import operator_settings
from libs.cli.stack.state import Stack, StateFileError, load_stack

_DEFAULT_DATABASE = "devpocket"


@dataclass(frozen=True, slots=True)
class Place:
    """`settings` are what the services there get. `paths` is None for servers by their URLs, and `is_down` says whether
    those of a local stack have to be started."""

    settings: Mapping[str, str] = field(repr=False)
    paths: StackPaths | None = None
    is_down: bool = False

    @property
    def database_name(self) -> str:
        """Prefix of the databases."""
        return self.settings.get("DATABASE_NAME") or _DEFAULT_DATABASE

    @property
    def replicas(self) -> int:
        """Of each stream."""
        return int(self.settings.get("STREAM_REPLICAS") or 1)

    @property
    def runtime_dir(self) -> Path | None:
        """Where the local runtime keeps workspaces; None where they run elsewhere or cannot be reached from here."""
        named = self.settings.get("LOCAL_RUNTIME_DIR")
        if self.paths is None:
            is_here = bool(named) and Path(named or "").is_dir() and self.settings.get("RUNTIME") == "local"
            return Path(named or "") if is_here else None
        is_local = (self.settings.get("RUNTIME") or "local") == "local"
        return (Path(named) if named else self.paths.runtime) if is_local else None

    @property
    def isolation(self) -> str:
        """Which decides where below that folder they are."""
        return self.settings.get("LOCAL_RUNTIME_ISOLATION") or "auto"


def find_place(data_dir: Path, urls: Mapping[str, str], *, make: bool) -> Place:
    """By the options. `make`: a local stack need not be there yet. Ends the command when there is nothing."""
    operator = operator_settings(os.environ, Path.cwd() / ".env")
    if urls:
        return Place(_served({**operator, **urls}))
    paths = StackPaths.of(data_dir)
    stack = _stack(data_dir)
    if stack is not None and stack.alive:
        return Place(stack.environment, paths)
    has_servers = bool(operator.get("MONGODB_URL") and operator.get("NATS_URL"))
    if paths.secrets.exists() or (make and not has_servers):
        return Place(operator, paths, is_down=True)
    if not has_servers:
        fail(f"there is no stack in {data_dir}; name its folder with --data-dir, or set MONGODB_URL and NATS_URL")
    return Place(_served(operator))


def stored_credentials(paths: StackPaths) -> Credentials | None:
    """Of a stack that was started before."""
    return load_or_create(paths.secrets) if paths.secrets.exists() else None


def _stack(data_dir: Path) -> Stack | None:
    try:
        return load_stack(data_dir)
    except StateFileError as error:
        fail(str(error))


def _served(settings: Mapping[str, str]) -> Mapping[str, str]:
    missing = [name for name in ("MONGODB_URL", "NATS_URL", "SECRET_KEY") if not settings.get(name)]
    if missing:
        fail(f"{' and '.join(missing)} must be set as the services have it", code=2)
    return settings
