"""Unprivileged users for sandboxes: one uid for each environment, never shared within one runtime directory.

A reservation is a symlink `uids/<uid>` -> environment id: made atomically, exclusive, and never half written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from libs.runtime.port import RuntimeUnavailableError

# Above every range that distributions hand out (users, subordinate ids, systemd's containers end at 1,879,048,191).
_HIGH_RANGE = range(1_900_000_000, 1_999_999_999)
# For a service that itself runs in a user namespace with 65,536 ids.
_LOW_RANGE = range(20_000, 60_000)


class UidAllocator:
    """Reserves a uid (and the same gid) for an environment. Safe against concurrent use by several processes."""

    def __init__(self, directory: Path, ids: range | None = None) -> None:
        self._directory = directory
        self._ids = ids if ids is not None else _range_for(Path("/proc/self/uid_map").read_text())

    def acquire(self, environment_id: str) -> int:
        """The environment's uid; the same one at every call until `release`."""
        held = self._held_by(environment_id)
        if held:
            return held[0]
        # Starting at a hash keeps two runtime directories on one machine apart, and the search short.
        digest = hashlib.sha256(f"{self._directory}\0{environment_id}".encode()).digest()
        first = int.from_bytes(digest[:8], "big")
        for step in range(len(self._ids)):
            uid = self._ids[(first + step) % len(self._ids)]
            try:
                os.symlink(environment_id, self._directory / str(uid))
            except FileExistsError:
                continue
            return uid
        raise RuntimeUnavailableError("All user ids for sandboxes are in use.", reason="OutOfUserIds")

    def release(self, environment_id: str) -> None:
        """Give the uid back; fine when there is none."""
        for uid in self._held_by(environment_id):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._directory / str(uid))

    def _held_by(self, environment_id: str) -> list[int]:
        found = []
        for name in os.listdir(self._directory):
            with contextlib.suppress(OSError):
                if os.readlink(self._directory / name) == environment_id:
                    found.append(int(name))
        return sorted(found)


def _range_for(uid_map: str) -> range:
    for line in uid_map.splitlines():
        inside, _, length = (int(part) for part in line.split())
        if inside == 0 and length > _HIGH_RANGE[-1]:
            return _HIGH_RANGE
        if inside == 0 and length > _LOW_RANGE[-1]:
            return _LOW_RANGE
    raise RuntimeUnavailableError(
        "This user namespace maps too few user ids to give each environment its own.", reason="OutOfUserIds"
    )
