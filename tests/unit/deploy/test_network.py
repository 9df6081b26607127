"""Who may reach whom, computed from the NetworkPolicies as the API defines them."""

from __future__ import annotations

from tests.unit.deploy.manifests import NAME, SERVICES, Manifest, Release, container_of, labels_of, selects

STRANGER = "a pod of another namespace"


def admits(policy: Manifest, source: Manifest | None, port: int) -> bool:
    """Whether a policy lets a workload of the namespace, or a stranger (None), in."""
    for rule in policy["spec"].get("ingress", []):
        peers = rule.get("from")
        known = {"podSelector"}
        assert all(peer.keys() <= known for peer in peers or []), "teach this test what else a peer may say"
        reaches = peers is None or (
            source is not None and any(selects(peer["podSelector"], labels_of(source)) for peer in peers)
        )
        if reaches and any(allowed["port"] == port for allowed in rule["ports"]):
            return True
    return False


def reachable(release: Release) -> set[tuple[str, str, int]]:
    """(who, whom, at which port) for all workloads and all ports of theirs."""
    policies = list(release.kind("NetworkPolicy"))
    found = set()
    for target in release.workloads:
        applying = [policy for policy in policies if selects(policy["spec"]["podSelector"], labels_of(target))]
        assert applying, "without a policy it is open to all"
        for port in (port["containerPort"] for port in container_of(target)["ports"]):
            for source in [None, *release.workloads]:
                if any(admits(policy, source, port) for policy in applying):
                    who = labels_of(source)[NAME] if source else STRANGER
                    found.add((who, labels_of(target)[NAME], port))
    return found


def test_nobody_reaches_more_than_the_architecture_says(release: Release) -> None:
    gateway = {(STRANGER, "gateway", 8080)} | {
        (name["metadata"]["name"], "gateway", 8080) for name in release.workloads
    }
    through_the_gateway = {("gateway", name, 8000) for name in SERVICES}
    keys = {(name, "auth", 8000) for name in SERVICES if name != "auth"}
    servers = {(name, *server) for name in SERVICES for server in (("mongodb", 27017), ("nats", 4222), ("redis", 6379))}
    assert reachable(release) == gateway | through_the_gateway | keys | servers


def test_a_pod_that_no_policy_names_lets_nobody_in(release: Release) -> None:
    (denying,) = (policy for policy in release.kind("NetworkPolicy") if policy["spec"]["podSelector"] == {})
    assert denying["spec"]["policyTypes"] == ["Ingress"]
    assert "ingress" not in denying["spec"]
