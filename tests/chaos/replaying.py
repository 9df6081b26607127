"""`devpocket events replay` for several services in one process, because loading them takes longer than replaying.

`python -m tests.chaos.replaying --data-dir DIR SERVICE…` prints `{service: [what it printed, why it ended badly]}`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from typer.testing import CliRunner

from libs.cli.main import app


def main() -> int:
    """Exit code 0; how each replay ended is in the answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("services", nargs="+")
    given = parser.parse_args()
    sys.stdout.write(json.dumps({service: _replay(given.data_dir, service) for service in given.services}))
    return 0


def _replay(data_dir: Path, service: str) -> tuple[str, str]:
    asked = ("--service", service, "--into", f"chaos_replay_{service}", "--diff", "--json", "--data-dir", str(data_dir))
    result = CliRunner().invoke(app, ["events", "replay", *asked])
    return result.stdout, f"code {result.exit_code}: {result.exception!r} {result.stderr.strip()}"


if __name__ == "__main__":
    sys.exit(main())
