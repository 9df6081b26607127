from __future__ import annotations

from pathlib import Path

import pytest

from libs.runtime.local.isolation import Isolation
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.local.sandbox import _ETC, describe_sandbox, hostname, missing_toolchain
from libs.runtime.port import RuntimeUnavailableError
from tests.runtime_contract.workspaces import make_spec


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my-env", "my-env"),
        ("My Env!", "my-env"),
        ("--", "devpocket"),
        ("", "devpocket"),
        ("x" * 80, "x" * 63),
        ("ä", "devpocket"),
    ],
)
def test_host_names(name: str, expected: str) -> None:
    assert hostname(name) == expected


def test_nothing_of_the_users_is_on_a_command_line() -> None:
    spec = make_spec(variables={"TOKEN": "swordfish"}, startup_command="echo swordfish")
    main = describe_sandbox(spec, Isolation.ROOT, 1_900_000_001, Path("/v"), "/usr/bin/bwrap", network=True)
    assert main.sandbox_args is not None
    assert "swordfish" not in " ".join([*main.argv, *main.sandbox_args])


def test_secrets_of_the_host_are_not_mounted() -> None:
    assert {"shadow", "gshadow", "ssh", "ssl/private", "ssl", "sudoers", "machine-id"}.isdisjoint(_ETC)


def test_without_a_network_there_is_no_resolver() -> None:
    def resolver(*, network: bool) -> bytes:
        main = describe_sandbox(make_spec(), Isolation.ROOT, 1, Path("/v"), "bwrap", network=network)
        return {path: data for path, _, data in main.files}["/etc/resolv.conf"]

    assert resolver(network=True) == b"nameserver 10.0.2.3\n"
    assert b"nameserver" not in resolver(network=False)


def test_a_missing_toolchain_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert missing_toolchain("ubuntu:24.04") is None
    assert missing_toolchain("example/python:3") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    zig = {"zig": ("zig-compiler", "Zig")}
    words = missing_toolchain("zig:1", zig)
    assert words is not None
    assert "zig-compiler" in words
    assert "elsewhere" not in words
    (tmp_path / "zig-compiler").touch(mode=0o755)
    assert "installed elsewhere" in (missing_toolchain("zig:1", zig) or "")


async def test_a_driver_that_is_not_open_says_so(tmp_path: Path) -> None:
    runtime = LocalRuntime(tmp_path)
    with pytest.raises(RuntimeUnavailableError, match="not open"):
        await runtime.list()
    await runtime.close()
