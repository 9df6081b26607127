"""deploy/monitoring as tests read it: the expressions of rules and dashboards, and the metrics that those name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
PROMETHEUS = MONITORING / "prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))

# What an expression says beside names of metrics; in the order of taking it away.
_ASIDES = (
    r'"(?:[^"\\]|\\.)*"',
    r"\{[^}]*\}",
    r"\[[^\]]*\]",
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)",
    r"\b[a-z_0-9]+\s*(?=\()",
    r"\b(?:and|or|unless|bool|offset|by|without|on|ignoring|group_left|group_right|inf|nan)\b",
    r"\b\d[\w.]*",
)
_NAME = re.compile(r"[A-Za-z_:][\w:]*")


@dataclass(frozen=True)
class Expression:
    """PromQL, and where it stands."""

    where: str
    text: str


def read_yaml(path: Path) -> Any:
    """What is in the file."""
    return yaml.safe_load(path.read_text())  # type: ignore[no-untyped-call]


def rules() -> list[dict[str, Any]]:
    """All recording and alert rules."""
    return [rule for path in RULE_FILES for group in read_yaml(path)["groups"] for rule in group["rules"]]


def rule_expressions() -> Iterator[Expression]:
    """Of every rule."""
    for rule in rules():
        yield Expression(rule.get("alert") or rule["record"], rule["expr"])


def panel_expressions() -> Iterator[Expression]:
    """Of every panel of every dashboard."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield Expression(f"{path.stem}: {panel['title']}", target["expr"])


def metrics_in(expression: str) -> set[str]:
    """The names of metrics and of recorded series in PromQL."""
    for aside in _ASIDES:
        expression = re.sub(aside, " ", expression)
    return set(_NAME.findall(expression))
