"""How the keeper learns that a shell is about to run."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator

import pytest

from libs.runtime.local.keeper.starting import _is_readable


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As in a keeper of hundreds of shells."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("told", [b"7 (sh) S", b""])
@pytest.mark.usefixtures("many_descriptors")
def test_however_high_the_descriptor(told: bytes) -> None:
    out, into = os.pipe()
    high = fcntl.fcntl(out, fcntl.F_DUPFD_CLOEXEC, 2000)
    os.write(into, told)
    os.close(into)
    assert _is_readable(high)
    os.close(high)
    os.close(out)
