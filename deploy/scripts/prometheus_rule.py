"""Writes deploy/k8s/components/monitoring-operator/rules.yaml; `--check` fails when it is not what the rules say."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

_DEPLOY = Path(__file__).parents[1]
_RULES = _DEPLOY / "monitoring" / "prometheus" / "rules"
_TARGET = _DEPLOY / "k8s" / "components" / "monitoring-operator" / "rules.yaml"
_HEAD = "# Made of deploy/monitoring/prometheus/rules by deploy/scripts/prometheus_rule.py: change it there.\n"


def prometheus_rule() -> str:
    """The file as it is checked in."""
    groups = [group for path in sorted(_RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "devpocket"},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.safe_dump(rule, sort_keys=False, width=120)


def main() -> int:
    """Exit code 1 when `--check` finds a difference."""
    if "--check" not in sys.argv:
        _TARGET.write_text(prometheus_rule())
    elif _TARGET.read_text() != prometheus_rule():
        print("the PrometheusRule is not made of the rules: run deploy/scripts/prometheus_rule.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
