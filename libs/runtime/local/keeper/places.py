"""Where the keeper of a runtime directory is found."""

from __future__ import annotations

from pathlib import Path

from libs.runtime.local.layout import Layout


def keeper_folder(layout: Layout) -> Path:
    """Closed to everybody else."""
    return layout.root / "keeper"


def socket_path(layout: Layout) -> Path:
    """Where it listens."""
    return keeper_folder(layout) / "socket"


def lock_path(layout: Layout) -> Path:
    """Taken by whoever connects, and by a keeper that ends."""
    return keeper_folder(layout) / "lock"


def log_path(layout: Layout) -> Path:
    """What went wrong in the keeper that runs, or ran last."""
    return keeper_folder(layout) / "log"
