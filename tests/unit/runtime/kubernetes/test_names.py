"""Names in a cluster: valid, and never shared by two users or environments."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.runtime.kubernetes.names import check_ref, hostname_of, label_value, namespace_of, workspace_name
from libs.runtime.port import WorkspaceRef, WorkspaceRejectedError

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


@given(st.text(min_size=1, max_size=256))
def test_any_user_has_a_namespace_that_can_be(user_id: str) -> None:
    assert _DNS_LABEL.fullmatch(namespace_of("devpocket", user_id))
    assert _LABEL_VALUE.fullmatch(label_value(user_id))


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", fullmatch=True))
def test_any_environment_has_a_name_that_can_be(environment_id: str) -> None:
    assert check_ref(WorkspaceRef(environment_id, "user"))
    assert _DNS_LABEL.fullmatch(workspace_name(environment_id))


@pytest.mark.parametrize(("one", "other"), [("Ann", "ann"), ("a.b", "a-b"), ("x" * 30, "x" * 31), ("é", "e")])
def test_users_that_look_alike_do_not_share_a_namespace(one: str, other: str) -> None:
    assert namespace_of("devpocket", one) != namespace_of("devpocket", other)


@pytest.mark.parametrize(("one", "other"), [("Env", "env"), ("a_b", "a-b"), ("x" * 62 + "1", "x" * 62 + "2")])
def test_environments_that_look_alike_do_not_share_a_name(one: str, other: str) -> None:
    assert workspace_name(one) != workspace_name(other)


def test_a_plain_environment_id_can_be_read_in_its_name() -> None:
    assert workspace_name("01a209274b9a73e98139d12b1bf9e594") == "ws-01a209274b9a73e98139d12b1bf9e594"


@pytest.mark.parametrize("user_id", ["", "x" * 257, "a\nb"])
def test_user_ids_that_cannot_be_are_refused(user_id: str) -> None:
    with pytest.raises(WorkspaceRejectedError):
        check_ref(WorkspaceRef("env", user_id))


def test_only_a_dns_label_becomes_a_host_name() -> None:
    assert hostname_of("my-env") == "my-env"
    assert hostname_of("My Env") is None
    assert hostname_of("x" * 64) is None
