"""`devpocket backup TARGET`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from libs.cli.backup.connecting import connected
from libs.cli.backup.place import Place
from libs.cli.backup.servers import servers_alone
from libs.cli.backup.workspaces import ARCHIVE
from libs.cli.stack.credentials import load_or_create
from libs.cli.stack.lock import exclusive
from libs.cli.stack.paths import write_private
from libs.common.backup.databases import saved_ids
from libs.common.backup.errors import BackupFailedError
from libs.common.backup.manifest import MANIFEST, Manifest, described, fingerprint, to_text
from libs.common.backup.saving import DATABASES, Report, Saver, service_databases
from libs.common.version import VERSION

KEY_FILE = "secret-key"
SERVICES = ("auth", "envs", "orchestrator", "terminal")
# Where there is a document for every workspace.
_WORKSPACES = ("orchestrator", "workspaces")


@asynccontextmanager
async def reached(place: Place) -> AsyncIterator[Place]:
    """The place with servers that answer: those of a stack that is down run for the length of the block."""
    if place.paths is None or not place.is_down:
        yield place
        return
    credentials = load_or_create(place.paths.secrets)
    with exclusive(place.paths.lock):
        async with servers_alone(place.paths, place.settings, credentials) as settings:
            key = settings.get("SECRET_KEY") or credentials.secret_key
            yield Place({**settings, "SECRET_KEY": key}, place.paths, is_down=True)


async def save(place: Place, target: Path, *, with_workspaces: bool, with_key: bool, report: Report) -> Manifest:
    """A complete backup at `target`, which must not be there, or none.

    Raises DevPocketError, and what `servers_alone` raises.
    """
    draft = target.with_name(f".{target.name}.incomplete")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Of an attempt that was killed.
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        async with reached(place) as there:
            manifest = await _fill(there, draft, with_workspaces=with_workspaces, with_key=with_key, report=report)
        write_private(draft / MANIFEST, to_text(manifest))
        _to_disk(draft)
        draft.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise BackupFailedError(f"{error.filename or target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


async def _fill(place: Place, draft: Path, *, with_workspaces: bool, with_key: bool, report: Report) -> Manifest:
    names = service_databases(place.database_name, SERVICES)
    async with connected(place.settings) as (nats, mongo):
        saved = await Saver(nats, mongo, names, report).save(draft)
    workspaces = await asyncio.to_thread(_save_workspaces, place, draft, report) if with_workspaces else None
    if with_key and has_generated_key(place):
        write_private(draft / KEY_FILE, place.settings["SECRET_KEY"])
    report("checksums", 0, None)
    return Manifest(
        version=VERSION,
        moment=saved.moment,
        key_fingerprint=fingerprint(place.settings["SECRET_KEY"]),
        databases=saved.databases,
        streams=saved.streams,
        workspaces=workspaces,
        files=await asyncio.to_thread(described, draft),
    )


def has_generated_key(place: Place) -> bool:
    """Whether SECRET_KEY exists nowhere but in the stack's folder. One that the operator has set is theirs to keep."""
    if place.paths is None or not place.paths.secrets.exists():
        return False
    return place.settings.get("SECRET_KEY") == load_or_create(place.paths.secrets).secret_key


def _save_workspaces(place: Place, draft: Path, report: Report) -> int | None:
    if place.runtime_dir is None:
        return None
    from libs.cli.backup import workspaces

    report("workspaces", 0, None)
    layout = workspaces.layout_of(place.runtime_dir, place.isolation)
    service, collection = _WORKSPACES
    known = saved_ids(draft / DATABASES / service_databases(place.database_name, [service])[service], collection)
    return workspaces.save(layout, draft / ARCHIVE, known)


def _to_disk(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            os.fsync(number)
    finally:
        os.close(number)
