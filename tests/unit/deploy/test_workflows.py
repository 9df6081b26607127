"""The GitHub workflows fit their schemas, may do little, and name what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.unit.deploy.manifests import ROOT, SERVICES

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
Workflow = dict[Any, Any]


def workflow(name: str) -> Workflow:
    """One of them; `on` is what YAML calls true."""
    loaded: Workflow = yaml.safe_load((FOLDER / f"{name}.yml").read_text())  # type: ignore[no-untyped-call]
    return loaded


def jobs() -> Iterator[tuple[str, Workflow]]:
    """All jobs of all workflows, by file and name."""
    for file in FILES:
        for name, job in workflow(file.stem)["jobs"].items():
            yield f"{file.name}:{name}", job


def steps() -> Iterator[tuple[str, Workflow]]:
    """All steps of all jobs."""
    for name, job in jobs():
        for step in job.get("steps", ()):
            yield name, step


@pytest.mark.parametrize(
    ("schema", "files"),
    [("vendor.github-workflows", FILES), ("vendor.dependabot", [ROOT / ".github" / "dependabot.yml"])],
)
def test_they_fit_the_published_schema(schema: str, files: list[Any]) -> None:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="no actionlint here")
def test_actionlint_has_nothing_to_say() -> None:
    done = subprocess.run(["actionlint", *map(str, FILES)], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""


def test_every_job_ends() -> None:
    endless = [name for name, job in jobs() if "uses" not in job and "timeout-minutes" not in job]
    assert endless == []


def test_a_workflow_may_read_and_nothing_else() -> None:
    """A job that needs more says so itself. What is only called has what its caller gives."""
    for file in FILES:
        loaded = workflow(file.stem)
        expected = None if set(loaded[True]) == {"workflow_call"} else {"contents": "read"}
        assert loaded.get("permissions") == expected, file.name


def test_who_may_write_what() -> None:
    writers = {
        (name, scope)
        for name, job in jobs()
        for scope, access in job.get("permissions", {}).items()
        if access == "write"
    }
    signing = {"id-token", "attestations"}
    assert writers == {
        *(("release.yml:images", scope) for scope in {"packages", *signing}),
        *(("release.yml:packages", scope) for scope in signing),
        ("release.yml:publish", "contents"),
    }


def test_actions_are_pinned() -> None:
    used = [step["uses"] for _, step in steps() if "uses" in step]
    assert used
    loose = [action for action in used if not re.search(r"@(v\d+(\.\d+)*|[0-9a-f]{40})$", action)]
    assert loose == []


def test_what_strangers_write_gets_into_no_shell() -> None:
    """An expression in `run` is pasted into the script: a branch or a title could bring its own commands."""
    pasted = [f"{name}: {step['run']}" for name, step in steps() if "${{" in step.get("run", "")]
    assert pasted == []


def test_scripts_that_are_run_are_there() -> None:
    named = {
        path for _, step in steps() for path in re.findall(r"(?:deploy/scripts|\.ci)/[\w.-]+", step.get("run", ""))
    }
    assert {"deploy/scripts/contract_diff.py", "deploy/scripts/release.py", ".ci/run"} <= named
    assert all((ROOT / path).is_file() for path in named)


def test_every_image_is_built() -> None:
    matrix = workflow("images")["jobs"]["build"]["strategy"]["matrix"]["include"]
    assert {entry["image"] for entry in matrix} == {f"devpocket-{name}" for name in (*SERVICES, "cli", "gateway")}
    assert all((ROOT / entry["file"]).is_file() for entry in matrix)


def test_nothing_is_published_before_all_has_been_checked() -> None:
    release = workflow("release")["jobs"]

    def before(name: str) -> set[str]:
        needed = release[name].get("needs", [])
        direct = {needed} if isinstance(needed, str) else set(needed)
        return direct.union(*(before(other) for other in direct))

    assert {"agreement", "ci"} <= before("images")
    assert {"agreement", "ci", "images", "packages"} <= before("publish")
