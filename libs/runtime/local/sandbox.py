"""What a workspace sees: its mount view, its /etc, and the script its main process runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from libs.runtime.local.environment import CARRIER, STARTUP_SCRIPT
from libs.runtime.local.isolation import Isolation, drop_privileges, namespace_arguments
from libs.runtime.port import WorkspaceSpec

WORKSPACE = "/workspace"
_STARTUP = "/etc/devpocket/startup"
_INIT = "/etc/devpocket/init"
_RESOLVER = "10.0.2.3"  # slirp4netns answers DNS here
_NOBODY = 65534

# What programs need of the host's /etc, read-only. Never shadow, keys, or anything with the host's own secrets.
_ETC = (
    *("ssl/certs", "ssl/openssl.cnf", "ca-certificates", "ca-certificates.conf", "pki/tls/certs", "pki/ca-trust"),
    *("crypto-policies", "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types"),
    *("terminfo", "services", "protocols", "login.defs", "inputrc", "os-release", "debian_version", "python3"),
    *("python3.11", "java-17-openjdk", "java-21-openjdk", "vim", "magic", "locale.alias", "fonts"),
)

# Neither touches PATH: what the workspace's variables say stays.
_PROFILE = 'umask 022\nif [ -n "$BASH_VERSION" ] && [ -r /etc/bash.bashrc ]; then . /etc/bash.bashrc; fi\n'
_PROMPT = r"\[\e[32m\]\u@\h\[\e[0m\]:\[\e[34m\]\w\[\e[0m\]\$ "
_BASHRC = f"case $- in *i*) ;; *) return ;; esac\nshopt -s checkwinsize\nPS1='{_PROMPT}'\n"

# The volume's first files; written once, when the volume is made.
SKELETON = {
    ".profile": 'if [ -n "$BASH_VERSION" ] && [ -f "$HOME/.bashrc" ]; then . "$HOME/.bashrc"; fi\n',
    ".bashrc": (
        "case $- in *i*) ;; *) return ;; esac\n"
        "HISTSIZE=5000\nHISTFILESIZE=20000\nHISTCONTROL=ignoredups\nshopt -s histappend\n"
        "alias ls='ls --color=auto' ll='ls -l' la='ls -la' grep='grep --color=auto'\n"
    ),
}

# A word in an image's name -> the program it promises, and the language's name.
TOOLCHAINS: Mapping[str, tuple[str, str]] = {
    "python": ("python3", "Python"),
    "node": ("node", "Node.js"),
    "golang": ("go", "Go"),
    "rust": ("cargo", "Rust"),
}


@dataclass(frozen=True, slots=True)
class MainProcess:
    """How to start a workspace: the command, bwrap's arguments and generated files (None and none without bwrap)."""

    argv: list[str]
    sandbox_args: list[str] | None
    files: list[tuple[str, str, bytes]]


def login_shell() -> str:
    """bash where there is one, else the system's sh."""
    return "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"


def describe_sandbox(
    spec: WorkspaceSpec, isolation: Isolation, uid: int, workspace: Path, bwrap: str, *, network: bool
) -> MainProcess:
    """A bubblewrap sandbox around `workspace`."""
    inside_uid = uid if isolation is Isolation.ROOT else 1000
    arguments = [*namespace_arguments(isolation), "--hostname", hostname(spec.name), *_system_view()]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"]  # noqa: S108 - inside the sandbox
    arguments += ["--perms", "0755", "--dir", "/var", "--perms", "0755", "--dir", "/etc"]
    arguments += ["--perms", "1777", "--size", str(max(spec.limits.memory_bytes // 2, 16 << 20))]
    arguments += ["--tmpfs", "/tmp", "--symlink", "/tmp", "/var/tmp"]  # noqa: S108 - inside the sandbox
    arguments += ["--perms", "0755", "--tmpfs", "/run", "--symlink", "/run", "/var/run"]
    arguments += ["--bind", str(workspace), WORKSPACE, "--perms", "0755", "--dir", "/etc/devpocket"]
    for name in _ETC:
        if os.path.exists(f"/etc/{name}"):
            arguments += ["--ro-bind", os.path.realpath(f"/etc/{name}"), f"/etc/{name}"]
    files = _generated_files(hostname(spec.name), inside_uid, network=network)
    if spec.startup_command:
        files.append((_STARTUP, "0444", spec.startup_command.encode() + b"\n"))
    script = _main_script(
        startup=[login_shell(), "-l", _STARTUP] if spec.startup_command else None,
        directory=WORKSPACE,
        drop=[] if isolation is Isolation.USER_NAMESPACE else drop_privileges(isolation, uid),
        # A user who kills everything of his own does not end the workspace with it.
        idle_drop=[] if isolation is Isolation.USER_NAMESPACE else drop_privileges(isolation, _NOBODY),
    )
    files.append((_INIT, "0444", script.encode()))
    return MainProcess([bwrap, "--", "/bin/sh", _INIT], [*arguments, "--chdir", "/"], files)


def describe_plain(spec: WorkspaceSpec, uid: int, workspace: Path) -> MainProcess:
    """The same main process without a sandbox."""
    drop = drop_privileges(Isolation.PLAIN, uid)
    startup = [login_shell(), "-l", "-c", spec.startup_command] if spec.startup_command else None
    script = _main_script(startup=startup, directory=str(workspace), drop=drop, idle_drop=drop)
    return MainProcess(["/bin/sh", "-c", script], None, [])


def _main_script(*, startup: list[str] | None, directory: str, drop: list[str], idle_drop: list[str]) -> str:
    # Descriptor 3 reports to the shim, descriptor 4 is where the shim says that the network is there. A shim that died
    # instead ends us: it may have gone before bwrap tied the sandbox's life to it.
    lines = ["printf r >&3", "read -r go <&4 || exit 1"]
    if startup is not None:
        enter = [*drop, "/bin/sh", "-c", STARTUP_SCRIPT, "sh", directory, *startup]
        lines += [f"{shlex.join(enter)} </dev/null", "printf 's%d ' $? >&3"]
    idle = shlex.join([*idle_drop, "sleep", "infinity"])
    lines += [f"unset {CARRIER}", "exec 3>&- 4<&-", f"exec {idle} </dev/null >/dev/null 2>&1"]
    return "\n".join(lines)


def _system_view() -> list[str]:
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = f"/{name}"
        if os.path.islink(path):
            arguments += ["--symlink", os.readlink(path).lstrip("/"), path]
        elif os.path.isdir(path):
            arguments += ["--ro-bind", path, path]
    return arguments


def _generated_files(host: str, uid: int, *, network: bool) -> list[tuple[str, str, bytes]]:
    shell = login_shell()
    text = {
        "passwd": (
            "root:x:0:0:root:/:/usr/sbin/nologin\n"
            f"dev:x:{uid}:{uid}:DevPocket:{WORKSPACE}:{shell}\n"
            "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
        ),
        "group": f"root:x:0:\ndev:x:{uid}:\nnogroup:x:65534:\n",
        "hostname": f"{host}\n",
        "hosts": f"127.0.0.1 localhost {host}\n::1 localhost\n",
        "resolv.conf": f"nameserver {_RESOLVER}\n" if network else "# this environment has no network\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
        "shells": f"/bin/sh\n{shell}\n",
        "profile": _PROFILE,
        "bash.bashrc": _BASHRC,
    }
    return [(f"/etc/{name}", "0644", content.encode()) for name, content in text.items()]


def hostname(name: str) -> str:
    """A host name made of the environment's name."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:63].strip("-") or "devpocket"


def missing_toolchain(image: str, toolchains: Mapping[str, tuple[str, str]] = TOOLCHAINS) -> str | None:
    """A sentence for the log when the image promises a language that the host's /usr does not have."""
    for word, (program, language) in toolchains.items():
        if word not in image.lower():
            continue
        if shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/usr/local/go/bin"):
            return None
        elsewhere = (
            " It is installed elsewhere on this machine, but environments only see /usr."
            if shutil.which(program)
            else ""
        )
        return (
            f"{language} is not available here: the local runtime offers the programs below /usr of this machine, and "
            f"`{program}` is not among them.{elsewhere} Ask the operator to install it as a system package."
        )
    return None
