"""The rules of the house that a program can check, besides those of `make lint`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_lock_holds_exact_versions_and_no_addresses() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9.-]+==[^\s:/@]+( ; .+)?", line), line


@pytest.mark.parametrize("folder", ["auth", "envs", "orchestrator", "terminal"])
def test_every_service_has_the_same_shape(folder: str) -> None:
    names = {path.stem for path in (ROOT / "services" / folder).iterdir()}
    assert {"main", "api", "service", "domain", "ports", "repository", "settings"} <= names
