"""What is in the manifests holds together: with each other, with the images, with the published schemas."""

from __future__ import annotations

import re

import pytest
from kubernetes_validate.utils import ValidationError, validate

from tests.unit.deploy.manifests import (
    KUBERNETES,
    NAME,
    ROOT,
    SECRET,
    SERVICES,
    Manifest,
    Release,
    container_of,
    labels_of,
    pod_of,
    selects,
)

SCHEMA = "1.36"
UPDATE_SECRETS = (ROOT / "deploy" / "scripts" / "update-secrets.sh").read_text()


def test_every_object_is_what_the_published_schemas_say(release: Release) -> None:
    for item in release.objects:
        validate(item, SCHEMA, strict=True)


def test_the_schemas_would_notice_a_mistake(production: Release) -> None:
    deployment = production.one("Deployment", "auth")
    mistaken = {**deployment, "spec": {**deployment["spec"], "replica": 3}}
    with pytest.raises(ValidationError):
        validate(mistaken, SCHEMA, strict=True)


def test_everything_is_in_one_namespace_or_in_none(release: Release) -> None:
    of_the_cluster = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
    for item in release.objects:
        expected = None if item["kind"] in of_the_cluster else "devpocket"
        assert item["metadata"].get("namespace") == expected, item["metadata"]["name"]


def test_pods_may_run_where_only_restricted_ones_may(release: Release) -> None:
    namespace = release.one("Namespace", "devpocket")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for workload in release.workloads:
        pod, container = pod_of(workload), container_of(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_every_container_has_probes_and_resources(release: Release) -> None:
    for workload in release.workloads:
        container = container_of(workload)
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            by_port = container[probe].get("httpGet") or container[probe].get("tcpSocket")
            assert by_port is None or by_port["port"] in ports
        for amount in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][amount].keys()
        assert container["imagePullPolicy"] == "IfNotPresent"
        # REDIS_PORT and the like would be taken for settings.
        assert pod_of(workload)["enableServiceLinks"] is False


def test_services_are_alive_and_ready_by_their_own_addresses(release: Release) -> None:
    for name in SERVICES:
        container = container_of(release.one("Deployment", name))
        assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
        assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_a_token_of_the_cluster_is_only_where_it_is_used(release: Release) -> None:
    accounts = {item["metadata"]["name"]: item for item in release.kind("ServiceAccount")}
    with_token = {"devpocket-orchestrator", "devpocket-terminal"}
    for workload in release.workloads:
        pod = pod_of(workload)
        account = accounts.pop(pod["serviceAccountName"])
        has_token = account["metadata"]["name"] in with_token
        assert pod["automountServiceAccountToken"] is has_token
        assert has_token or account["automountServiceAccountToken"] is False
    assert not accounts, "accounts that nobody uses"
    bound = {subject["name"] for binding in release.kind("ClusterRoleBinding") for subject in binding["subjects"]}
    assert bound == with_token
    assert not list(release.kind("Role", "RoleBinding"))
    for role in release.kind("ClusterRole"):
        assert "*" not in str(role["rules"])


def test_every_service_leads_to_a_port_of_one_workload(release: Release) -> None:
    for service in release.kind("Service"):
        (target,) = (
            item for item in release.workloads if selects({"matchLabels": service["spec"]["selector"]}, labels_of(item))
        )
        ports = {port["name"] for port in container_of(target)["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_every_workload_selects_and_spreads_its_own_pods(release: Release) -> None:
    for workload in release.workloads:
        selector = workload["spec"]["selector"]
        matching = [item["metadata"]["name"] for item in release.workloads if selects(selector, labels_of(item))]
        assert matching == [workload["metadata"]["name"]]
        for constraint in pod_of(workload).get("topologySpreadConstraints", []):
            assert constraint["labelSelector"] == selector


def test_what_pods_take_from_config_maps_and_secrets_is_there(release: Release) -> None:
    maps = {item["metadata"]["name"] for item in release.kind("ConfigMap")}
    used: set[str] = set()
    for workload in release.workloads:
        container = container_of(workload)
        used |= {source["configMapRef"]["name"] for source in container.get("envFrom", [])}
        used |= {volume["configMap"]["name"] for volume in pod_of(workload)["volumes"] if "configMap" in volume}
        volumes = {volume["name"] for volume in pod_of(workload)["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert used == maps


def secret_keys(workload: Manifest) -> dict[str, bool]:
    """What it takes from the Secret, and whether it must be there."""
    sources = [entry["valueFrom"]["secretKeyRef"] for entry in container_of(workload)["env"] if "valueFrom" in entry]
    assert {source["name"] for source in sources} <= {SECRET}
    return {source["key"]: not source.get("optional", False) for source in sources}


def test_every_key_of_the_secret_is_one_that_the_script_writes(release: Release) -> None:
    optional = set(re.search(r"OPTIONAL=\((.*)\)", UPDATE_SECRETS).group(1).split())  # type: ignore[union-attr]
    always = {"SECRET_KEY"} | {
        f"{name}_{part}" for name in ("MONGODB", "NATS", "REDIS") for part in ("URL", "PASSWORD")
    }
    taken = [secret_keys(workload) for workload in release.workloads if "env" in container_of(workload)]
    assert {key for keys in taken for key, required in keys.items() if required} == always
    assert {key for keys in taken for key, required in keys.items() if not required} == optional


def test_no_secret_is_in_the_repository(release: Release) -> None:
    assert not list(release.kind("Secret"))


def test_the_bus_is_set_up_as_for_compose() -> None:
    ours = KUBERNETES / "components" / "nats" / "nats.conf"
    assert ours.read_text() == (ROOT / "deploy" / "compose" / "nats.conf").read_text()


def test_servers_are_the_versions_of_compose(release: Release) -> None:
    compose = (ROOT / "docker-compose.yaml").read_text()
    for server in release.kind("StatefulSet"):
        assert f"image: {container_of(server)['image']}\n" in compose


def test_replicas_are_what_the_autoscaler_says(production: Release) -> None:
    deployments = {item["metadata"]["name"]: item for item in production.kind("Deployment")}
    scalers = {
        item["spec"]["scaleTargetRef"]["name"]: item["spec"] for item in production.kind("HorizontalPodAutoscaler")
    }
    budgets = {item["metadata"]["name"]: item["spec"] for item in production.kind("PodDisruptionBudget")}
    assert deployments.keys() == scalers.keys() == budgets.keys()
    for name, deployment in deployments.items():
        # A number here would undo the autoscaler's at every deployment.
        assert "replicas" not in deployment["spec"]
        assert (scalers[name]["minReplicas"], scalers[name]["maxReplicas"]) == (3, 10)
        assert {metric["resource"]["name"] for metric in scalers[name]["metrics"]} == {"cpu", "memory"}
        assert budgets[name]["selector"] == deployment["spec"]["selector"]
        assert 0 < budgets[name]["minAvailable"] < scalers[name]["minReplicas"]


def test_the_ingress_leads_to_the_gateway_at_the_public_address(production: Release) -> None:
    (ingress,) = production.kind("Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert production.settings()["PUBLIC_URL"] == f"https://{rule['host']}"
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    (path,) = rule["http"]["paths"]
    backend = path["backend"]["service"]
    ports = {port["name"] for port in production.one("Service", backend["name"])["spec"]["ports"]}
    assert (backend["name"], backend["port"]["name"] in ports) == ("gateway", True)


def test_images_are_named_after_the_services(release: Release) -> None:
    for deployment in release.kind("Deployment"):
        image, _, tag = container_of(deployment)["image"].partition(":")
        assert image == f"devpocket-{labels_of(deployment)[NAME]}"
        assert tag
