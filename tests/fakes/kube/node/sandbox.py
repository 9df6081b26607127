"""How a container's processes get a world of their own: bubblewrap where it works, else plain processes."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ETC = (
    *("ssl/certs", "ca-certificates", "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime"),
    *("mime.types", "terminfo", "services", "protocols", "inputrc", "os-release", "debian_version", "bash.bashrc"),
    *("profile", "python3", "python3.11", "vim", "magic", "nsswitch.conf"),
)
ENV, SETPRIV = "/usr/bin/env", "/usr/bin/setpriv"
_ROOT_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path shown at `target`."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """What one container sees and who it is. `groups` are supplementary; `traps`: its program handles SIGTERM."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    uid: int
    gid: int
    groups: Sequence[int]
    hostname: str
    mounts: Sequence[Mount]
    read_only_root: bool
    etc: Path
    traps: bool = False

    def on_host(self, path: str) -> str:
        """Where a path of the container is on the host, when it is below a mount; else the path itself."""
        for mount in self.mounts:
            top = mount.target.rstrip("/")
            if path == mount.target or path.startswith(top + "/"):
                return str(mount.source) + path[len(top) :]
        return path


@functools.cache
def bubblewrap() -> str | None:
    """The program, when it can make a PID namespace here."""
    path = shutil.which("bwrap")
    if path is None or shutil.which("nsenter") is None or shutil.which("setpriv") is None:
        return None
    probe = [path, "--unshare-pid", "--unshare-net", *_user(0, 0), "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    return path if subprocess.run(probe, capture_output=True, check=False).returncode == 0 else None


def start_arguments(bwrap: str, world: World, info_fd: int) -> list[str]:
    """The whole command that starts PID 1; bwrap tells its pid on `info_fd`."""
    args = [bwrap, *(f"--unshare-{kind}" for kind in ("pid", "ipc", "uts", "net")), "--hostname", world.hostname]
    args += ["--die-with-parent", "--as-pid-1", "--info-fd", str(info_fd), *_user(world.uid, world.gid)]
    args += ["--ro-bind", "/usr", "/usr"]
    for name in _ROOT_LINKS:
        if os.path.islink(f"/{name}"):
            args += ["--symlink", os.readlink(f"/{name}").lstrip("/"), f"/{name}"]
        elif os.path.isdir(f"/{name}"):
            args += ["--ro-bind", f"/{name}", f"/{name}"]
    args += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"]
    for directory in ("/etc", "/var", "/run", "/workspace", "/opt", "/home"):
        args += ["--perms", "0755", "--dir", directory]
    for name in _ETC:
        if os.path.exists(f"/etc/{name}"):
            args += ["--ro-bind", os.path.realpath(f"/etc/{name}"), f"/etc/{name}"]
    for path in sorted(world.etc.iterdir()):
        args += ["--ro-bind", str(path), f"/etc/{path.name}"]
    temporary = "--dir" if world.read_only_root else "--tmpfs"
    for directory in ("/tmp", "/var/tmp"):
        args += ["--perms", "1777", temporary, directory]
    for mount in sorted(world.mounts, key=lambda mount: mount.target):
        args += ["--ro-bind" if mount.read_only else "--bind", str(mount.source), mount.target]
    if world.read_only_root:
        args += ["--remount-ro", "/"]
    return [*args, "--", *identity(world), *_in(world.cwd), *world.argv]


def enter_arguments(world: World, pid: int, argv: Sequence[str], *, tty: bool) -> list[str]:
    """The whole command that runs `argv` beside PID 1, whose host pid is `pid`."""
    enter = [shutil.which("nsenter") or "nsenter", "--target", str(pid)]
    if os.geteuid() != 0:
        enter += ["--user", "--preserve-credentials"]
    enter += ["--mount", "--pid", "--ipc", "--uts", "--net", "--root", "--"]
    # A runtime makes every exec the leader of a session, with or without a terminal.
    terminal = ["/usr/bin/setsid", "--ctty"] if tty else ["/usr/bin/setsid"]
    return [*enter, *terminal, *identity(world), *_in(world.cwd), *argv]


def dial_arguments(pid: int) -> list[str]:
    """The command prefix that puts a program of the node into a pod's network and nothing else of it."""
    if bubblewrap() is None:
        return []
    enter = [shutil.which("nsenter") or "nsenter", "--target", str(pid), "--net"]
    return [*enter, *([] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]), "--"]


def identity(world: World) -> list[str]:
    """Become the container's user without any capability."""
    if os.geteuid() != 0:
        return []
    who = [SETPRIV, "--reuid", str(world.uid), "--regid", str(world.gid)]
    who += ["--groups", ",".join(map(str, world.groups))] if world.groups else ["--clear-groups"]
    return [*who, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]


def etc_files(uid: int, gid: int, hostname: str, *, knows_user: bool) -> dict[str, str]:
    """The /etc of the image and what the kubelet writes there."""
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    user = f"dev:x:{uid or 1000}:{gid or 1000}:dev:/workspace:{shell}\n" if knows_user else ""
    return {
        "passwd": f"root:x:0:0:root:/root:{shell}\n{user}",
        "group": f"root:x:0:\ndev:x:{gid or 1000}:\n",
        "hosts": f"127.0.0.1\tlocalhost\n10.42.0.2\t{hostname}\n",
        "hostname": f"{hostname}\n",
        "resolv.conf": "nameserver 10.43.0.10\n",
    }


def is_missing(world: World, name: str, path: str) -> bool:
    """Whether a container that has not started yet lacks the program: its /usr is ours, the rest is mounted."""
    places = [os.path.join(world.cwd, name)] if "/" in name else [os.path.join(p, name) for p in path.split(":")]
    found = [world.on_host(place) for place in places]
    return not any(os.path.isfile(place) and os.access(place, os.X_OK) for place in found)


def find_program(root: Path, name: str, path: str, cwd: str) -> bool:
    """Whether `name` is a program in the container whose root directory is `root`."""
    places = [os.path.join(cwd, name)] if "/" in name else [os.path.join(p, name) for p in path.split(":")]
    return any(_executable(root, place, 0) for place in places)


def _executable(root: Path, path: str, depth: int) -> bool:
    """Follow links inside `root` by hand: an absolute one means the container's root, not ours."""
    resolved = root
    parts = [part for part in os.path.normpath("/" + path).split("/") if part]
    for index, part in enumerate(parts):
        resolved = resolved / part
        if resolved.is_symlink():
            if depth > 20:
                return False
            target = os.readlink(resolved)
            base = "" if target.startswith("/") else "/" + "/".join(parts[:index])
            return _executable(root, os.path.join(base, target, *parts[index + 1 :]), depth + 1)
    return resolved.is_file() and os.access(resolved, os.X_OK)


def _in(cwd: str) -> list[str]:
    return [ENV, "-C", cwd]


def _user(uid: int, gid: int) -> list[str]:
    return [] if os.geteuid() == 0 else ["--unshare-user", "--uid", str(uid), "--gid", str(gid)]
