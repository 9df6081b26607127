"""Workspace folders: made once with their first files, kept through every stop, removed for good."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from pathlib import Path

from libs.runtime.local.environment import CLEAN_ENVIRONMENT
from libs.runtime.local.layout import Layout
from libs.runtime.local.sandbox import SKELETON
from libs.runtime.port import RuntimeUnavailableError


def ensure_volume(layout: Layout, environment_id: str, uid: int) -> Path:
    """The workspace's folder, owned by `uid`; made complete under another name, so that a crash leaves no half."""
    volume = layout.workspace(environment_id)
    if not volume.is_dir():
        draft = layout.trash / f"{environment_id}.{secrets.token_hex(4)}"
        draft.mkdir(mode=0o700)
        for name, text in SKELETON.items():
            (draft / name).write_text(text)
            (draft / name).chmod(0o644)
            _own(draft / name, uid)
        _own(draft, uid)
        os.rename(draft, volume)
    elif os.geteuid() == 0 and volume.stat().st_uid != uid:
        # The volume came from elsewhere (a backup, another machine): its files follow the new owner.
        _run(["chown", "--recursive", "--no-dereference", f"{uid}:{uid}", "--", str(volume)])
    return volume


def remove_volume(layout: Layout, environment_id: str) -> None:
    """Remove a workspace's folder whatever is in it. The rename makes it gone at once, also if this is interrupted."""
    volume = layout.workspace(environment_id)
    with contextlib.suppress(FileNotFoundError):
        volume.chmod(0o700)  # one that is read-only cannot move
        os.rename(volume, layout.trash / f"{environment_id}.{secrets.token_hex(4)}")


def empty_trash(layout: Layout, environment_id: str | None = None) -> None:
    """Delete what was thrown away: all of it, or only one workspace's. Raises RuntimeUnavailableError."""
    for name in os.listdir(layout.trash):
        if environment_id is not None and name.rpartition(".")[0] != environment_id:
            continue
        path = str(layout.trash / name)
        # rm and chmod walk any depth with few descriptors; shutil.rmtree recurses and fails where a user digs deep.
        if os.geteuid() != 0:
            _run(["chmod", "--recursive", "u+rwX", "--", path], check=False)
        _run(["rm", "--recursive", "--force", "--one-file-system", "--", path])


def _own(path: Path, uid: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, uid, uid)


def _run(command: list[str], *, check: bool = True) -> None:
    done = subprocess.run(
        command, env=dict(CLEAN_ENVIRONMENT), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if check and done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()[-300:]
        raise RuntimeUnavailableError(f"The workspace's files could not be handled: {words}", reason="VolumeError")
