"""A release is made only when tag, version and changelog say the same."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.deploy.manifests import ROOT
from tests.unit.deploy.scripts import loaded

Release = Callable[..., tuple[int, str]]

PROJECT = '[project]\nname = "devpocket"\nversion = "1.3.0"\n\n[tool.other]\nversion = "1.3.0"\n'
CHANGELOG = """# Changelog

## Unreleased

### Added
- A thing.

## 1.3.0 - 2026-01-02

### Fixed
- Another thing.
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project at 1.3.0."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


@pytest.fixture
def release(root: Path, capsys: pytest.CaptureFixture[str]) -> Release:
    """Run the script on `root`: its exit code, and what it says."""

    def run(*arguments: str) -> tuple[int, str]:
        code = loaded("release").main([*arguments, "--root", str(root)])
        said = capsys.readouterr()
        return code, (said.out + said.err).strip()

    return run


def test_what_agrees_is_released(release: Release) -> None:
    assert release("check", "v1.3.0") == (0, "1.3.0")
    assert release("notes", "1.3.0") == (0, "### Fixed\n- Another thing.")


@pytest.mark.parametrize(
    ("tag", "why"),
    [
        ("v1.4.0", "the tag is v1.4.0, but pyproject.toml says 1.3.0"),
        ("1.3.0", "tags of releases begin with v, '1.3.0' does not"),
        ("v1.3", "'v1.3' is no semantic version such as 1.4.0 or 2.0.0-rc.1"),
        ("v01.3.0", "'v01.3.0' is no semantic version such as 1.4.0 or 2.0.0-rc.1"),
    ],
)
def test_another_tag_is_refused(release: Release, tag: str, why: str) -> None:
    assert release("check", tag) == (1, f"release: {why}")


@pytest.mark.parametrize(
    ("changelog", "why"),
    [
        (CHANGELOG.replace("## 1.3.0 - 2026-01-02", "## 1.3.0"), "CHANGELOG.md has no section '## 1.3.0 - YYYY-MM-DD'"),
        (CHANGELOG.replace("1.3.0", "1.2.0"), "CHANGELOG.md has no section '## 1.3.0 - YYYY-MM-DD'"),
        (CHANGELOG.partition("### Fixed")[0], "the section of 1.3.0 in CHANGELOG.md is empty"),
    ],
)
def test_a_changelog_that_does_not_tell_of_it_is_refused(
    release: Release, root: Path, changelog: str, why: str
) -> None:
    (root / "CHANGELOG.md").write_text(changelog)
    assert release("check", "v1.3.0") == (1, f"release: {why}")


def test_preparing_changes_version_and_changelog(release: Release, root: Path) -> None:
    days = [datetime.datetime.now(datetime.UTC).date().isoformat()]
    code, said = release("prepare", "1.4.0")
    assert (code, "tag v1.4.0" in said) == (0, True)
    assert release("check", "v1.4.0") == (0, "1.4.0")
    assert release("notes", "1.4.0") == (0, "### Added\n- A thing.")
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert (project["project"]["version"], project["tool"]["other"]["version"]) == ("1.4.0", "1.3.0")
    changelog = (root / "CHANGELOG.md").read_text()
    assert changelog.index("## Unreleased\n\n## 1.4.0 - ") < changelog.index("- A thing.")
    days.append(datetime.datetime.now(datetime.UTC).date().isoformat())
    assert any(f"## 1.4.0 - {day}\n" in changelog for day in days)


@pytest.mark.parametrize("version", ["1.3.0", "1.2.9", "1.3.0-rc.1"])
def test_a_version_comes_after_the_last_one(release: Release, root: Path, version: str) -> None:
    assert release("prepare", version) == (1, f"release: {version} does not come after 1.3.0")
    assert (root / "CHANGELOG.md").read_text() == CHANGELOG


def test_nothing_is_released_without_anything_new(release: Release, root: Path) -> None:
    (root / "CHANGELOG.md").write_text(CHANGELOG.replace("### Added\n- A thing.\n\n", ""))
    assert release("prepare", "1.4.0") == (1, "release: the section of 1.4.0 in CHANGELOG.md is empty")
    assert (root / "pyproject.toml").read_text() == PROJECT


def test_our_own_next_release_can_be_prepared(release: Release, root: Path) -> None:
    for name in ("pyproject.toml", "CHANGELOG.md"):
        (root / name).write_text((ROOT / name).read_text())
    assert release("prepare", "99.0.0")[0] == 0
    assert release("check", "v99.0.0") == (0, "99.0.0")
