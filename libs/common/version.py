"""The version that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("devpocket")
    except PackageNotFoundError:
        return "0.0.0"


VERSION = _installed()
