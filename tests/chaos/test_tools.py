"""The tools of the suite: the same seed means the same faults, and a watcher sees what it watches for."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from libs.cli.stack.paths import StackPaths
from tests.chaos import namespaces
from tests.chaos.faults import KILL, PAUSE, Fault, Menu
from tests.chaos.handler_faults import HandlerFaults
from tests.chaos.sandboxes import Sandboxes

_MENU = Menu(["envs-1", "envs-2", "orchestrator-1"])


def test_a_seed_gives_the_same_faults_again() -> None:
    first, again, other = (list(islice(_MENU.schedule(seed), 200)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_kind_of_fault_comes_and_pauses_end() -> None:
    faults = [fault for fault in islice(_MENU.schedule(1), 1000) if isinstance(fault, Fault)]
    kinds = Counter(fault.kind for fault in faults)
    services = {f"{verb} {name}" for verb in ("kill -9", "terminate", "pause") for name in ("envs", "orchestrator")}
    parts = {f"{verb} {name}" for verb in ("kill -9", "terminate", "pause") for name in ("nats", "mongodb", "redis")}
    assert set(kinds) == services | parts
    assert all((fault.pause_s > 0) == (fault.signal is PAUSE) for fault in faults)
    assert any(fault.pause_s > _MENU.lease_s for fault in faults if fault.target == "orchestrator-1")


def test_only_some_kinds() -> None:
    faults = list(islice(Menu(["envs-1"], only="kill -9 envs").schedule(1), 20))
    assert faults == [Fault("envs-1", KILL)] * 20


def test_handlers_fail_as_often_as_asked_and_not_for_ever(tmp_path: Path) -> None:
    faults = HandlerFaults("1", 0.1, tmp_path)
    drawn = [faults.draw("envs-runtime", sequence, 1) for sequence in range(2000)]
    hit = [sequence for sequence, found in enumerate(drawn) if found is not None]
    assert 100 < len(hit) < 300
    assert {found[0] for found in drawn if found is not None} == {"before", "after"}
    again = [sequence for sequence in hit if faults.draw("envs-runtime", sequence, 2) is not None]
    assert len(again) < len(hit) / 2


@pytest.mark.parametrize(
    ("source", "rest"),
    [
        ("/tmp/run1/data/runtime/e1", "e1"),
        # The file system is mounted at /tmp, or the folder comes from deep inside of it.
        ("/run1/data/runtime/e1/x", "e1/x"),
        ("/images/7/tmp/run1/data/runtime/e1", "e1"),
        ("/tmp/run2/data/runtime/e1", None),
        ("/tmp/other/run1/data/runtime/e1", None),
        ("/tmp/run1/data/runtime", None),
        (None, None),
    ],
)
def test_a_mount_is_known_by_its_end(source: str | None, rest: str | None) -> None:
    assert namespaces.below(source, Path("/tmp/run1/data/runtime")) == rest


@contextmanager
def sandbox(workspace: Path) -> Iterator[None]:
    """A process-id namespace with this folder as its /workspace."""
    workspace.mkdir(parents=True, exist_ok=True)
    system = [part for name in ("/usr", "/bin", "/lib", "/lib64") for part in ("--ro-bind-try", name, name)]
    command = ["bwrap", "--die-with-parent", "--unshare-pid", *system, "--proc", "/proc"]
    with subprocess.Popen([*command, "--bind", str(workspace), "/workspace", "sleep", "60"]) as process:
        yield
        process.kill()


def appears(sandboxes: Sandboxes, namespaces: int) -> bool:
    """Whether the environment `e1` gets that many sandboxes within some seconds."""
    deadline = time.monotonic() + 60
    while len(sandboxes.living().get("e1", {})) != namespaces:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_two_sandboxes_of_one_environment_are_seen(tmp_path: Path) -> None:
    sandboxes = Sandboxes(tmp_path)
    workspaces = StackPaths.of(tmp_path).runtime / "workspaces"
    with sandbox(workspaces / "e1"), sandbox(workspaces / "e2"):
        assert appears(sandboxes, 1)
        assert sandboxes.twice() == {}
        assert Sandboxes(tmp_path / "other").living() == {}
        with sandbox(workspaces / "e1"):
            assert appears(sandboxes, 2)
            assert set(sandboxes.twice()) == {"e1"}
    assert appears(sandboxes, 0)
