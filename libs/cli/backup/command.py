"""The two commands: options, and what they say."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import DATA_DIR, DataDir, Json, fail

if TYPE_CHECKING:
    from libs.common.backup.manifest import Manifest

Target = Annotated[Path, typer.Argument(metavar="TARGET", help="The folder to make; it must not be there yet.")]
Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="The folder that `devpocket backup` has made.")]
MongoUrl = Annotated[
    str | None,
    typer.Option(
        "--mongodb-url",
        metavar="URL",
        help="These servers, not a local stack; others see command lines, so rather set MONGODB_URL.",
    ),
]
NatsUrl = Annotated[str | None, typer.Option("--nats-url", metavar="URL", help="Likewise NATS_URL; both or neither.")]
NoWorkspaces = Annotated[
    bool, typer.Option("--no-workspaces", help="Leave out the workspaces' files (of the local runtime).")
]
WithoutKey = Annotated[
    bool, typer.Option("--without-key", help="Leave out the SECRET_KEY that the local stack has made for itself.")
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Remove the databases, streams and workspaces that are there, for good.")
]


def backup(
    target: Target,
    *,
    data_dir: DataDir = DATA_DIR,
    mongodb_url: MongoUrl = None,
    nats_url: NatsUrl = None,
    no_workspaces: NoWorkspaces = False,
    without_key: WithoutKey = False,
    as_json: Json = False,
) -> None:
    """Save accounts, environments, event history and workspaces, also while everything runs."""
    from libs.cli.backup.place import find_place
    from libs.cli.backup.saving import KEY_FILE, save
    from libs.cli.backup.showing import bars

    target = target.expanduser().absolute()
    if target.exists():
        fail(f"{target} is there already; a backup is never written over anything")
    place = find_place(data_dir, _urls(mongodb_url, nats_url), make=False)
    started = time.monotonic()
    with bars() as report:
        saving = save(place, target, with_workspaces=not no_workspaces, with_key=not without_key, report=report)
        manifest = _run(saving)
    includes_key = KEY_FILE in manifest.files
    _show(target, manifest, time.monotonic() - started, "saved", as_json=as_json, includes_key=includes_key)
    if includes_key:
        typer.echo(
            f"devpocket: {target / KEY_FILE} is the SECRET_KEY that everything in the backup is sealed with. "
            "Whoever has the folder can read it all: keep it with your secrets, or leave the key out (--without-key).",
            err=True,
        )


def restore(
    source: Source,
    *,
    data_dir: DataDir = DATA_DIR,
    mongodb_url: MongoUrl = None,
    nats_url: NatsUrl = None,
    replace: Replace = False,
    no_workspaces: NoWorkspaces = False,
    as_json: Json = False,
) -> None:
    """Bring back what a backup holds. The services must be stopped; start them afterwards."""
    from libs.cli.backup.place import find_place
    from libs.cli.backup.restoring import restore as restore_into
    from libs.cli.backup.showing import bars

    source = source.expanduser().absolute()
    place = find_place(data_dir, _urls(mongodb_url, nats_url), make=True)
    started = time.monotonic()
    with bars() as report:
        manifest = _run(
            restore_into(place, source, replace_all=replace, with_workspaces=not no_workspaces, report=report)
        )
    _show(source, manifest, time.monotonic() - started, "restored", as_json=as_json)


def _urls(mongodb_url: str | None, nats_url: str | None) -> dict[str, str]:
    if (mongodb_url is None) != (nats_url is None):
        fail("--mongodb-url and --nats-url: give both, or neither", code=2)
    return {"MONGODB_URL": mongodb_url, "NATS_URL": nats_url} if mongodb_url and nats_url else {}


def _run(work: Coroutine[Any, Any, Manifest]) -> Manifest:
    from libs.cli.stack.infrastructure.database import ProvisioningError
    from libs.cli.stack.lock import AlreadyRunningError
    from libs.cli.stack.managed import ComponentFailedError
    from libs.cli.stack.ports import NoFreePortError
    from libs.cli.stack.programs import MissingProgramError
    from libs.common.errors import DevPocketError
    from libs.runtime.port import DriverError

    before = os.umask(0o077)
    try:
        return asyncio.run(work)
    except DevPocketError as error:
        fail(error.message)
    except AlreadyRunningError:
        fail("the stack has just been started; try again")
    except (ComponentFailedError, ProvisioningError, MissingProgramError, NoFreePortError, DriverError) as error:
        fail(str(error))
    finally:
        os.umask(before)


def _show(
    folder: Path, manifest: Manifest, seconds: float, done: str, *, as_json: bool, includes_key: bool | None = None
) -> None:
    from libs.cli.backup.showing import size

    documents = sum(sum(item.documents.values()) for item in manifest.databases.values())
    last = {name: item.last_sequence for name, item in manifest.streams.items()}
    if as_json:
        told: dict[str, Any] = {
            "folder": str(folder),
            "moment": manifest.moment.isoformat(),
            "documents": documents,
            "last_sequences": last,
            "workspaces": manifest.workspaces,
            "bytes": manifest.size,
            "seconds": round(seconds, 1),
        }
        typer.echo(json.dumps(told if includes_key is None else {**told, "includes_key": includes_key}))
        return
    files = "no workspaces" if manifest.workspaces is None else f"{manifest.workspaces} workspaces"
    events = ", ".join(f"{name} up to {sequence}" for name, sequence in last.items())
    typer.echo(
        f"{done} {folder}, as of {manifest.moment:%Y-%m-%d %H:%M:%S} UTC, in {seconds:.1f} s: "
        f"{documents} documents, {events}, {files}, {size(manifest.size)}"
    )
