"""`devpocket restore SOURCE`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path

from libs.cli.backup import workspaces
from libs.cli.backup.connecting import connected
from libs.cli.backup.place import Place, stored_credentials
from libs.cli.backup.saving import KEY_FILE, SERVICES, reached
from libs.cli.backup.workspaces import ARCHIVE
from libs.cli.stack.credentials import Credentials, load_or_create
from libs.cli.stack.leftovers import end_leftovers
from libs.cli.stack.lock import is_held
from libs.cli.stack.paths import StackPaths, write_private
from libs.cli.stack.state import load_state
from libs.common.backup.errors import BadBackupError, RestoreRefusedError
from libs.common.backup.manifest import Manifest, fingerprint, read_manifest, verify
from libs.common.backup.restoring import Restorer
from libs.common.backup.saving import Report, service_databases
from libs.runtime.local.layout import Layout


async def restore(place: Place, source: Path, *, replace_all: bool, with_workspaces: bool, report: Report) -> Manifest:
    """Everything in `source`, which is checked before anything is touched. Raises DevPocketError, and what
    `servers_alone` raises."""
    refuse_running(place)
    manifest = read_manifest(source)
    _require_services(manifest)
    with_workspaces = with_workspaces and bool(manifest.workspaces)
    if with_workspaces:
        _require_folder(place, manifest)
    key = fitting_key(place, source, manifest)
    await asyncio.to_thread(verify, source, manifest, lambda done, total: report("verifying", done, total))
    if place.paths is not None:
        _prepare_folder(place.paths, key)
    async with reached(place) as there, connected(there.settings) as (nats, mongo):
        names = service_databases(there.database_name, SERVICES)
        restorer = Restorer(nats, mongo, names, replicas=there.replicas, report=report)
        is_half_restored = await restorer.check(manifest, replace=replace_all)
        # A restore without workspaces leaves alone those that are there.
        layout = _layout(there) if with_workspaces else None
        if layout is not None and not (replace_all or is_half_restored):
            _require_empty(layout)
        if place.paths is not None:
            _keep_key(place.paths, key)
        await restorer.restore(source, manifest)
        if layout is not None:
            report("workspaces", 0, None)
            await asyncio.to_thread(workspaces.remove, layout)
            await asyncio.to_thread(workspaces.load, layout, source / ARCHIVE)
        await restorer.finish()
    return manifest


def refuse_running(place: Place) -> None:
    """Raises RestoreRefusedError when the local stack is up."""
    if place.paths is not None and (not place.is_down or is_held(place.paths.lock)):
        raise RestoreRefusedError(
            f"the stack with its data in {place.paths.root} is running; stop it with `devpocket down`, then restore"
        )


def fitting_key(place: Place, source: Path, manifest: Manifest) -> str:
    """The SECRET_KEY that opens what the backup holds. Raises RestoreRefusedError."""

    def fits(key: str | None) -> bool:
        return bool(key) and fingerprint(key or "") == manifest.key_fingerprint

    chosen = place.settings.get("SECRET_KEY")
    if chosen:
        if fits(chosen):
            return chosen
        raise RestoreRefusedError(
            "the backup was made with another SECRET_KEY than the one that is set here; what it has sealed (signing "
            "keys, environment variables, kubeconfigs) could not be opened: set the SECRET_KEY of that time"
        )
    stored = stored_credentials(place.paths) if place.paths is not None else None
    if stored is not None and fits(stored.secret_key):
        return stored.secret_key
    try:
        included = (source / KEY_FILE).read_text()
    except FileNotFoundError:
        included = ""
    if fits(included):
        return included
    raise RestoreRefusedError(
        "the SECRET_KEY that the backup was made with is neither in it nor known here; set SECRET_KEY to it, because "
        "what is sealed (signing keys, environment variables, kubeconfigs) cannot be opened without"
    )


def _require_folder(place: Place, manifest: Manifest) -> None:
    if place.runtime_dir is None:
        raise RestoreRefusedError(
            f"the backup holds {manifest.workspaces} workspaces, and no LOCAL_RUNTIME_DIR can be reached to put them "
            "into; make it so (with RUNTIME=local), or leave them out with --no-workspaces"
        )


def _require_services(manifest: Manifest) -> None:
    if set(manifest.databases) != set(SERVICES):
        raise BadBackupError(f"the backup is of the services {', '.join(sorted(manifest.databases))}")


def _require_empty(layout: Layout) -> None:
    if workspaces.count(layout):
        raise RestoreRefusedError(
            f"there are workspaces in {layout.workspaces}; to lose what is there, restore with --replace"
        )


def _prepare_folder(paths: StackPaths, key: str) -> None:
    paths.create()
    previous = load_state(paths.state)
    if previous is not None:
        end_leftovers(previous)
    if not paths.secrets.exists():
        load_or_create(paths.secrets, lambda: Credentials(secret_key=key))


def _keep_key(paths: StackPaths, key: str) -> None:
    """What is there now was sealed with another one, and is about to go."""
    credentials = load_or_create(paths.secrets)
    if credentials.secret_key != key:
        write_private(paths.secrets, json.dumps(asdict(replace(credentials, secret_key=key)), indent=2))


def _layout(place: Place) -> Layout | None:
    if place.runtime_dir is None:
        return None
    return workspaces.layout_of(place.runtime_dir, place.isolation)
