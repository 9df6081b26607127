"""The rules of the house that a program can check."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from libs.common.settings import CommonSettings
from services.auth.settings import AuthSettings
from services.envs.settings import EnvsSettings
from services.orchestrator.settings import OrchestratorSettings
from services.terminal.settings import TerminalSettings

ROOT = Path(__file__).parents[2]
# Read by the command line or by compose, not by a service.
_OF_THE_STACK = {
    *("GATEWAY_RATE_LIMIT", "GATEWAY_CONNECTION_LIMIT", "GATEWAY_ADDRESS", "GATEWAY_PORT", "GATEWAY_PROXIES_DIR"),
    *("GATEWAY_TLS_CERT", "GATEWAY_TLS_KEY", "GATEWAY_TLS_DIR", "GATEWAY_TLS_PORT", "GATEWAY_TLS_CHECK_SECONDS"),
    *("MONGODB_PASSWORD", "NATS_PASSWORD", "REDIS_PASSWORD"),
    *("METRICS_RETENTION", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT"),
}


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


def test_env_example_names_only_settings_that_are_read() -> None:
    classes = (CommonSettings, AuthSettings, EnvsSettings, OrchestratorSettings, TerminalSettings)
    known = {name.upper() for settings in classes for name in settings.model_fields} | _OF_THE_STACK
    named = set(re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert named - known == set()
    assert {"MONGODB_URL", "NATS_URL", "REDIS_URL", "SECRET_KEY"} <= named


def test_the_lock_holds_exact_versions_and_no_addresses() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[^\s:/@]+( ; .+)?", line), line


@pytest.mark.parametrize("folder", ["auth", "envs", "orchestrator", "terminal"])
def test_every_service_has_the_same_shape(folder: str) -> None:
    names = {path.stem for path in (ROOT / "services" / folder).iterdir()}
    assert {"main", "api", "service", "domain", "ports", "repository", "settings"} <= names
