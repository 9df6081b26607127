"""The environment variables of a workspace: which names and sizes can be, and what is there besides the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from libs.runtime.kubernetes.names import HOME
from libs.runtime.port import WorkspaceRejectedError, WorkspaceSpec

STARTUP_COMMAND = "DEVPOCKET_STARTUP_COMMAND"

# Also the key of a Secret, hence 253.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,252}")
# One environment string may hold 128 KiB on Linux (MAX_ARG_STRLEN), and all of them share one Secret.
_MAX_TOTAL_BYTES = 120 * 1024
# Assigning to these makes one shell or another give up.
SHELL_OWNED = frozenset(
    {"BASHOPTS", "BASH_VERSINFO", "DIRSTACK", "EUID", "FUNCNAME", "GROUPS", "LINENO", "OPTIND"}
    | {"PPID", "RANDOM", "SECONDS", "SHELLOPTS", "UID"}
)


def check_variables(variables: Mapping[str, str]) -> Mapping[str, str]:
    """The variables themselves; raises WorkspaceRejectedError for names, values or sizes that cannot be."""
    for name, value in variables.items():
        if _NAME.fullmatch(name) is None or "\0" in value:
            raise WorkspaceRejectedError(
                f"{name!r} cannot be an environment variable: names are up to 253 letters, digits and _; "
                "values hold no NUL.",
                reason="InvalidVariable",
            )
    total = sum(len(name) + len(value.encode("utf-8", "surrogateescape")) + 2 for name, value in variables.items())
    if total > _MAX_TOTAL_BYTES:
        raise WorkspaceRejectedError(
            f"The environment variables are too large: together at most {_MAX_TOTAL_BYTES // 1024} KiB.",
            reason="VariablesTooLarge",
        )
    return variables


def workspace_environment(spec: WorkspaceSpec) -> dict[str, str]:
    """What every process of the workspace starts with; the image's own PATH stays. The user's win over the usual ones.

    Raises WorkspaceRejectedError for variables that cannot be.
    """
    usual = {
        "HOME": HOME,
        "USER": "dev",
        "LOGNAME": "dev",
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }
    identity = {"DEVPOCKET_ENVIRONMENT_ID": spec.ref.environment_id, "DEVPOCKET_ENVIRONMENT_NAME": spec.name}
    if spec.startup_command:
        identity[STARTUP_COMMAND] = spec.startup_command
    chosen = {name: value for name, value in spec.variables.items() if name not in SHELL_OWNED | {STARTUP_COMMAND}}
    check_variables(spec.variables)
    return dict(check_variables(usual | chosen | identity))
