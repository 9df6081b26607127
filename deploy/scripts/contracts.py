"""Writes docs/openapi.json from the code of all services; `--check` fails when the file is not up to date."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from libs.common.http.openapi import merge_openapi
from libs.common.version import VERSION

SERVICES = ("auth", "envs", "orchestrator", "terminal")
OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"


def openapi_text() -> str:
    """The merged contract as it is checked in. Nothing is connected: apps connect in their lifespan."""
    documents: dict[str, dict[str, Any]] = {}
    for service in SERVICES:
        documents[service] = importlib.import_module(f"services.{service}.main").create_app().openapi()
    return json.dumps(merge_openapi(documents, version=VERSION), indent=2, sort_keys=True) + "\n"


def main() -> int:
    """Exit code 1 when `--check` finds a difference."""
    text = openapi_text()
    if "--check" in sys.argv:
        if OPENAPI.exists() and OPENAPI.read_text() == text:
            return 0
        print(
            "docs/openapi.json is not what the code says: run `make contracts` and commit the result", file=sys.stderr
        )
        return 1
    OPENAPI.write_text(text)
    print("wrote docs/openapi.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
