"""Where the local runtime keeps things on disk, and how it writes and locks them.

    <root>/workspaces/<env_id>/   the volume: /workspace of the sandbox, owned by the sandbox's user
    <root>/state/<env_id>/        spec.json, run.json, exit.json, stop, log, log.1, shim.lock, shim.err
    <root>/uids/<uid>             symlink to the environment id that holds this uid
    <root>/locks/<env_id>         taken by whoever changes the workspace
    <root>/trash/                 volumes on their way out

Everything but a volume belongs to the service and is closed to sandbox users: spec.json holds user variables.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from libs.runtime.port import RuntimeUnavailableError, WorkspaceRejectedError

_ENVIRONMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LOCK_POLL_SECONDS = 0.01
# Outlives a restart of the machine, unlike /tmp.
_SHARED_PLACE = Path("/var/tmp")  # noqa: S108 - who owns the directory in it is checked
# struct flock of fcntl(2) on 64-bit Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi4x"


def check_environment_id(environment_id: str) -> str:
    """The id itself when it is safe as a file name; raises WorkspaceRejectedError otherwise."""
    if _ENVIRONMENT_ID.fullmatch(environment_id) is None:
        raise WorkspaceRejectedError(
            "An environment id is 1 to 64 letters, digits, hyphens and underscores, and starts with a letter or digit.",
            reason="InvalidEnvironmentId",
        )
    return environment_id


class Layout:
    """Paths below one root directory. Every method that takes an id refuses ids that are no plain file names."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.workspaces = self.root / "workspaces"
        self.states = self.root / "state"
        self.uids = self.root / "uids"
        self.locks = self.root / "locks"
        self.trash = self.root / "trash"

    def create(self) -> None:
        """Make the directories. Raises RuntimeUnavailableError when the root cannot be written."""
        try:
            for path, mode in (
                (self.root, 0o711),
                (self.workspaces, 0o711),
                (self.states, 0o700),
                (self.uids, 0o700),
                (self.locks, 0o700),
                (self.trash, 0o700),
            ):
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(mode)
        except OSError as error:
            raise RuntimeUnavailableError(
                f"LOCAL_RUNTIME_DIR {self.root} cannot be prepared: {error.strerror}. Name one this user may write."
            ) from error

    def reachable_by_others(self) -> Layout:
        """This layout, or one in a shared place when directories above it are closed to other users.

        Without sandboxes, workspaces run as users of their own, who have to reach their volume by its path. The other
        place depends on this one alone, so that every process finds the same. Raises RuntimeUnavailableError when
        somebody else was there first.
        """
        above = [path for path in self.root.parents if path.exists()]
        if all(path.stat().st_mode & 0o001 for path in above):
            return self
        shared = _SHARED_PLACE / f"devpocket-{self.digest}"
        if shared.is_symlink() or (shared.exists() and shared.stat().st_uid != os.geteuid()):
            raise RuntimeUnavailableError(
                f"{shared} belongs to another user. Set LOCAL_RUNTIME_DIR to a directory that everybody may pass.",
                reason="DirectoryTaken",
            )
        return Layout(shared)

    @property
    def digest(self) -> str:
        """A short name for this root."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    def workspace(self, environment_id: str) -> Path:
        """The volume's directory."""
        return self.workspaces / check_environment_id(environment_id)

    def state(self, environment_id: str) -> Path:
        """The directory of records and logs."""
        return self.states / check_environment_id(environment_id)

    def environment_ids(self) -> list[str]:
        """Ids of everything that has a volume or a state directory."""
        found: set[str] = set()
        for parent in (self.workspaces, self.states):
            with contextlib.suppress(FileNotFoundError):
                found.update(name for name in os.listdir(parent) if _ENVIRONMENT_ID.fullmatch(name))
        return sorted(found)

    @contextlib.contextmanager
    def lock(
        self, environment_id: str, *, timeout_seconds: float = 60.0, wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[None]:
        """Hold the workspace's lock, also against other processes. Blocks; raises RuntimeUnavailableError.

        It is not taken any more once `wanted` answers False: then something newer may have been done meanwhile.
        """
        path = self.locks / check_environment_id(environment_id)
        deadline = time.monotonic() + timeout_seconds
        while (fd := self._try_lock(path) if wanted() else None) is None:
            if not wanted():
                raise RuntimeUnavailableError("Nobody waits for this any more.", reason="Abandoned")
            if time.monotonic() > deadline:
                raise RuntimeUnavailableError(
                    "Another operation on this workspace is still going on; try again.", reason="WorkspaceBusy"
                )
            time.sleep(_LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            os.close(fd)

    def forget_lock(self, environment_id: str) -> None:
        """Remove the lock file: the last act of who holds the lock, which excludes nobody from then on."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.locks / check_environment_id(environment_id))

    @staticmethod
    def _try_lock(path: Path) -> int | None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder may have removed the file meanwhile: a lock on a file without a name excludes nobody.
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(fd)
        return None


def write_atomic(path: Path, text: str) -> None:
    """Replace a file so that readers see the old or the new text, never a part; mode 0600."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(scratch, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, or None when there is no such file or a crash left it unreadable."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def take_life_lock(path: Path) -> int | None:
    """Take the lock that a shim holds for as long as it lives; None while another process has it.

    The lock belongs to the open file (F_OFD_SETLK), so it passes to the shim with the descriptor and goes with it,
    however it ends.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        os.close(fd)
        return None
    return fd


def life_lock_held(path: Path) -> bool:
    """Whether a living shim holds this lock; asking does not take it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question))
    finally:
        os.close(fd)
    return bool(answer[0] != fcntl.F_UNLCK)
