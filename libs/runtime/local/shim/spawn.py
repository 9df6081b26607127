"""Starting processes from the shim: a plain fork and exec with exact descriptors."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing would cost every start seven milliseconds
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Descriptors up to this number have a meaning inside the sandbox; sources are moved above it before the fork.
_RESERVED = 9


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    descriptors: Mapping[int, int],
    *,
    keep: Sequence[int] = (),
    cgroups: Sequence[str] = (),
    rlimits: Sequence[tuple[int, int]] = (),
    oom_score: int | None = None,
) -> int:
    """Start `argv`; the child has `descriptors` (number there -> number here) and `keep`, nothing else. Gives its pid.

    The child joins `cgroups` and takes `rlimits` before it runs anything. When that fails it ends with code 125.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        # `signal` would import enum: four milliseconds in every start.
        import _signal  # type: ignore[import-not-found]  # noqa: PLC0415

        # Python ignores these two, and what is ignored stays so across exec.
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
            _signal.signal(number, _signal.SIG_DFL)
        os.setsid()
        for directory in cgroups:
            _put(directory + "/cgroup.procs", "0")
        if oom_score is not None:
            _put("/proc/self/oom_score_adj", str(oom_score))
        if rlimits:
            import resource  # noqa: PLC0415 - only where there are no cgroups

            for kind, value in rlimits:
                resource.setrlimit(kind, (value, value))
        _arrange(descriptors, keep)
        os.execve(argv[0], list(argv), dict(env))  # noqa: S606 - no shell is the point
    except BaseException as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
    finally:
        os._exit(125)


def _arrange(descriptors: Mapping[int, int], keep: Sequence[int]) -> None:
    import fcntl  # noqa: PLC0415

    for fd in keep:
        os.set_inheritable(fd, True)
    moved = {
        target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _RESERVED + 1) for target, source in descriptors.items()
    }
    for target, source in moved.items():
        os.dup2(source, target, inheritable=True)


def _put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def memory_file(data: bytes) -> int:
    """A descriptor at the start of an anonymous file with this content."""
    fd = os.memfd_create("devpocket", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
