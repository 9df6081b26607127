"""What processes hold of a machine's memory."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import psutil

from tests.support.stack import LocalStack, family

MIB = 1024 * 1024


def in_use(stack: LocalStack, service: str = "") -> dict[str, int]:
    """Bytes that each process of a stack has for itself alone (USS), children included, by name.

    `service`: only its replicas.
    """
    names = {row["name"]: row["pid"] for row in stack.status() if row["name"].startswith(service) and row["pid"]}
    return {name: sum(map(_own_bytes, family(pid))) for name, pid in names.items()}


def growth(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """MiB that each has more than before."""
    return {name: round((after[name] - count) / MIB) for name, count in before.items()}


def _own_bytes(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.memory_full_info().uss)
    return 0
