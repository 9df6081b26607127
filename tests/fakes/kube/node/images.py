"""Container images: a name, and how its processes start. The programs are those of this machine's /usr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What images in deploy/images have at /opt/devpocket; their init is left out, so the script is the first process.
_DEVPOCKET = Path(__file__).parents[4] / "deploy/images/base/devpocket"
# Ends at SIGTERM and does nothing else.
IDLE = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done")


@dataclass(frozen=True, slots=True)
class Image:
    """`files` are host files and directories that the image has below its root, by their path in it.

    `traps`: the entrypoint handles SIGTERM, and counts as started only when it does; so does a pod's own command that
    sets a trap. `knows_user`: /etc/passwd has an entry for the container's user.
    """

    entrypoint: Sequence[str] = IDLE
    command: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: int = 1000
    working_dir: str = "/"
    files: Mapping[str, Path] = field(default_factory=dict)
    pull_seconds: float = 0.0
    traps: bool = False
    knows_user: bool = True


WORKSPACE_ENV = {"HOME": "/workspace", "USER": "dev", "LANG": "C.UTF-8", "SHELL": "/bin/bash"}


def workspace_image(**changes: object) -> Image:
    """An image like those in deploy/images, with their very entrypoint."""
    values: dict[str, object] = {
        "entrypoint": ("/opt/devpocket/entrypoint.sh",),
        "env": WORKSPACE_ENV,
        "working_dir": "/workspace",
        "files": {"/opt/devpocket": _DEVPOCKET},
        "traps": "entrypoint" not in changes,
    }
    return Image(**(values | changes))  # type: ignore[arg-type]
