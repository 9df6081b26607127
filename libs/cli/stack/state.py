"""What a stack says about itself: `stack.json` (no secrets) and the settings for commands that join it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from libs.cli.stack.paths import StackPaths, write_private
from libs.cli.stack.processes import ProcessIdentity, is_alive

_FORMAT = 1


class State(StrEnum):
    """Of a process, and of the whole stack."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process as last seen by the supervisor. `identity` is None while it does not run."""

    name: str
    port: int | None
    state: State = State.STARTING
    identity: ProcessIdentity | None = None
    restarts: int = 0

    @property
    def pid(self) -> int | None:
        """The pid, when it runs."""
        return self.identity.pid if self.identity else None


@dataclass(frozen=True, slots=True)
class StackState:
    """The content of `stack.json`. `connections` holds URLs without user names and passwords."""

    url: str
    port: int
    state: State
    supervisor: ProcessIdentity
    reason: str | None = None
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    processes: tuple[ProcessRecord, ...] = ()
    connections: Mapping[str, str] = field(default_factory=dict)

    def with_process(self, record: ProcessRecord) -> StackState:
        """The state with one record replaced or added."""
        known = [item for item in self.processes if item.name != record.name]
        position = next((i for i, item in enumerate(self.processes) if item.name == record.name), len(known))
        return replace(self, processes=(*known[:position], record, *known[position:]))

    def ports(self) -> dict[str, int]:
        """Ports by process name."""
        return {item.name: item.port for item in self.processes if item.port}


class StateFileError(Exception):
    """The file is there but cannot be understood; the text says which and what to do."""


def save_state(path: Path, state: StackState) -> None:
    """Replace the file in one step."""
    write_private(path, json.dumps({"format": _FORMAT, **asdict(state)}, indent=2))


def load_state(path: Path) -> StackState | None:
    """The last state written; None when no stack was ever started here. Raises StateFileError."""
    try:
        raw = json.loads(path.read_text())
        if raw.pop("format") != _FORMAT:
            raise StateFileError(f"{path} was written by another version of devpocket; stop that stack, then remove it")
        return _decode(raw)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StateFileError(f"{path} is damaged ({error}); remove it when no stack runs there") from error


def _decode(raw: dict[str, Any]) -> StackState:
    processes = tuple(
        ProcessRecord(
            **{**item, "state": State(item["state"]), "identity": _identity(item["identity"])},
        )
        for item in raw["processes"]
    )
    supervisor = ProcessIdentity(**raw["supervisor"])
    return StackState(**{**raw, "state": State(raw["state"]), "supervisor": supervisor, "processes": processes})


def _identity(raw: dict[str, Any] | None) -> ProcessIdentity | None:
    return ProcessIdentity(**raw) if raw else None


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack found in a data folder. `environment` holds the full settings, credentials included."""

    paths: StackPaths
    state: StackState
    environment: Mapping[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        """Of the gateway."""
        return self.state.url

    @property
    def alive(self) -> bool:
        """Whether its supervisor runs."""
        return is_alive(self.state.supervisor)


def load_stack(data_dir: Path) -> Stack | None:
    """The stack recorded in `data_dir`, running or not; None when there never was one. Raises StateFileError."""
    paths = StackPaths.of(data_dir)
    state = load_state(paths.state)
    if state is None:
        return None
    try:
        environment = json.loads(paths.environment.read_text())
    except FileNotFoundError:
        environment = {}
    except ValueError as error:
        raise StateFileError(f"{paths.environment} is damaged ({error}); `devpocket up` writes it anew") from error
    return Stack(paths, state, environment)
