"""Workspaces of the local runtime as one archive, by tar: it takes any depth, and leaves out what is no file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

from libs.common.backup.errors import BackupFailedError, RestoreFailedError
from libs.runtime.local.isolation import IsolationPolicy, probe_isolation
from libs.runtime.local.layout import Layout
from libs.runtime.local.runtime import layout_for

ARCHIVE = "workspaces.tar.gz"
# Files changed or went while they were read: users are at work.
_SOME_DIFFER = 1
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def layout_of(directory: Path, policy: str) -> Layout:
    """Where the runtime with this LOCAL_RUNTIME_DIR and LOCAL_RUNTIME_ISOLATION keeps its workspaces.

    Raises RuntimeUnavailableError.
    """
    layout = Layout(directory)
    # For others it makes no difference, and they need not have what sandboxes are made with.
    return layout_for(layout, probe_isolation(IsolationPolicy(policy)).isolation) if os.geteuid() == 0 else layout


def count(layout: Layout) -> int:
    """How many workspaces there are."""
    if not layout.workspaces.is_dir():
        return 0
    return sum(entry.is_dir(follow_symlinks=False) for entry in os.scandir(layout.workspaces))


def save(layout: Layout, archive: Path, known: Collection[str]) -> int:
    """Those in `known`, with owners and modes; sockets are left out. Returns how many. Raises BackupFailedError.

    One that was made after the backup's moment would be nobody's when it is restored.
    """
    names = [name for name in layout.environment_ids() if name in known and layout.workspace(name).is_dir()]
    command = ["tar", "--create", "--gzip", f"--file={archive}", f"--directory={layout.root}", "--numeric-owner"]
    command += ["--sparse", "--ignore-failed-read", "--warning=none", "--null", "--files-from=-"]
    members = "".join(f"{layout.workspaces.name}/{name}\0" for name in names)
    code, words = _run(command, members)
    if code not in (0, _SOME_DIFFER):
        raise BackupFailedError(f"the workspaces could not be saved: {words}")
    archive.chmod(0o600)
    return len(names)


def load(layout: Layout, archive: Path) -> None:
    """Into a layout without workspaces. Raises RestoreFailedError, RuntimeUnavailableError."""
    layout.create()
    command = ["tar", "--extract", "--gzip", f"--file={archive}", f"--directory={layout.root}"]
    code, words = _run([*command, "--numeric-owner", "--preserve-permissions"])
    if code != 0:
        raise RestoreFailedError(f"the workspaces could not be restored: {words}")


def remove(layout: Layout) -> None:
    """All workspaces, with what is kept about them. Raises RestoreFailedError."""
    kept = (layout.workspaces, layout.states, layout.uids, layout.locks, layout.trash)
    for path in kept:
        # What users made read-only belongs to them; root needs no permission.
        if os.geteuid() != 0 and path.exists():
            _run(["chmod", "--recursive", "u+rwX", "--", str(path)])
    code, words = _run(["rm", "--recursive", "--force", "--one-file-system", "--", *map(str, kept)])
    if code != 0:
        raise RestoreFailedError(f"the workspaces that were there could not be removed: {words}")


def _run(command: list[str], words: str = "") -> tuple[int, str]:
    done = subprocess.run(command, env=_ENVIRONMENT, input=words, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.strip()[-300:]
