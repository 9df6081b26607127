"""`devpocket up` with stand-ins for the services: `python -m tests.integration.stack --port N --data-dir DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from libs.cli.stack.console import ConsoleReporter
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.plan import StackOptions, parse_scale
from libs.cli.stack.run import StartRefusedError, run_stack
from tests.integration.stack import standins

_SERVICES = {
    "all": standins.STANDINS,
    "one-never-ready": standins.ONE_NEVER_READY,
    "one-breakable": standins.ONE_BREAKABLE,
    "one-crashes": standins.ONE_CRASHES,
}


def main() -> int:
    """Exit code of the stack."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--services", choices=sorted(_SERVICES), default="all")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--scale", action="append", default=[])
    parser.add_argument("--timeout", type=float, default=110.0)
    parser.add_argument("--in-background", action="store_true")
    given = parser.parse_args()
    options = StackOptions(
        StackPaths.of(given.data_dir),
        given.port,
        parse_scale(given.scale),
        services=_SERVICES[given.services],
        tls=given.tls,
    )
    reporter = ConsoleReporter(sys.stdout, show_logs=not given.in_background)
    try:
        return run_stack(options, reporter, detached=given.in_background, start_timeout_seconds=given.timeout)
    except StartRefusedError as error:
        sys.stderr.write(f"devpocket: {error}\n")
        return 1
    finally:
        reporter.close()


if __name__ == "__main__":
    sys.exit(main())
