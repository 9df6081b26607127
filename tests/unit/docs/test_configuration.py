"""What files for operators name are settings that exist, and each setting is explained where operators look."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from libs.cli.stack.other_settings import OTHER_SETTINGS
from libs.cli.stack.settings import KNOWN
from libs.common.settings_page import settings_of
from services.auth.settings import AuthSettings
from services.envs.settings import EnvsSettings
from services.orchestrator.settings import OrchestratorSettings
from services.terminal.settings import TerminalSettings

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "operations" / "configuration.md"

CLASSES: dict[str, type[BaseSettings]] = {
    "auth": AuthSettings,
    "envs": EnvsSettings,
    "orchestrator": OrchestratorSettings,
    "terminal": TerminalSettings,
}
SETTINGS = {setting.name: setting for setting in (*OTHER_SETTINGS, *settings_of(CLASSES))}

# Deliberately not in .env.example: what the stack itself decides, and what was measured, or follows from other
# settings, so that changing it alone does harm. docs/operations/configuration.md has them all, marked as tuning.
FOR_TUNING = {
    *("JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE", "SIGNING_KEY_DAYS"),
    *("RECONCILE_CONCURRENCY", "CLUSTER_REFRESH_SECONDS", "LEASE_SECONDS", "SCAN_INTERVAL_SECONDS"),
    *("RESYNC_INTERVAL_SECONDS", "PROVISION_DEADLINE_SECONDS", "STOP_DEADLINE_SECONDS", "DELETE_DEADLINE_SECONDS"),
    *("STOP_GRACE_SECONDS", "CRASH_LOOP_LOSSES", "CRASH_LOOP_WINDOW_SECONDS", "ORPHAN_SCAN_INTERVAL_SECONDS"),
    *("ORPHAN_GRACE_SECONDS", "SHUTDOWN_GRACE_SECONDS", "READ_MODEL_GRACE_SECONDS", "TICKET_LIFE_SECONDS"),
    *("TERMINAL_SESSIONS_PER_USER", "TERMINAL_HOLD_SECONDS", "TERMINAL_STALLED_SECONDS", "TERMINAL_RING_BYTES"),
    *("TERMINAL_RING_BURST_BYTES", "TERMINAL_WINDOW_BYTES", "TERMINAL_DETACHED_BYTES_PER_SECOND"),
    *("TERMINAL_MESSAGE_BYTES", "TERMINAL_UPKEEP_SECONDS", "TERMINAL_SHUTDOWN_SECONDS"),
}


def assigned(file: str) -> set[str]:
    """The names that a file of NAME=value lines has, also in lines that are commented out."""
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (ROOT / file).read_text(), re.MULTILINE))


def in_compose() -> set[str]:
    """What the compose file takes from the operator."""
    return set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)", (ROOT / "docker-compose.yaml").read_text()))


def told_by_compose() -> set[str]:
    """What the compose file tells the services themselves; the servers have variables of their own."""
    text = (ROOT / "docker-compose.yaml").read_text()
    shared = text[text.index("x-service-environment:") : text.index("\nx-service:")]
    blocks = re.findall(r"<<: \*service-environment\n((?: {6}\w+: .*\n)*)", text)
    return set(re.findall(r"^ +([A-Z][A-Z0-9_]*):", "\n".join([shared, *blocks]), re.MULTILINE))


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (".env.example", assigned(".env.example")),
        ("KNOWN in libs/cli/stack/settings.py", set(KNOWN)),
        ("what docker-compose.yaml asks for", in_compose()),
        ("what docker-compose.yaml tells services", told_by_compose()),
        *(
            (str(file.relative_to(ROOT)), assigned(str(file.relative_to(ROOT))))
            for file in ROOT.glob("deploy/k8s/**/settings.env")
        ),
    ],
)
def test_only_settings_that_exist_are_named(where: str, names: set[str]) -> None:
    assert names, f"nothing was found in {where}: it looks different now, teach this test"
    unknown = names - SETTINGS.keys()
    assert not unknown, f"{where} names what nobody reads: {sorted(unknown)}; a class, or OTHER_SETTINGS, must have it"


def test_every_setting_is_in_the_example_or_deliberately_not() -> None:
    missing = SETTINGS.keys() - assigned(".env.example") - FOR_TUNING
    assert not missing, f"explain in .env.example, or name in FOR_TUNING: {sorted(missing)}"
    both = FOR_TUNING & assigned(".env.example")
    assert not both, f"both in .env.example and in FOR_TUNING: {sorted(both)}"
    assert SETTINGS.keys() >= FOR_TUNING, f"nobody reads {sorted(FOR_TUNING - SETTINGS.keys())}"


def test_the_example_names_each_setting_once() -> None:
    found = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(found) == sorted(set(found))


def test_every_line_of_the_example_stands_behind_a_comment() -> None:
    explained = False
    for line in (ROOT / ".env.example").read_text().splitlines():
        if re.match(r"#?[A-Z][A-Z0-9_]*=", line):
            assert explained, f"no comment above {line}"
        else:
            explained = line.startswith("# ") and not line.startswith("# ---")


def test_fractions_carry_their_unit() -> None:
    of_what = [setting.name for setting in SETTINGS.values() if setting.kind == "number"]
    assert not of_what, f"their names should end with a unit: {of_what}"


def test_the_page_has_every_setting() -> None:
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert documented == SETTINGS.keys()
