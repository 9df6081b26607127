"""Starts the shim of a sandbox and waits until the sandbox is ready."""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import libs
from libs.runtime.local.cgroups import MAX_PROCESSES, Cgroups
from libs.runtime.local.environment import CARRIER, CLEAN_ENVIRONMENT, carrier_text, workspace_environment
from libs.runtime.local.isolation import Isolation
from libs.runtime.local.processes import boot_id
from libs.runtime.local.records import LOG_FILE, SHIM_ERROR_FILE
from libs.runtime.local.sandbox import WORKSPACE, MainProcess, login_shell
from libs.runtime.port import RuntimeUnavailableError, WorkspaceSpec

START_SECONDS = 15.0
_LOG_BYTES = 5 << 20
_OOM_SCORE = 300  # when the whole machine runs out of memory, sandboxes go before services
_SOURCE_ROOT = str(Path(libs.__file__).resolve().parent.parent)
_SHIM = f"import sys; sys.path.append({_SOURCE_ROOT!r}); from libs.runtime.local.shim.main import main; main()"
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGXFSZ)
_RESERVED = 9


def spawn(
    argv: Sequence[str], env: Mapping[str, str], descriptors: Mapping[int, int], *, new_session: bool = True
) -> int:
    """Start a process, in a session of its own, with exactly these descriptors (there -> here); gives its pid.

    posix_spawn takes no copy of this process, however large it is, and sets no handler of ours on the child.
    """
    # Sources move above the targets first: a target may be another's source.
    moved = {to: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _RESERVED + 1) for to, fd in descriptors.items()}
    try:
        return os.posix_spawn(
            argv[0],
            list(argv),
            dict(env),
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, source, target) for target, source in moved.items()),
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable() if fd not in moved),
            ],
            setsid=new_session,
            setsigmask=[],
            setsigdef=_DEFAULT_SIGNALS,
        )
    finally:
        for fd in moved.values():
            os.close(fd)


def _inheritable() -> list[int]:
    """What a child would get of ours: descriptors this process was started with, such as a listening socket."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        # The listing's own descriptor is closed by now.
        with contextlib.suppress(OSError):
            if os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def rlimits_without_cgroups(isolation: Isolation, memory_bytes: int) -> list[tuple[int, int]]:
    """Limits per process where there are no cgroups. RLIMIT_DATA, because RLIMIT_AS breaks Go and Node.js."""
    limits = [(resource.RLIMIT_DATA, memory_bytes)]
    # A plain user's sandboxes without a user namespace share the count with the services themselves.
    if isolation is not Isolation.PLAIN or os.geteuid() == 0:
        limits.append((resource.RLIMIT_NPROC, MAX_PROCESSES))
    return limits


def shim_config(
    spec: WorkspaceSpec,
    main: MainProcess,
    *,
    state: Path,
    workspace: Path,
    isolation: Isolation,
    uid: int,
    groups: Cgroups | None,
    cgroups: list[str],
    network: dict[str, Any] | None,
    notices: list[str],
) -> dict[str, Any]:
    """Everything the shim needs, in types that marshal knows."""
    home = str(workspace) if isolation is Isolation.PLAIN else WORKSPACE
    variables = workspace_environment(spec, home=home, shell=login_shell())
    rlimits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, spec.limits.storage_bytes)]
    if groups is None:
        rlimits += rlimits_without_cgroups(isolation, spec.limits.memory_bytes)
    limit = f"{spec.limits.memory_bytes // (1 << 20)} MiB"
    return {
        "argv": main.argv,
        "sandbox_args": main.sandbox_args,
        "files": main.files,
        "env": dict(CLEAN_ENVIRONMENT) | {CARRIER: carrier_text(variables)},
        "cgroups": cgroups,
        "rlimits": rlimits,
        "oom_score": _OOM_SCORE,
        "oom": groups.out_of_memory(cgroups) | {"limit": limit} if groups is not None else None,
        "network": network,
        "log": str(state / LOG_FILE),
        "log_bytes": _LOG_BYTES,
        "state": str(state),
        "notices": notices,
        "start_milliseconds": int(START_SECONDS * 600),  # it gives up, and explains, before we do
        "run": {
            "generation": spec.generation,
            "boot_id": boot_id(),
            "isolation": isolation.value,
            "uid": uid,
            "storage_bytes": spec.limits.storage_bytes,
            "memory_bytes": spec.limits.memory_bytes,
            "cgroups": cgroups,
            "network": network is not None,
        },
    }


def launch(config: dict[str, Any], life_lock: int) -> None:
    """Start a shim that holds `life_lock`; returns when its sandbox is ready.

    Raises RuntimeUnavailableError with the sandbox's own words when it does not come up.
    """
    errors = Path(config["state"]) / SHIM_ERROR_FILE
    config_read, config_write = os.pipe2(os.O_CLOEXEC)
    answer_read, answer_write = os.pipe2(os.O_CLOEXEC)
    error_fd = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        pid = spawn(
            [sys.executable, "-I", "-S", "-c", _SHIM],
            CLEAN_ENVIRONMENT,
            {0: config_read, 1: answer_write, 2: error_fd, 3: life_lock},
        )
        for fd in (config_read, answer_write):
            os.close(fd)
        with os.fdopen(config_write, "wb") as pipe:
            pipe.write(marshal.dumps(config))
        os.waitpid(pid, 0)  # the shim leaves us at once (double fork)
        answer = _read_answer(answer_read, START_SECONDS)
    finally:
        os.close(answer_read)
        os.close(error_fd)
    if answer != "ready":
        words = answer.removeprefix("error ") or errors.read_text(errors="replace").strip()[-500:]
        raise RuntimeUnavailableError(f"The sandbox did not start: {words or 'no answer'}.", reason="StartFailed")


def _read_answer(fd: int, timeout_seconds: float) -> str:
    """One message: the shim's words, or nothing when it ended or the time was up."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout_seconds
    text = b""
    while (left := deadline - time.monotonic()) > 0 and poll.poll(int(left * 1000)):
        part = os.read(fd, 4096)
        text += part
        if not part or text == b"ready":
            break
    return text.decode(errors="replace")
