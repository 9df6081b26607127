"""What a backup is made of and which key fits, by what is there; no server needed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from libs.cli.backup.place import Place, find_place
from libs.cli.backup.restoring import fitting_key, refuse_running, restore
from libs.cli.backup.saving import KEY_FILE, SERVICES, has_generated_key
from libs.cli.main import app
from libs.cli.stack.credentials import load_or_create
from libs.cli.stack.lock import exclusive
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.settings import KNOWN
from libs.common.backup.errors import RestoreRefusedError
from libs.common.backup.manifest import MANIFEST, Manifest, StoredDatabase, fingerprint, to_text

_KEY = "k" * 40
_OTHER = "o" * 40


def manifest(key: str = _KEY) -> Manifest:
    return Manifest(
        version="1", moment=datetime.now(UTC), key_fingerprint=fingerprint(key), databases={}, streams={}, files={}
    )


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackPaths:
    """Of a stack that was never started."""
    for name in KNOWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return StackPaths.of(tmp_path / "data")


def test_a_stack_that_was_never_started_is_nothing_to_save_and_can_be_restored_into(paths: StackPaths) -> None:
    done = CliRunner().invoke(app, ["backup", "x", "--data-dir", str(paths.root)])
    assert (done.exit_code, "there is no stack in" in done.output) == (1, True)
    place = find_place(paths.root, {}, make=True)
    assert (place.paths, place.is_down, place.runtime_dir) == (paths, True, paths.runtime)


def test_servers_by_their_urls_need_the_key_of_the_services(paths: StackPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://db")
    monkeypatch.setenv("NATS_URL", "nats://bus")
    done = CliRunner().invoke(app, ["backup", "x", "--data-dir", str(paths.root)])
    assert (done.exit_code, "SECRET_KEY must be set" in done.output) == (2, True)
    monkeypatch.setenv("SECRET_KEY", _KEY)
    place = find_place(paths.root, {}, make=True)
    assert (place.paths, place.runtime_dir, place.settings["NATS_URL"]) == (None, None, "nats://bus")


def test_workspaces_of_servers_elsewhere_are_those_that_can_be_reached(tmp_path: Path) -> None:
    settings = {"RUNTIME": "local", "LOCAL_RUNTIME_DIR": str(tmp_path / "runtime")}
    assert Place(settings).runtime_dir is None
    (tmp_path / "runtime").mkdir()
    assert Place(settings).runtime_dir == tmp_path / "runtime"
    assert Place({**settings, "RUNTIME": "kubernetes"}).runtime_dir is None


async def test_workspaces_are_not_left_out_without_a_word(tmp_path: Path) -> None:
    with_some = manifest().model_copy(
        update={"workspaces": 2, "databases": {name: StoredDatabase(name=name, documents={}) for name in SERVICES}}
    )
    (tmp_path / MANIFEST).write_text(to_text(with_some))
    elsewhere = Place({"SECRET_KEY": _KEY, "MONGODB_URL": "mongodb://db", "NATS_URL": "nats://bus"})
    with pytest.raises(RestoreRefusedError, match="holds 2 workspaces"):
        await restore(elsewhere, tmp_path, replace_all=False, with_workspaces=True, report=lambda *_: None)


def test_both_urls_or_neither(paths: StackPaths) -> None:
    done = CliRunner().invoke(app, ["restore", "x", "--nats-url", "nats://bus"])
    assert (done.exit_code, "both, or neither" in done.output) == (2, True)


def test_only_the_key_that_the_stack_has_made_is_put_into_a_backup(paths: StackPaths) -> None:
    paths.create()
    own = load_or_create(paths.secrets).secret_key
    assert has_generated_key(Place({"SECRET_KEY": own}, paths))
    assert not has_generated_key(Place({"SECRET_KEY": _KEY}, paths))
    assert not has_generated_key(Place({"SECRET_KEY": own}))


def test_the_key_is_the_one_that_is_set_or_known_or_included(paths: StackPaths, tmp_path: Path) -> None:
    assert fitting_key(Place({"SECRET_KEY": _KEY}, paths), tmp_path, manifest()) == _KEY
    with pytest.raises(RestoreRefusedError, match="neither in it nor known here"):
        fitting_key(Place({}, paths), tmp_path, manifest())
    (tmp_path / KEY_FILE).write_text(_KEY)
    assert fitting_key(Place({}, paths), tmp_path, manifest()) == _KEY
    paths.create()
    own = load_or_create(paths.secrets).secret_key
    assert fitting_key(Place({}, paths), tmp_path, manifest(own)) == own
    with pytest.raises(RestoreRefusedError, match="another SECRET_KEY"):
        fitting_key(Place({"SECRET_KEY": _OTHER}, paths), tmp_path, manifest())


def test_the_fingerprint_tells_nothing_of_the_key() -> None:
    assert fingerprint(_KEY) == fingerprint(_KEY) != fingerprint(_OTHER)
    assert _KEY not in json.dumps(manifest().model_dump(mode="json"))


def test_a_stack_that_runs_is_not_restored_into(paths: StackPaths) -> None:
    paths.create()
    with exclusive(paths.lock), pytest.raises(RestoreRefusedError, match="devpocket down"):
        refuse_running(Place({}, paths, is_down=True))
