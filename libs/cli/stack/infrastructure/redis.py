"""Redis."""

from __future__ import annotations

from libs.cli.stack.credentials import Credentials
from libs.cli.stack.paths import StackPaths, write_private
from libs.cli.stack.ports import LOOPBACK
from libs.cli.stack.probes import redis_answers
from libs.cli.stack.programs import bare_environment, require_program
from libs.cli.stack.specs import ProcessSpec


def redis_config(paths: StackPaths, port: int, credentials: Credentials) -> str:
    """The configuration file. Revocations must survive a crash, hence the append-only file; keys must never be evicted
    for space, because an evicted revocation brings a dead token back to life."""
    return "\n".join(
        [
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {credentials.redis_password}",
            f'dir "{paths.redis}"',
            "daemonize no",
            "databases 1",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory 256mb",
            "maxmemory-policy noeviction",
            "always-show-logo no",
            "set-proc-title no",
            'logfile ""',
            "",
        ]
    )


def redis_url(port: int, credentials: Credentials) -> str:
    """For REDIS_URL; holds the password."""
    return f"redis://:{credentials.redis_password}@{LOOPBACK}:{port}/0"


def redis_process(paths: StackPaths, port: int, credentials: Credentials) -> ProcessSpec:
    """Raises MissingProgramError."""
    program = require_program("redis-server", "redis-server")
    config = paths.redis / "redis.conf"
    write_private(config, redis_config(paths, port, credentials))
    return ProcessSpec(
        name="redis",
        argv=(program, str(config)),
        cwd=paths.redis,
        port=port,
        ready=redis_answers(port, credentials.redis_password),
        environment=bare_environment(),
    )
