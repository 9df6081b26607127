"""Starting a process inside a running workspace. Blocking code: the driver calls it in threads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from libs.runtime.local.environment import CARRIER, CLEAN_ENVIRONMENT, ENTER_SCRIPT, carrier_text, workspace_environment
from libs.runtime.local.isolation import Isolation, drop_privileges, find_program
from libs.runtime.local.launcher import rlimits_without_cgroups, spawn
from libs.runtime.local.processes import ProcessInfo, is_alive, open_pidfd, parse_stat
from libs.runtime.local.records import RunRecord
from libs.runtime.local.sandbox import WORKSPACE, login_shell
from libs.runtime.port import TerminalSize, WorkspaceNotRunningError, WorkspaceSpec

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_NS_GET_USERNS = 0xB701
_NAMESPACES = {"mnt": "mount", "uts": "uts", "ipc": "ipc", "net": "net", "pid": "pid", "cgroup": "cgroup"}
# Longer than a line of /proc/<pid>/stat.
_STATUS_BYTES = 4096
_RLIMIT_NAMES = {2: "data", 6: "nproc"}
# Runs on the host, as the service's user, with nothing of the user's in reach: joins the cgroups, takes the limits.
_OUTSIDE_SCRIPT = (
    'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 125; shift; done; shift; '
    'echo 300 > /proc/self/oom_score_adj; ulimit -c 0; ulimit -f "$1"; shift; exec "$@"'
)


@dataclass(slots=True)
class Anchor:
    """Handles on one sandbox's namespaces, taken while it was certain whose they are.

    A pid alone would not do: by the time nsenter looks, it could belong to a process of the host.
    """

    init_handle: int
    namespaces: dict[str, int] = field(default_factory=dict)
    inner_user: int = -1

    @classmethod
    def take(cls, run: RunRecord) -> Anchor:
        """Raises WorkspaceNotRunningError when the sandbox is gone."""
        handle = open_pidfd(run.init_pid, run.init_start)
        if handle is None:
            raise WorkspaceNotRunningError("The workspace has just ended.")
        anchor = cls(handle)
        try:
            if run.isolation != Isolation.PLAIN:
                anchor._open_namespaces(run)
            # Still the same process after the last open: then all of them were its own.
            anchor.check(run)
        except (OSError, WorkspaceNotRunningError) as error:
            anchor.release()
            raise WorkspaceNotRunningError("The workspace has just ended.") from error
        return anchor

    def check(self, run: RunRecord) -> None:
        """Raises WorkspaceNotRunningError when the sandbox ended meanwhile."""
        if not is_alive(run.init_pid, run.init_start):
            raise WorkspaceNotRunningError("The workspace has just ended.")

    def _open_namespaces(self, run: RunRecord) -> None:
        for kind, option in _NAMESPACES.items():
            self.namespaces[option] = os.open(f"/proc/{run.init_pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        # Joining a mount namespace leads to its topmost root. That is the sandbox's own only when the services
        # themselves run at the top: inside a chroot it would be the machine's.
        root = os.open(f"/proc/{run.init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.namespaces["root"] = root
        if run.isolation == Isolation.USER_NAMESPACE:
            # bwrap nests two user namespaces: the outer owns the mounts, the inner is where the user lives.
            self.namespaces["user"] = fcntl.ioctl(self.namespaces["mount"], _NS_GET_USERNS)
            self.inner_user = os.open(f"/proc/{run.init_pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def release(self) -> None:
        """Close every handle."""
        for fd in (self.init_handle, *self.namespaces.values(), self.inner_user):
            if fd >= 0:
                os.close(fd)
        self.init_handle = self.inner_user = -1
        self.namespaces = {}


@dataclass(slots=True)
class Entered:
    """A process on its way into a workspace. `handle` is the pidfd of `pid`, which stands for it on the host.

    `status` becomes readable when the command is about to run or never will; `leader` is what it says then.
    With a terminal `stdin` and `stdout` are the same descriptor, and `stderr` is -1.
    """

    pid: int
    handle: int
    status: int
    stdin: int
    stdout: int
    stderr: int
    anchor: Anchor
    run: RunRecord

    def leader(self) -> ProcessInfo | None:
        """The first process of the session that was entered; None when its command will not run."""
        told = parse_stat(os.read(self.status, _STATUS_BYTES))
        # On the host it must be our child: whatever else the user's processes may have written there is none of theirs.
        is_ours = told is not None and (self.run.isolation != Isolation.PLAIN or told.pid == self.pid)
        return told if is_ours else None


def enter(
    run: RunRecord,
    spec: WorkspaceSpec,
    workspace: Path,
    argv: Sequence[str] | None,
    *,
    tty: bool,
    size: TerminalSize,
    env: Mapping[str, str],
) -> Entered:
    """Start `argv` (or a login shell). Raises WorkspaceNotRunningError, WorkspaceRejectedError, OSError."""
    plain = run.isolation == Isolation.PLAIN
    shell = login_shell()
    variables = workspace_environment(spec, home=str(workspace) if plain else WORKSPACE, shell=shell) | dict(env)
    environment = dict(CLEAN_ENVIRONMENT) | {CARRIER: carrier_text(variables)}
    anchor = Anchor.take(run)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(anchor.release)
        ends = _open_terminal(run, size) if tty else _open_pipes()
        (stdin, stdout, stderr), theirs = ends
        ours = {stdin, stdout, stderr} - {-1}
        for fd in ours:
            on_failure.callback(os.close, fd)
        # The terminal was opened by a path with a pid in it.
        anchor.check(run)
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        command = _command(run, anchor, workspace, list(argv) if argv else [shell, "-l"], tty=tty)
        descriptors = {0: theirs[0], 1: theirs[1], 2: theirs[2], 3: status_write}
        if anchor.inner_user >= 0:
            descriptors[4] = anchor.inner_user
        try:
            pid = spawn(command, environment, descriptors, new_session=not plain)
        except BaseException:
            os.close(status_read)
            raise
        finally:
            for fd in {*theirs, status_write}:
                os.close(fd)
        on_failure.pop_all()
    for fd in ours:
        os.set_blocking(fd, False)
    return Entered(pid, os.pidfd_open(pid), status_read, stdin, stdout, stderr, anchor, run)


def _command(run: RunRecord, anchor: Anchor, workspace: Path, argv: list[str], *, tty: bool) -> list[str]:
    """The chain: limits, namespaces, a session, the unprivileged user, the user's variables, the command."""
    isolation = Isolation(run.isolation)
    outside = ["/bin/sh", "-c", _OUTSIDE_SCRIPT, "sh", *run.cgroups, "--", str(max(1, run.storage_bytes // 512))]
    if not run.cgroups:
        limits = rlimits_without_cgroups(isolation, run.memory_bytes)
        outside += ["prlimit", *(f"--{_RLIMIT_NAMES[kind]}={value}" for kind, value in limits)]
    into: list[str] = []
    if anchor.namespaces:
        handles = [f"--{name}=/proc/{os.getpid()}/fd/{fd}" for name, fd in anchor.namespaces.items()]
        # Told to change the root alone, nsenter would return to the namespace's topmost root, see above.
        handles.append(f"--wd=/proc/{os.getpid()}/fd/{anchor.namespaces['root']}")
        into = [find_program("nsenter") or "nsenter", *handles]
        if anchor.inner_user >= 0:
            into += ["--preserve-credentials", "--", "nsenter", "--user=/proc/self/fd/4", "--preserve-credentials"]
        into.append("--")
    session = ["setsid", "--ctty"] if tty else ["setsid"]
    directory = str(workspace) if isolation is Isolation.PLAIN else WORKSPACE
    inside = [*drop_privileges(isolation, run.uid), "/bin/sh", "-c", ENTER_SCRIPT, "sh", directory, *argv]
    return [*outside, *into, *session, *inside]


_Ends = tuple[tuple[int, int, int], tuple[int, int, int]]


def _open_terminal(run: RunRecord, size: TerminalSize) -> _Ends:
    """A terminal of the sandbox's own devpts, so that its programs can name and reopen it."""
    plain = run.isolation == Isolation.PLAIN
    path = "/dev/ptmx" if plain else f"/proc/{run.init_pid}/root/dev/pts/ptmx"
    try:
        master = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise WorkspaceNotRunningError("The workspace has just ended.") from error
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))
        if os.geteuid() == 0:
            os.fchown(slave, run.uid, -1)
    except BaseException:
        os.close(master)
        raise
    return (master, master, -1), (slave, slave, slave)


def _open_pipes() -> _Ends:
    stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
    stdout_read, stdout_write = os.pipe2(os.O_CLOEXEC)
    stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
    return (stdin_write, stdout_read, stderr_read), (stdin_read, stdout_write, stderr_write)
