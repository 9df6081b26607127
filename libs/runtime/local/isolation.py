"""How strongly this machine can separate workspaces, found out by trying."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum

from libs.runtime.local.environment import CLEAN_ENVIRONMENT
from libs.runtime.port import RuntimeUnavailableError

_PROBE_SECONDS = 10
_TOOLS = {"bwrap": "bubblewrap", "nsenter": "util-linux", "setpriv": "util-linux", "setsid": "util-linux"}


class Isolation(StrEnum):
    """`ROOT`: sandbox made by root, own uid for each. `USER_NAMESPACE`: made by a plain user. `PLAIN`: none at all."""

    ROOT = "root"
    USER_NAMESPACE = "user_namespace"
    PLAIN = "plain"


class IsolationPolicy(StrEnum):
    """LOCAL_RUNTIME_ISOLATION: `require` a sandbox, take what there is (`auto`), or never try (`none`)."""

    REQUIRE = "require"
    AUTO = "auto"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found; `problem` says why there is no sandbox."""

    isolation: Isolation
    problem: str | None = None


def find_program(name: str) -> str | None:
    """Where a system program is, also for a service whose PATH lacks the sbin directories."""
    return shutil.which(name, path=CLEAN_ENVIRONMENT["PATH"] + ":/usr/local/sbin:/usr/local/bin")


def probe_isolation(policy: IsolationPolicy) -> Probe:
    """Make a sandbox and throw it away. Blocks. Raises RuntimeUnavailableError when one is required and impossible."""
    if policy is IsolationPolicy.NONE:
        return Probe(Isolation.PLAIN, "LOCAL_RUNTIME_ISOLATION=none")
    problem = _missing_tools() or _try_sandbox()
    if problem is None:
        return Probe(Isolation.ROOT if os.geteuid() == 0 else Isolation.USER_NAMESPACE)
    if policy is IsolationPolicy.REQUIRE:
        raise RuntimeUnavailableError(problem, reason="SandboxUnavailable")
    return Probe(Isolation.PLAIN, problem)


def namespace_arguments(isolation: Isolation) -> list[str]:
    """bwrap's arguments for the namespaces of a sandbox."""
    arguments = [f"--unshare-{kind}" for kind in ("pid", "ipc", "uts", "net", "cgroup-try")] + ["--die-with-parent"]
    if isolation is Isolation.USER_NAMESPACE:
        return [*arguments, "--unshare-user", "--uid", "1000", "--gid", "1000"]
    # Just enough to become the workspace's user; bwrap's init keeps none of it.
    drop = ["--cap-drop", "ALL"]
    for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
        drop += ["--cap-add", capability]
    return arguments + drop


def drop_privileges(isolation: Isolation, uid: int) -> list[str]:
    """The command prefix that turns a process inside the sandbox into the workspace's unprivileged user."""
    keep_nothing = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    if isolation is Isolation.ROOT:
        return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *keep_nothing]
    if isolation is Isolation.USER_NAMESPACE:
        return ["setpriv", *keep_nothing]
    if os.geteuid() == 0:
        return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
    return []


def _missing_tools() -> str | None:
    missing = sorted({package for tool, package in _TOOLS.items() if find_program(tool) is None})
    if missing:
        return f"Sandboxes need the packages {', '.join(missing)} (apt install {' '.join(missing)})."
    return None


def _try_sandbox() -> str | None:
    isolation = Isolation.ROOT if os.geteuid() == 0 else Isolation.USER_NAMESPACE
    command = [find_program("bwrap") or "bwrap", *namespace_arguments(isolation)]
    command += ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--"]
    if isolation is Isolation.ROOT:
        command += drop_privileges(isolation, 65534)
    try:
        done = subprocess.run(
            [*command, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(CLEAN_ENVIRONMENT),
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap does not run on this machine: {error}"
    if done.returncode == 0:
        return None
    words = done.stderr.decode(errors="replace").strip()[-300:]
    if isolation is Isolation.ROOT:
        return f"bwrap cannot make a sandbox ({words}). In a container, start it privileged, or use RUNTIME=kubernetes."
    return (
        f"bwrap cannot make a sandbox ({words}). Allow unprivileged user namespaces "
        "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
        "kernel.apparmor_restrict_unprivileged_userns), or run as root."
    )
