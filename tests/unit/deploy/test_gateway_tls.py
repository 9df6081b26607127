"""The gateway that ends TLS itself: what a cluster is told, and whether that is what the image looks for."""

from __future__ import annotations

import os
import re

import pytest
from kubernetes_validate.utils import validate

from tests.unit.deploy.manifests import KUBERNETES, ROOT, Manifest, build, container_of, pod_of

DOCKERFILE = (ROOT / "deploy" / "gateway" / "Dockerfile").read_text()
START = (ROOT / "deploy" / "gateway" / "start.sh").read_text()


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """The base with the component, by kind and name."""
    folder = tmp_path_factory.mktemp("overlay")
    base, component = (os.path.relpath(KUBERNETES / part, folder) for part in ("base", "components/gateway-tls"))
    (folder / "kustomization.yaml").write_text(f"resources: [{base}]\ncomponents: [{component}]\n")
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in build(folder)}


def test_the_image_finds_the_secret_and_may_read_it(objects: dict[str, Manifest]) -> None:
    deployment = objects["Deployment/gateway"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container_of(deployment)["volumeMounts"]}
    assert mounts["tls"] == "/etc/devpocket-gateway/tls"
    assert "$home/tls/tls.crt" in START
    assert "$home/tls/tls.key" in START
    (volume,) = (volume for volume in pod_of(deployment)["volumes"] if volume["name"] == "tls")
    assert volume["secret"] == {"secretName": "devpocket-tls", "defaultMode": 0o440}
    context = pod_of(deployment)["securityContext"]
    assert context["runAsNonRoot"]
    assert re.search(rf"^USER \d+:{context['fsGroup']}$", DOCKERFILE, re.MULTILINE)


def test_both_ports_lead_from_the_world_to_the_image(objects: dict[str, Manifest]) -> None:
    (exposed,) = re.findall(r"^EXPOSE (.+)$", DOCKERFILE, re.MULTILINE)
    ports = {port["name"]: port["containerPort"] for port in container_of(objects["Deployment/gateway"])["ports"]}
    assert {str(port) for port in ports.values()} == set(exposed.split())
    service = objects["Service/gateway"]["spec"]
    assert {port["port"]: ports[port["targetPort"]] for port in service["ports"]} == {80: 8080, 443: 8443}
    (rule,) = objects["NetworkPolicy/gateway"]["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == set(ports.values())


def test_nobody_is_believed_about_another(objects: dict[str, Manifest]) -> None:
    (settings,) = (item for name, item in objects.items() if name.startswith("ConfigMap/devpocket-gateway-"))
    assert "set_real_ip_from" not in settings["data"]["proxies.conf"]
    assert objects["Service/gateway"]["spec"]["externalTrafficPolicy"] == "Local"


def test_it_passes_the_published_schemas(objects: dict[str, Manifest]) -> None:
    for name in ("Deployment/gateway", "Service/gateway", "NetworkPolicy/gateway"):
        validate(objects[name], "1.36", strict=True)
