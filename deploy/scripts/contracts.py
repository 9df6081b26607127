"""Writes what docs/ holds of the code: openapi.json, asyncapi.json, configuration.md, the metrics in monitoring.md.

`--check` writes nothing and fails when one is not up to date.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from libs.cli.stack.other_settings import OTHER_SETTINGS
from libs.common.asyncapi.document import asyncapi_document
from libs.common.http.openapi import merge_openapi
from libs.common.metrics.catalogue import table
from libs.common.settings import CommonSettings
from libs.common.settings_page import Setting, settings_of, settings_page
from libs.common.version import VERSION

SERVICES = ("auth", "envs", "orchestrator", "terminal")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_MONITORING = "operations/monitoring.md"
_TABLE_BEGINS, _TABLE_ENDS = "<!-- metrics: written by make contracts -->\n", "<!-- end of metrics -->\n"


def contracts() -> dict[str, str]:
    """Each file as it is checked in, by name. Nothing is connected: apps connect in their lifespan."""
    apps: dict[str, FastAPI] = {
        service: importlib.import_module(f"services.{service}.main").create_app() for service in SERVICES
    }
    openapi = merge_openapi({service: app.openapi() for service, app in apps.items()}, version=VERSION)
    brokers = {service: app.state.platform.bus.broker for service, app in apps.items()}
    asyncapi = asyncapi_document(brokers, version=VERSION)
    metrics = table({service: app.state.platform.metrics for service, app in apps.items()})
    return {
        "openapi.json": _text(openapi),
        "asyncapi.json": _text(asyncapi),
        "operations/configuration.md": configuration(),
        _MONITORING: _with_table((DOCS / _MONITORING).read_text(), metrics),
    }


def configuration() -> str:
    """The configuration reference. What a class has is not taken from elsewhere."""
    known = settings_of({service: _settings_class(service) for service in SERVICES})
    names = {setting.name for setting in known}
    others: list[Setting] = [setting for setting in OTHER_SETTINGS if setting.name not in names]
    explained = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    return settings_page([*known, *others], explained=frozenset(explained))


def _settings_class(service: str) -> type[CommonSettings]:
    found: type[CommonSettings] = getattr(
        importlib.import_module(f"services.{service}.settings"), f"{service.title()}Settings"
    )
    return found


def _with_table(page: str, table: str) -> str:
    head, rest = page.split(_TABLE_BEGINS)
    _, tail = rest.split(_TABLE_ENDS)
    return f"{head}{_TABLE_BEGINS}{table}{_TABLE_ENDS}{tail}"


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def main() -> int:
    """Exit code 1 when `--check` finds a difference."""
    status = 0
    for name, text in contracts().items():
        path = DOCS / name
        if "--check" not in sys.argv:
            path.write_text(text)
            print(f"wrote docs/{name}")
        elif not path.exists() or path.read_text() != text:
            print(f"docs/{name} is not what the code says: run `make contracts` and commit the result", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
