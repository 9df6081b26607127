"""Keeps one event of each type and shape that is not in `events/` yet:

devpocket events ls --json | .venv/bin/python -m tests.contracts.record

It also takes NDJSON, as `devpocket events tail --json` prints it. What is there already is never touched.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from libs.common.contracts.events import EVENT_TYPES, Event
from tests.contracts.registry import EVENTS, record


def envelopes(text: str) -> list[dict[str, Any]]:
    """From a JSON array or from one object per line; what the tools have added (`sequence`) is left out."""
    found = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in envelope.items() if key != "sequence"} for envelope in found]


def main() -> int:
    """Exit code 1 when a type is still without a fixture."""
    for envelope in envelopes(sys.stdin.read()):
        if envelope["type"] in EVENT_TYPES:
            Event.model_validate(envelope).payload()
            path = record(envelope)
            if path is not None:
                sys.stdout.write(f"recorded {path.relative_to(EVENTS)}\n")
    missing = [name for name in EVENT_TYPES if not (EVENTS / name).is_dir()]
    sys.stdout.writelines(f"still missing: {name}\n" for name in missing)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
