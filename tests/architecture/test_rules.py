"""The rules of the house that a program can check."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_import_rules_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_contract_that_is_checked_in_is_what_the_code_says() -> None:
    script = ROOT / "deploy" / "scripts" / "contracts.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_lock_holds_exact_versions_and_no_addresses() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9.-]+==[^\s:/@]+( ; .+)?", line), line


@pytest.mark.parametrize("folder", ["auth", "envs", "orchestrator", "terminal"])
def test_every_service_has_the_same_shape(folder: str) -> None:
    names = {path.stem for path in (ROOT / "services" / folder).iterdir()}
    assert {"main", "api", "service", "domain", "ports", "repository", "settings"} <= names
