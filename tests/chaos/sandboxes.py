"""The local runtime of a run: sandboxes on this machine, and the runtime's folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from libs.cli.stack.paths import StackPaths
from tests.chaos import namespaces
from tests.chaos.ground import Dish, Thing
from tests.chaos.namespaces import Living

_FOLDERS = ("workspaces", "state", "trash", "locks", "uids")


class Sandboxes:
    """The runtime of the stack whose data is in `data_dir`. Nothing befalls it but what befalls its processes."""

    def __init__(self, data_dir: Path) -> None:
        self._runtime = StackPaths.of(data_dir).runtime

    @property
    def settings(self) -> Mapping[str, str]:
        """It is what a stack uses anyway."""
        return {"RUNTIME": "local"}

    def start(self) -> None:
        """The stack does it."""

    def stop(self) -> None:
        """The stack does it."""

    def dishes(self) -> Sequence[Dish]:
        """None."""
        return ()

    def weather(self, counts: Counter[str]) -> AbstractAsyncContextManager[object]:
        """Always good."""
        return nullcontext()

    def living(self) -> Living:
        """See Ground."""
        return namespaces.living(self._environment_of)

    def twice(self) -> dict[str, list[int]]:
        """See Ground."""
        return namespaces.twice(self.living)

    async def things(self) -> list[Thing]:
        """What is in the runtime's folders."""
        # Volumes on their way out carry a random ending.
        return [
            Thing(folder, name, name.partition(".")[0], ending=folder == "trash")
            for folder in _FOLDERS
            for name in _names(self._runtime / folder)
        ]

    def _environment_of(self, process: Path) -> str | None:
        path = namespaces.below(namespaces.mounted_at(process, "/workspace"), self._runtime / "workspaces")
        return path.split("/")[0] if path else None


def _names(folder: Path) -> list[str]:
    """What is in it, by environment: a link tells by its target whose it is."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return [os.readlink(entry) if entry.is_symlink() else entry.name for entry in entries]
