"""Paths below /workspace, and how they travel to a shell."""

from __future__ import annotations

import subprocess
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.terminal.workspace.errors import BadPathError
from services.terminal.workspace.paths import STAGE, WorkspacePath

_PIECES = st.sampled_from([b"..", b".", b"/", b"//", b"a", b"\0", b"etc", b"..a", b"%2e", b"\n", b"\xff"])
_NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda name: not {0, ord("/")} & set(name) and name not in {b".", b".."}
)


@given(st.one_of(st.binary(max_size=300), st.lists(_PIECES, max_size=12).map(b"".join)))
def test_no_path_leads_out(raw: bytes) -> None:
    try:
        path = WorkspacePath.parse(raw)
    except BadPathError:
        return
    depth = 0
    for name in path.raw.split(b"/") if path.raw else []:
        assert name not in {b"", b".", b".."}
        depth += 1
    assert depth == len(path.names)
    assert b"\0" not in path.raw
    assert not path.raw.startswith(b"/")
    assert path.raw == raw.removesuffix(b"/")


@given(st.lists(_NAMES, max_size=5))
def test_every_other_path_is_taken(names: list[bytes]) -> None:
    path = WorkspacePath.parse(b"/".join(names))
    assert path.names == tuple(names)
    assert unquote_to_bytes(path.url) == path.raw
    assert path.argument.isascii()


@settings(max_examples=15)
@given(st.lists(_NAMES, min_size=1, max_size=5))
def test_a_shell_gets_the_very_bytes(names: list[bytes]) -> None:
    path = WorkspacePath.parse(b"/".join(names))
    script = 'path=$(printf %b. "$1"); printf %s "${path%.}"'
    done = subprocess.run(["/bin/sh", "-c", script, "sh", path.argument], capture_output=True, check=True)
    assert done.stdout == path.raw


@pytest.mark.parametrize("raw", [b"a" * 256, b"/".join([b"a" * 200] * 21), b"/", b"//", b"a/../b"])
def test_what_no_file_system_would_take(raw: bytes) -> None:
    if raw == b"/":
        assert WorkspacePath.parse(raw).is_root
    else:
        with pytest.raises(BadPathError):
            WorkspacePath.parse(raw)


def test_where_uploads_wait_is_reserved() -> None:
    assert WorkspacePath.parse(f"{STAGE}/x".encode()).is_reserved
    assert not WorkspacePath.parse(f"a/{STAGE}".encode()).is_reserved
