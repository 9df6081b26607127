"""NATS with JetStream."""

from __future__ import annotations

import json

from libs.cli.stack.credentials import Credentials
from libs.cli.stack.paths import StackPaths, write_private
from libs.cli.stack.ports import LOOPBACK
from libs.cli.stack.probes import nats_answers
from libs.cli.stack.programs import bare_environment, require_program
from libs.cli.stack.specs import ProcessSpec

# Terminal chunks are at most 64 KiB and events a few KiB; 1 MiB is also what every NATS client expects.
_MAX_PAYLOAD_BYTES = 1 << 20
_MAX_MEMORY_STORE_BYTES = 64 << 20
_MAX_FILE_STORE_BYTES = 10 << 30


def nats_config(paths: StackPaths, port: int, credentials: Credentials) -> str:
    """The configuration file; valid for 2.9 and later. NATS reads JSON as well as its own notation."""
    return json.dumps(
        {
            "server_name": "devpocket-local",
            "host": LOOPBACK,
            "port": port,
            "max_payload": _MAX_PAYLOAD_BYTES,
            "logtime": False,
            "authorization": {"user": credentials.nats_user, "password": credentials.nats_password},
            "jetstream": {
                "store_dir": str(paths.nats / "data"),
                "max_memory_store": _MAX_MEMORY_STORE_BYTES,
                "max_file_store": _MAX_FILE_STORE_BYTES,
            },
        },
        indent=2,
    )


def nats_url(port: int, credentials: Credentials) -> str:
    """For NATS_URL; holds the password."""
    return f"nats://{credentials.nats_user}:{credentials.nats_password}@{LOOPBACK}:{port}"


def nats_process(paths: StackPaths, port: int, credentials: Credentials) -> ProcessSpec:
    """Raises MissingProgramError."""
    program = require_program("nats-server", "nats-server")
    config = paths.nats / "nats.conf"
    write_private(config, nats_config(paths, port, credentials))
    return ProcessSpec(
        name="nats",
        argv=(program, "--config", str(config)),
        cwd=paths.nats,
        port=port,
        ready=nats_answers(port, credentials.nats_user, credentials.nats_password),
        environment=bare_environment(),
    )
