"""Each alert has its runbook, and each runbook says all that somebody needs at night."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "operations" / "runbooks.md"
RULES = ROOT / "deploy" / "monitoring" / "prometheus" / "rules"

# What monitoring has promised to watch; the rules may have more.
AGREED = {
    *("DevPocketServiceDown", "DevPocketDependencyDown", "DevPocketErrorRateHigh", "DevPocketLatencyHigh"),
    *("DevPocketConsumerLagging", "DevPocketOutboxStuck", "DevPocketDeadLetters", "DevPocketEnvironmentsFailing"),
    *("DevPocketEnvironmentsStuck", "DevPocketReconcileSlow", "DevPocketClusterUnreachable"),
    *("DevPocketRuntimeCallsFailing", "DevPocketEventLoopLag", "DevPocketMongoPoolExhausted"),
    *("DevPocketRateLimitRefusalsHigh", "DevPocketTerminalSessionsHigh"),
}
PARTS = ("Means", "Users see", "First look", "Usual causes", "Cure", "Over when", "Harms")


def sections() -> dict[str, str]:
    """The text of each runbook, by its heading."""
    heading, *rest = re.split(r"^## (\w+)\n", PAGE.read_text(), flags=re.MULTILINE)
    assert heading.startswith("# Runbooks")
    return dict(zip(rest[::2], rest[1::2], strict=True))


def rules() -> list[dict[str, Any]]:
    """All alerting rules."""
    files = [yaml.safe_load(file.read_text()) for file in sorted(RULES.glob("*.yml"))]  # type: ignore[no-untyped-call]
    found = [rule for file in files for group in file["groups"] for rule in group["rules"]]
    return [rule for rule in found if "alert" in rule]


def test_every_alert_has_a_runbook() -> None:
    alerts = AGREED | {rule["alert"] for rule in rules()}
    assert alerts - sections().keys() == set()
    assert sections().keys() - alerts == set(), "runbooks of alerts that there are not"


def test_every_alert_leads_to_its_runbook() -> None:
    for rule in rules():
        url = rule["annotations"]["runbook_url"]
        assert url.endswith(f"docs/operations/runbooks.md#{rule['alert'].lower()}"), url


@pytest.mark.parametrize("alert", sorted(sections()))
def test_a_runbook_says_everything(alert: str) -> None:
    text = sections()[alert]
    missing = [part for part in PARTS if f"**{part}**" not in text]
    assert missing == []
    order = [text.index(f"**{part}**") for part in PARTS]
    assert order == sorted(order)
