"""The environment variables of a workspace, and how they reach its processes without passing a privileged one.

Programs that run as root on the way into a sandbox (nsenter, setpriv) must never see a variable that a user chose:
LD_PRELOAD alone would be enough. And nothing secret may show on a command line. So all variables travel as one
variable of a fixed name whose value is shell text, and one of the scripts here, already running as the workspace's
user, turns it into the real ones.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from libs.runtime.port import WorkspaceRejectedError, WorkspaceSpec

CARRIER = "DEVPOCKET_ENTER"
# Arguments: the directory to start in, then the command. Descriptor 3 tells that the command is next.
_SCRIPT = f'eval "${CARRIER}"; unset {CARRIER}; cd -- "$1" || cd /; unset OLDPWD; shift; %s; exec 3>&- 4<&-; exec "$@"'
STARTUP_SCRIPT = _SCRIPT % "printf . >&3"
# It tells who it is, in the kernel's words: whoever looks for it afterwards may come too late.
ENTER_SCRIPT = _SCRIPT % f'IFS= read -r {CARRIER} < /proc/$$/stat; printf %s "${CARRIER}" >&3; unset {CARRIER}'
# What the privileged programs themselves run with.
CLEAN_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}

# One environment string may hold 128 KiB on Linux (MAX_ARG_STRLEN).
_MAX_CARRIER_BYTES = 120 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Assigning to these makes one shell or another give up.
_SHELL_OWNED = frozenset(
    {"BASHOPTS", "BASH_VERSINFO", "DIRSTACK", "EUID", "FUNCNAME", "GROUPS", "LINENO", "OPTIND"}
    | {"PPID", "RANDOM", "SECONDS", "SHELLOPTS", "UID"}
)


def workspace_environment(spec: WorkspaceSpec, *, home: str, shell: str) -> dict[str, str]:
    """The variables every process of the workspace starts with. The user's win over the usual ones."""
    own_bin = ("/.local/bin", "/.cargo/bin", "/go/bin")
    usual = {
        "HOME": home,
        "USER": "dev",
        "LOGNAME": "dev",
        "SHELL": shell,
        "PATH": ":".join(
            [
                *(home + directory for directory in own_bin),
                "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ]
        ),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }
    identity = {"DEVPOCKET_ENVIRONMENT_ID": spec.ref.environment_id, "DEVPOCKET_ENVIRONMENT_NAME": spec.name}
    return usual | dict(spec.variables) | identity


def carrier_text(variables: Mapping[str, str]) -> str:
    """Shell text that exports these variables. Raises WorkspaceRejectedError for names or sizes that cannot be."""
    lines = []
    for name, value in variables.items():
        if _NAME.fullmatch(name) is None or "\0" in value:
            raise WorkspaceRejectedError(
                f"{name!r} cannot be an environment variable: names hold letters, digits, _; values no NUL.",
                reason="InvalidVariable",
            )
        if name not in _SHELL_OWNED:
            lines.append(f"export {name}={shlex.quote(value)}")
    text = "\n".join(lines)
    if len(text.encode("utf-8", "surrogateescape")) > _MAX_CARRIER_BYTES:
        raise WorkspaceRejectedError(
            f"The environment variables are too large: together at most {_MAX_CARRIER_BYTES // 1024} KiB.",
            reason="VariablesTooLarge",
        )
    return text
