from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from pathlib import Path

import pytest

from libs.runtime.local.layout import (
    Layout,
    check_environment_id,
    life_lock_held,
    read_json,
    take_life_lock,
    write_atomic,
)
from libs.runtime.port import RuntimeUnavailableError, WorkspaceRejectedError


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "runtime")
    made.create()
    return made


@pytest.mark.parametrize("good", ["a", "env-1", "0193b5a0-7d3e-7000-8000-000000000000", "A_b-C", "x" * 64])
def test_good_ids(good: str) -> None:
    assert check_environment_id(good) == good


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../a", "a\n", "a\0", "-a", "_a", "x" * 65, "ä", "a.b", "a b"])
def test_bad_ids(bad: str, layout: Layout) -> None:
    for use in (check_environment_id, layout.workspace, layout.state):
        with pytest.raises(WorkspaceRejectedError):
            use(bad)


def test_state_is_closed_to_others(layout: Layout) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in layout.root.iterdir()}
    assert modes == {"workspaces": 0o711, "state": 0o700, "uids": 0o700, "locks": 0o700, "trash": 0o700}


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeUnavailableError, match="LOCAL_RUNTIME_DIR"):
        Layout(tmp_path / "file" / "runtime").create()


def test_ids_come_from_volumes_and_records(layout: Layout) -> None:
    layout.workspace("volume-only").mkdir()
    layout.state("record-only").mkdir()
    (layout.workspaces / ".hidden").mkdir()
    assert layout.environment_ids() == ["record-only", "volume-only"]


def test_the_lock_excludes(layout: Layout) -> None:
    with (
        layout.lock("env"),
        pytest.raises(RuntimeUnavailableError, match="still going on"),
        layout.lock("env", timeout_seconds=0.05),
    ):
        pass
    with layout.lock("env", timeout_seconds=0.05):
        pass


def test_the_lock_excludes_also_while_its_file_is_removed(layout: Layout) -> None:
    inside, most, runs = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, runs
        for _ in range(20):
            with layout.lock("env"):
                inside += 1
                most = max(most, inside)
                runs += 1
                inside -= 1
                layout.forget_lock("env")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, runs) == (1, 80)


def test_atomic_writes_are_private_and_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write_atomic(path, "one")
    write_atomic(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "value"), [('{"a": 1}', {"a": 1}), ("", None), ("{", None), ("[1]", None), ("\0", None)]
)
def test_torn_records_are_no_records(tmp_path: Path, text: str, value: object) -> None:
    (tmp_path / "record").write_text(text)
    assert read_json(tmp_path / "record") == value
    assert read_json(tmp_path / "missing") is None


def hold(path: Path, fd: int) -> None:
    os.read(fd, 1)


def test_the_life_lock_passes_on_and_ends_with_its_last_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not life_lock_held(path)
    fd = take_life_lock(path)
    assert fd is not None
    assert take_life_lock(path) is None
    read_end, write_end = os.pipe()
    child = multiprocessing.get_context("fork").Process(target=hold, args=(path, read_end))
    child.start()
    os.close(fd)
    assert life_lock_held(path)
    os.write(write_end, b"x")
    child.join()
    assert not life_lock_held(path)
    os.close(read_end)
    os.close(write_end)


class TestReachableByOthers:
    def test_an_open_place_is_kept(self) -> None:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            os.chmod(folder, 0o711)
            layout = Layout(Path(folder) / "runtime")
            assert layout.reachable_by_others() is layout

    def test_a_closed_one_is_left_for_the_same_shared_one_each_time(self, tmp_path: Path) -> None:
        (tmp_path / "closed").mkdir(mode=0o700)
        layout = Layout(tmp_path / "closed" / "runtime")
        found = layout.reachable_by_others()
        assert found.root == Path("/var/tmp") / f"devpocket-{layout.digest}"
        assert Layout(tmp_path / "closed" / "runtime").reachable_by_others().root == found.root

    def test_a_place_that_somebody_prepared_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "closed").mkdir(mode=0o700)
        layout = Layout(tmp_path / "closed" / "runtime")
        prepared = layout.reachable_by_others().root
        prepared.symlink_to(tmp_path)
        try:
            with pytest.raises(RuntimeUnavailableError, match="belongs to another user"):
                layout.reachable_by_others()
        finally:
            prepared.unlink()
