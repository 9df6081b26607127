"""The database: an installed `mongod`, else SecantusDB (MongoDB's wire protocol over WiredTiger).

Both listen on loopback and ask for credentials. They differ in how the first user comes to be: mongod lets a local
client make it, SecantusDB must be started once without authentication.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import signal
import sys
from pathlib import Path

from libs.cli.stack.credentials import Credentials
from libs.cli.stack.paths import StackPaths, write_private
from libs.cli.stack.ports import LOOPBACK, PortPicker
from libs.cli.stack.probes import accepts_connections, waking
from libs.cli.stack.programs import MissingProgramError, bare_environment, find_program, sibling_script
from libs.cli.stack.spawn import spawn
from libs.cli.stack.specs import ProcessSpec, ReadyProbe

REPLICA_SET = "devpocket"
_CACHE_MIB = 256
_PROVISION_TIMEOUT_S = 30.0
_ADMIN_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 4.0
_POLL_S = 0.05
# WiredTiger hands its log to the kernel at every commit (no fsync): a killed process then loses nothing it has
# acknowledged. Measured with kill -9 under load: 5 to 64 lost writes without, none with, at 0.9 of the speed.
_WIREDTIGER_CONFIG = "transaction_sync=(enabled=true,method=none)\n"


class ProvisioningError(Exception):
    """The first user could not be made; the text says why."""


def mongodb_url(port: int, credentials: Credentials) -> str:
    """For MONGODB_URL; holds the password."""
    login = f"{credentials.mongo_user}:{credentials.mongo_password}"
    url = f"mongodb://{login}@{LOOPBACK}:{port}/?authSource=admin&directConnection=true"
    # At each retryable write the embedded database looks through its records of all others, of half an hour: 0.6 ms of
    # a core become 1.9 ms after 6,000 writes. They would not help: a connection breaks when it restarts, and then they
    # are gone.
    return url if find_program("mongod") else f"{url}&retryWrites=false"


def database_process(paths: StackPaths, port: int, credentials: Credentials, ports: PortPicker) -> ProcessSpec:
    """The one that is installed, mongod first. Raises MissingProgramError."""
    mongod = find_program("mongod")
    if mongod is not None:
        return _mongod_process(mongod, paths, port, credentials)
    secantus = sibling_script("secantusd-py") or find_program("secantusd-py")
    if secantus is None:
        raise MissingProgramError(
            "there is no database: install mongod, or the Python package SecantusDB (pre-release)"
        )
    return _secantus_process(secantus, paths, port, credentials, ports)


def _mongod_process(program: str, paths: StackPaths, port: int, credentials: Credentials) -> ProcessSpec:
    folder = paths.database / "mongod"
    folder.mkdir(mode=0o700, exist_ok=True)
    key_file = paths.database / "replica.key"
    if not key_file.exists():
        write_private(key_file, secrets.token_hex(256))
    config = paths.database / "mongod.conf"
    options = {
        "storage": {"dbPath": str(folder), "wiredTiger": {"engineConfig": {"cacheSizeGB": _CACHE_MIB / 1024}}},
        "net": {"bindIp": LOOPBACK, "port": port},
        "replication": {"replSetName": REPLICA_SET},
        "security": {"authorization": "enabled", "keyFile": str(key_file)},
    }
    # JSON is YAML.
    write_private(config, json.dumps(options, indent=2))
    return ProcessSpec(
        name="mongodb",
        argv=(program, "--config", str(config)),
        cwd=paths.database,
        port=port,
        ready=_mongod_ready(port, credentials),
        environment=bare_environment(),
    )


def _mongod_ready(port: int, credentials: Credentials) -> ReadyProbe:
    listening = accepts_connections(port)

    async def ready() -> str | None:
        problem = await listening()
        if problem is None:
            problem = await run_admin("initiate", port, credentials)
        return problem

    return ready


def _secantus_process(
    program: str, paths: StackPaths, port: int, credentials: Credentials, ports: PortPicker
) -> ProcessSpec:
    folder = paths.database / "secantus"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "WiredTiger.config").write_text(_WIREDTIGER_CONFIG)
    config = paths.database / "secantusd.toml"
    # Named explicitly, because the server would otherwise look for one in the working and home folders.
    write_private(config, "")

    def argv(on_port: int, *more: str) -> tuple[str, ...]:
        where = ("--host", LOOPBACK, "--port", str(on_port), "--storage-path", str(folder))
        return (program, "--config", str(config), *where, "--cache-size", f"{_CACHE_MIB}M", *more)

    async def provision() -> None:
        private_port = ports.pick()
        await _provision_once(paths.database, argv(private_port), private_port, credentials)

    return ProcessSpec(
        name="mongodb",
        argv=argv(port, "--auth", "--log-level", "WARNING"),
        cwd=paths.database,
        port=port,
        # It listens only once its files are open and recovered.
        ready=accepts_connections(port),
        environment={**bare_environment(), "PYTHONUNBUFFERED": "1"},
        prepare=provision,
        wake_to_stop=True,
    )


async def _provision_once(folder: Path, argv: tuple[str, ...], port: int, credentials: Credentials) -> None:
    """Make the user with the server open to local clients, then stop it. The mark is written last, so a crash at any
    point leads to another, harmless, round; a mark of other credentials does so too."""
    mark = folder / "provisioned"
    login = f"{credentials.mongo_user}:{credentials.mongo_password}"
    fingerprint = hashlib.sha256(login.encode()).hexdigest()
    if mark.exists() and mark.read_text() == fingerprint:
        return
    process = await spawn(argv, cwd=folder, environment=bare_environment(), output=asyncio.subprocess.DEVNULL)
    try:
        await _wait_listening(process, port)
        problem = await run_admin("create-user", port, credentials)
        if problem is not None:
            raise ProvisioningError(f"the database user could not be created: {problem}")
    finally:
        await _end(process, port)
    write_private(mark, fingerprint)


async def _end(process: asyncio.subprocess.Process, port: int) -> None:
    """Politely; a kill is safe as well, because the log is with the kernel."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S), waking(port):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _wait_listening(process: asyncio.subprocess.Process, port: int) -> None:
    listening = accepts_connections(port)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PROVISION_TIMEOUT_S):
            while process.returncode is None:
                if await listening() is None:
                    return
                await asyncio.sleep(_POLL_S)
    state = "did not answer" if process.returncode is None else f"ended with code {process.returncode}"
    raise ProvisioningError(f"the database {state} while its first user was being made")


async def run_admin(action: str, port: int, credentials: Credentials) -> str | None:
    """Run one action of `mongo_admin` in a process of its own; None, or what went wrong.

    The driver takes 20 MB that a supervisor need not hold for ever. The password goes through a pipe.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "libs.cli.stack.infrastructure.mongo_admin"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    request = {
        "action": action,
        "port": port,
        "user": credentials.mongo_user,
        "password": credentials.mongo_password,
        "replica_set": REPLICA_SET,
    }
    try:
        async with asyncio.timeout(_ADMIN_TIMEOUT_S):
            _, errors = await process.communicate(json.dumps(request).encode())
    except TimeoutError:
        return "no answer in time"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return None if process.returncode == 0 else errors.decode(errors="replace").strip()[-500:] or "it failed"
