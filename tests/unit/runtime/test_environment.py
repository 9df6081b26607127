from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.runtime.local.environment import CARRIER, ENTER_SCRIPT, carrier_text, workspace_environment
from libs.runtime.port import WorkspaceRejectedError
from tests.runtime_contract.workspaces import make_spec

values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)


def enter(variables: dict[str, str], *argv: str) -> bytes:
    """What a command prints that is started the way every command in a workspace is."""
    done = subprocess.run(
        ["/bin/sh", "-c", ENTER_SCRIPT + "", "sh", "/", *argv],
        env={CARRIER: carrier_text(variables), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        pass_fds=(),
    )
    return done.stdout


@given(values)
def test_any_value_arrives_unchanged(value: str) -> None:
    assert enter({"VALUE": value}, "printenv", "VALUE") == value.encode() + b"\n"


def test_the_carrier_itself_is_gone() -> None:
    assert CARRIER.encode() not in enter({"A": "b"}, "env")


@pytest.mark.parametrize("name", ["OPTIND", "PPID", "UID", "EUID", "SHELLOPTS", "BASHOPTS", "LINENO"])
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_variables_that_shells_own_do_not_break_the_way_in(name: str, shell: str) -> None:
    text = carrier_text({name: "nonsense", "AFTER": "fine"})
    done = subprocess.run([shell, "-c", f"{text}\necho $AFTER"], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"fine\n"


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A-B", "Ä", "A\n", "A;id"])
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(WorkspaceRejectedError, match="environment variable"):
        carrier_text({name: "x"})


def test_the_size_is_bounded() -> None:
    carrier_text({"A": "x" * 100_000})
    with pytest.raises(WorkspaceRejectedError, match="too large"):
        carrier_text({"A": "x" * 130_000})


def test_the_users_variables_win_except_who_it_is() -> None:
    spec = make_spec(variables={"PATH": "/mine", "LANG": "de_DE.UTF-8", "DEVPOCKET_ENVIRONMENT_ID": "another"})
    variables = workspace_environment(spec, home="/workspace", shell="/bin/bash")
    assert variables["PATH"] == "/mine"
    assert variables["LANG"] == "de_DE.UTF-8"
    assert variables["DEVPOCKET_ENVIRONMENT_ID"] == spec.ref.environment_id
    assert variables["HOME"] == "/workspace"
