"""Finding the programs a stack is made of."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

# Debian keeps servers where a plain user's PATH does not look.
_SYSTEM_DIRS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LD_LIBRARY_PATH")


class MissingProgramError(Exception):
    """A program is not installed; the text says what to install."""


def find_program(name: str) -> str | None:
    """Its path, or None."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_DIRS])
    return shutil.which(name, path=path)


def require_program(name: str, package: str) -> str:
    """Its path. Raises MissingProgramError."""
    found = find_program(name)
    if found is None:
        raise MissingProgramError(f"{name} is not installed; install the package {package} (`make up` does it as root)")
    return found


def sibling_script(name: str) -> str | None:
    """A script installed beside the running Python, i.e. in the same virtual environment."""
    path = Path(sys.executable).parent / name
    return str(path) if path.exists() else None


def bare_environment() -> dict[str, str]:
    """What a server that is not ours gets to see: no settings, no secrets."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
