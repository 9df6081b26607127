"""A release: what it is called, and what it says of itself.

    release.py prepare 1.4.0     version in pyproject.toml; "Unreleased" in CHANGELOG.md becomes 1.4.0 of today
    release.py check v1.4.0      tag, version and CHANGELOG.md agree; says what does not
    release.py notes 1.4.0       that section of CHANGELOG.md

Only the standard library, so that it runs before anything is installed. `--root FOLDER` looks elsewhere.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import tomllib
from pathlib import Path

_SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")
_UNRELEASED = "## Unreleased"
_HEADING = r"^## {} - \d{{4}}-\d\d-\d\d$"


class ReleaseError(Exception):
    """Something does not agree; the text says what."""


def checked_version(text: str) -> str:
    """A semantic version, of which tags have a v in front. Raises ReleaseError."""
    version = text.removeprefix("v")
    if not _SEMANTIC.fullmatch(version):
        raise ReleaseError(f"{text!r} is no semantic version such as 1.4.0 or 2.0.0-rc.1")
    return version


def section(changelog: str, version: str) -> str:
    """What the changelog says of a version, without its heading. Raises ReleaseError."""
    heading = re.search(_HEADING.format(re.escape(version)), changelog, re.MULTILINE)
    if heading is None:
        raise ReleaseError(f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD'")
    text = re.split(r"^## ", changelog[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0].strip()
    if not text:
        raise ReleaseError(f"the section of {version} in CHANGELOG.md is empty")
    return text


def check(root: Path, tag: str) -> str:
    """The version that a tag stands for, when all agree. Raises ReleaseError."""
    if not tag.startswith("v"):
        raise ReleaseError(f"tags of releases begin with v, {tag!r} does not")
    version = checked_version(tag)
    packaged = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    if packaged != version:
        raise ReleaseError(f"the tag is {tag}, but pyproject.toml says {packaged}")
    section((root / "CHANGELOG.md").read_text(), version)
    return version


def prepare(root: Path, version: str, today: datetime.date) -> None:
    """Change pyproject.toml and CHANGELOG.md. Raises ReleaseError, with nothing changed."""
    project, changelog = (root / "pyproject.toml").read_text(), (root / "CHANGELOG.md").read_text()
    before = tomllib.loads(project)["project"]["version"]
    if _order(version) <= _order(before):
        raise ReleaseError(f"{version} does not come after {before}")
    if f"\n{_UNRELEASED}\n" not in changelog:
        raise ReleaseError(f"CHANGELOG.md has no '{_UNRELEASED}'")
    released = changelog.replace(f"{_UNRELEASED}\n", f"{_UNRELEASED}\n\n## {version} - {today.isoformat()}\n", 1)
    section(released, version)
    (root / "CHANGELOG.md").write_text(released)
    (root / "pyproject.toml").write_text(project.replace(f'\nversion = "{before}"\n', f'\nversion = "{version}"\n', 1))


def _order(version: str) -> tuple[list[int], bool, str]:
    numbers, _, candidate = version.partition("-")
    return [int(number) for number in numbers.split(".")], not candidate, candidate


def main(arguments: list[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["prepare", "check", "notes"])
    parser.add_argument("version")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2])
    given = parser.parse_args(arguments)
    try:
        if given.command == "check":
            print(check(given.root, given.version))
        elif given.command == "notes":
            print(section((given.root / "CHANGELOG.md").read_text(), checked_version(given.version)))
        else:
            version = checked_version(given.version)
            prepare(given.root, version, datetime.datetime.now(datetime.UTC).date())
            print(f"now: make contracts, commit as 'chore: release {version}', tag v{version}, push both")
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
