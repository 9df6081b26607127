"""Manifests: what they promise about security, limits and what outlives what."""

from __future__ import annotations

import base64
import ipaddress

import pytest

from libs.runtime.kubernetes.manifests import namespace as namespaces
from libs.runtime.kubernetes.manifests import workspace
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.kubernetes.variables import workspace_environment
from libs.runtime.port import WorkspaceLimits, WorkspaceRejectedError
from tests.unit.runtime.kubernetes.specs import REF, make_spec

OPTIONS = KubernetesOptions()


def test_a_pod_has_no_privileges() -> None:
    spec = workspace.pod(OPTIONS, make_spec())["spec"]
    context = spec["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (
        *(True, 1000, 1000),
        1000,
    )
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    (container,) = spec["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_limits_are_the_specs_and_requests_a_share_of_them() -> None:
    options = KubernetesOptions(cpu_request_share=0.1, memory_request_share=0.5)
    resources = workspace.pod(options, make_spec())["spec"]["containers"][0]["resources"]
    assert resources["limits"]["cpu"] == "1000m"
    assert resources["limits"]["memory"] == str(1 << 30)
    assert resources["limits"]["ephemeral-storage"] == str(options.ephemeral_storage_bytes)
    assert resources["requests"]["cpu"] == "100m"
    assert resources["requests"]["memory"] == str(1 << 29)


def test_requests_never_exceed_limits() -> None:
    tiny = make_spec(limits=WorkspaceLimits(cpu_millis=5, memory_bytes=1 << 20, storage_bytes=1 << 20))
    resources = workspace.pod(OPTIONS, tiny)["spec"]["containers"][0]["resources"]
    assert resources["requests"]["cpu"] == "5m"
    assert resources["requests"]["memory"] == str(1 << 20)


def test_the_volume_is_the_environments_and_not_a_generations() -> None:
    one = workspace.volume_claim(OPTIONS, make_spec(generation=1))
    other = workspace.volume_claim(OPTIONS, make_spec(generation=2))
    assert one == other
    assert one["spec"]["resources"]["requests"]["storage"] == str(5 << 30)
    assert "storageClassName" not in one["spec"]
    chosen = workspace.volume_claim(KubernetesOptions(storage_class="fast"), make_spec())
    assert chosen["spec"]["storageClassName"] == "fast"


def test_a_pod_is_never_restarted_in_place_and_says_its_generation() -> None:
    pod = workspace.pod(KubernetesOptions(runtime_class="gvisor", pull_policy="Never"), make_spec())
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["runtimeClassName"] == "gvisor"
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Never"
    assert pod["metadata"]["annotations"]["devpocket.io/generation"] == "3"
    assert pod["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "devpocket",
        "devpocket.io/environment": REF.environment_id,
        "devpocket.io/user": REF.user_id,
        "devpocket.io/part": "pod",
    }
    assert pod["spec"]["hostname"] == "engine"


@pytest.mark.parametrize(("wanted", "policy"), [(None, "IfNotPresent"), ("Always", "Always"), ("Never", "Never")])
def test_a_spec_that_names_a_pull_policy_wins(wanted: str | None, policy: str) -> None:
    pod = workspace.pod(OPTIONS, make_spec(image_pull_policy=wanted))
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy


@pytest.mark.parametrize("name", ["1ST", "a-b", "", "x" * 254])
def test_names_that_no_variable_can_have(name: str) -> None:
    with pytest.raises(WorkspaceRejectedError, match="cannot be an environment variable"):
        workspace_environment(make_spec(variables={name: "value"}))


def test_variables_are_in_the_secret_and_nowhere_else() -> None:
    spec = make_spec(variables={"TOKEN": 'it\'s "secret"\n$HOME', "TERM": "dumb"}, startup_command="run me")
    secret = workspace.variables_secret(spec, workspace_environment(spec))
    seen = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert seen["TOKEN"] == 'it\'s "secret"\n$HOME'
    assert (seen["TERM"], seen["HOME"]) == ("dumb", "/workspace")
    assert seen["DEVPOCKET_STARTUP_COMMAND"] == "run me"
    assert seen["DEVPOCKET_ENVIRONMENT_ID"] == REF.environment_id
    for other in (workspace.pod(OPTIONS, spec), workspace.record(spec, "starting")):
        assert "secret" not in str(other).replace("secretRef", "")


@pytest.mark.parametrize("name", ["DEVPOCKET_STARTUP_COMMAND", "DEVPOCKET_ENVIRONMENT_ID", "UID"])
def test_variables_that_are_not_the_users_to_set(name: str) -> None:
    spec = make_spec(variables={name: "mine"})
    assert workspace_environment(spec).get(name) != "mine"


def test_a_startup_command_with_a_nul_is_refused() -> None:
    with pytest.raises(WorkspaceRejectedError):
        workspace_environment(make_spec(startup_command="a\0b"))


def test_the_namespace_enforces_the_restricted_profile() -> None:
    labels = namespaces.namespace(OPTIONS, "user-1")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_nobody_comes_in() -> None:
    spec = namespaces.deny_ingress("user-1")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress"]}


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        *(("1.1.1.1", True), ("140.82.112.3", True), ("2606:4700::1111", True)),
        *(("10.43.0.1", False), ("192.168.1.1", False), ("172.20.0.5", False), ("169.254.169.254", False)),
        *(("100.100.100.200", False), ("127.0.0.1", False), ("fd00:ec2::254", False), ("fe80::1", False)),
        ("203.0.113.7", False),
    ],
)
def test_what_can_be_reached(address: str, is_open: bool) -> None:
    options = KubernetesOptions(blocked_cidrs=("203.0.113.0/24", "2001:db8::/32"))
    rules = namespaces.world_egress(options, "user-1")["spec"]["egress"]
    target = ipaddress.ip_address(address)
    blocks = [peer["ipBlock"] for rule in rules if "ports" not in rule for peer in rule["to"]]
    reached = any(
        target in ipaddress.ip_network(block["cidr"])
        and not any(target in ipaddress.ip_network(hole) for hole in block["except"])
        for block in blocks
        if ipaddress.ip_network(block["cidr"]).version == target.version
    )
    assert reached is is_open


def test_the_policies_digest_follows_the_policies() -> None:
    digest = namespaces.policy_digest(OPTIONS, "user-1")
    assert namespaces.policy_digest(KubernetesOptions(), "user-1") == digest
    assert namespaces.policy_digest(KubernetesOptions(blocked_cidrs=("203.0.113.0/24",)), "user-1") != digest
