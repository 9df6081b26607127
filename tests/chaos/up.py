"""`devpocket up` with services whose handlers fail: `python -m tests.chaos.up --port N --data-dir DIR --replicas 2`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from libs.cli.stack.console import ConsoleReporter
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.plan import StackOptions
from libs.cli.stack.run import StartRefusedError, run_stack
from libs.cli.stack.specs import SERVICES, ServiceSpec


def main() -> int:
    """Exit code of the stack."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--replicas", type=int, default=2)
    given = parser.parse_args()
    # By name: the supervisor itself need not load the services.
    specs = tuple(ServiceSpec(spec.name, f"tests.chaos.apps:create_{spec.name}") for spec in SERVICES)
    replicas = {spec.name: given.replicas for spec in SERVICES}
    options = StackOptions(StackPaths.of(given.data_dir), given.port, replicas, services=specs)
    reporter = ConsoleReporter(sys.stdout, show_logs=False)
    try:
        return run_stack(options, reporter, detached=True)
    except StartRefusedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        reporter.close()


if __name__ == "__main__":
    sys.exit(main())
