"""Each alert has its runbook, and each runbook says all that somebody needs at night."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
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


def queries() -> list[str]:
    """What the page gives to Prometheus: lines of indented blocks without a command, and `expressions` in the text."""
    blocks = re.findall(r"(?:^ {4}.*\n)+", PAGE.read_text(), re.MULTILINE)
    lines = [line.strip() for block in blocks if "$ " not in block for line in block.splitlines()]
    prose = re.sub(r"^ {4}.*\n", "", PAGE.read_text(), flags=re.MULTILINE)
    return lines + [code for code in re.findall(r"`([^`\n]+)`", prose) if "devpocket_" in code]


def test_metrics_of_queries_exist() -> None:
    code = "".join(file.read_text() for folder in ("libs", "services") for file in (ROOT / folder).rglob("*.py"))
    named = {name for query in queries() for name in re.findall(r"devpocket_\w+", query)}
    assert len(named) > 15
    unknown = {name for name in named if f'"{re.sub(r"_(bucket|count|sum)$", "", name)}"' not in code}
    assert unknown == set()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")
def test_queries_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "queries.yml"
    recorded = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    file.write_text(json.dumps({"groups": [{"name": "runbooks", "rules": recorded}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(sections()))
def test_a_runbook_says_everything(alert: str) -> None:
    text = sections()[alert]
    missing = [part for part in PARTS if f"**{part}**" not in text]
    assert missing == []
    order = [text.index(f"**{part}**") for part in PARTS]
    assert order == sorted(order)
