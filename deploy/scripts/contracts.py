"""Writes docs/openapi.json and docs/asyncapi.json from the code; `--check` fails when one is not up to date."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from libs.common.asyncapi.document import asyncapi_document
from libs.common.http.openapi import merge_openapi
from libs.common.version import VERSION

SERVICES = ("auth", "envs", "orchestrator", "terminal")
DOCS = Path(__file__).parents[2] / "docs"


def contracts() -> dict[str, str]:
    """Each file as it is checked in, by name. Nothing is connected: apps connect in their lifespan."""
    apps: dict[str, FastAPI] = {
        service: importlib.import_module(f"services.{service}.main").create_app() for service in SERVICES
    }
    openapi = merge_openapi({service: app.openapi() for service, app in apps.items()}, version=VERSION)
    brokers = {service: app.state.platform.bus.broker for service, app in apps.items()}
    asyncapi = asyncapi_document(brokers, version=VERSION)
    return {"openapi.json": _text(openapi), "asyncapi.json": _text(asyncapi)}


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
