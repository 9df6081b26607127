"""What is written down about a workspace: the wish (spec.json), the run (run.json) and how it ended (exit.json)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from libs.runtime.local.layout import read_json, write_atomic
from libs.runtime.port import WorkspaceLimits, WorkspaceRef, WorkspaceSpec

SPEC_FILE = "spec.json"
RUN_FILE = "run.json"
EXIT_FILE = "exit.json"
STOP_FILE = "stop"
SHIM_LOCK_FILE = "shim.lock"
SHIM_ERROR_FILE = "shim.err"
LOG_FILE = "log"

_Record = TypeVar("_Record", "RunRecord", "ExitRecord")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One life of a sandbox. Pids are the host's; `init_start` (clock ticks since boot) tells a reused pid apart.

    `isolation` is a value of `Isolation`; `cgroups` are directories, empty when limits are rlimits.
    """

    generation: int
    boot_id: str
    isolation: str
    uid: int
    storage_bytes: int
    memory_bytes: int
    cgroups: list[str]
    network: bool
    shim_pid: int
    init_pid: int
    init_start: int
    main_pid: int
    started_at: float


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How a run ended; `at` is seconds since the epoch."""

    code: int
    reason: str
    message: str
    at: float


def save_spec(state: Path, spec: WorkspaceSpec) -> None:
    """Write the wish; it holds user variables, so the file is 0600."""
    document = {
        "environment_id": spec.ref.environment_id,
        "user_id": spec.ref.user_id,
        "cluster": spec.ref.cluster,
        "generation": spec.generation,
        "name": spec.name,
        "image": spec.image,
        "limits": asdict(spec.limits),
        "variables": dict(spec.variables),
        "startup_command": spec.startup_command,
    }
    write_atomic(state / SPEC_FILE, json.dumps(document))


def load_spec(state: Path) -> WorkspaceSpec | None:
    """The last wish, or None when there is none or a crash tore it."""
    document = read_json(state / SPEC_FILE)
    if document is None:
        return None
    try:
        return WorkspaceSpec(
            ref=WorkspaceRef(document["environment_id"], document["user_id"], document["cluster"]),
            generation=document["generation"],
            name=document["name"],
            image=document["image"],
            limits=WorkspaceLimits(**document["limits"]),
            variables=document["variables"],
            startup_command=document["startup_command"],
        )
    except (KeyError, TypeError):
        return None


def load_run(state: Path) -> RunRecord | None:
    """The current or last run, as its shim wrote it."""
    return _load(RunRecord, read_json(state / RUN_FILE))


def load_exit(state: Path) -> ExitRecord | None:
    """How the last run ended, if its shim lived to say so."""
    return _load(ExitRecord, read_json(state / EXIT_FILE))


def _load(kind: type[_Record], document: dict[str, Any] | None) -> _Record | None:
    if document is None:
        return None
    try:
        return kind(**{f.name: document[f.name] for f in fields(kind)})
    except (KeyError, TypeError):
        return None
