"""What is refused, or dropped, before it is stored: wrong types, unknown fields, values that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.fakes.talk import Plain, claim, pod

SECRETS = "/api/v1/namespaces/space/secrets"
PODS = "/api/v1/namespaces/space/pods"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"metadata": {"name": "Not_A_Name"}}, "a lowercase RFC 1123 subdomain must consist of"),
        ({"metadata": {}}, "metadata.name: Required value: name or generateName is required"),
        ({"metadata": {"name": "s", "labels": {"a": "no spaces please"}}}, "metadata.labels: Invalid value"),
        ({"metadata": {"name": "s"}, "data": {"bad/key": "YQ=="}}, "a valid config key must consist of"),
    ],
)
async def test_what_has_no_right_form_is_422_with_causes(
    plain: Plain, space: str, body: dict[str, Any], words: str
) -> None:
    status, answer = await plain.call("POST", SECRETS, body)
    assert (status, answer["reason"]) == (422, "Invalid")
    assert words in answer["message"]
    assert answer["details"]["kind"] == "Secret"
    assert answer["details"]["causes"][0]["field"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"metadata": {"name": 7}}', "json: cannot unmarshal number into Go struct field"),
        (b'{"metadata": {"name": "s"}, "data": {"a": "%"}}', "illegal base64 data"),
        (b'{"metadata": {"name": "s"}', "error decoding"),
        (b'{"kind": "Pod", "metadata": {"name": "s"}}', "cannot be handled as a Secret"),
        (b'{"apiVersion": "v2", "metadata": {"name": "s"}}', "does not match the expected API version"),
    ],
)
async def test_what_cannot_be_decoded_is_400(plain: Plain, space: str, body: bytes, words: str) -> None:
    status, answer = await plain.call("POST", SECRETS, body)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert words in answer["message"]


async def test_unknown_fields_are_dropped_warned_of_or_refused_as_asked(plain: Plain, space: str) -> None:
    body = pod() | {"colour": "red"}
    body["spec"]["restartPolice"] = "Never"
    async with plain.session.post(plain.url(PODS), json=body) as answer:
        assert answer.status == 201
        warnings = answer.headers.getall("Warning")
        made = await answer.json()
    assert any('unknown field \\"spec.restartPolice\\"' in warning for warning in warnings)
    assert "restartPolice" not in made["spec"]
    status, answer_body = await plain.call("POST", PODS, body, fieldValidation="Strict")
    assert status == 400
    assert 'strict decoding error: unknown field "spec.restartPolice", unknown field "colour"' in answer_body["message"]
    status, answer_body = await plain.call(
        "POST", SECRETS, b'{"metadata": {"name": "a", "name": "b"}}', fieldValidation="Strict"
    )
    assert 'duplicate field "name"' in answer_body["message"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"containers": []}, "spec.containers"),
        ({"containers": [{"name": "main"}]}, "spec.containers[0].image"),
        ({"containers": [{"image": "x"}]}, "spec.containers[0].name"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy"),
        ({"volumes": [{"name": "a"}, {"name": "a"}]}, "spec.volumes[1].name"),
        ({"containers": [{"name": "m", "image": "x", "volumeMounts": [{"name": "no", "mountPath": "/x"}]}]},
         "spec.containers[0].volumeMounts[0].name"),
        ({"containers": [{"name": "m", "image": "x",
                          "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]},
         "spec.containers[0].resources.requests"),
        ({"hostname": "Not A Host"}, "spec.hostname"),
    ],
)  # fmt: skip
async def test_a_pod_that_cannot_be_is_422(plain: Plain, space: str, change: dict[str, Any], field: str) -> None:
    body = pod()
    body["spec"] |= change
    status, answer = await plain.call("POST", PODS, body)
    assert (status, answer["reason"]) == (422, "Invalid")
    assert field in [cause["field"] for cause in answer["details"]["causes"]]
    assert answer["message"].startswith('Pod "p" is invalid: ')


@pytest.mark.parametrize(
    ("path", "spec", "field"),
    [
        ("/api/v1/namespaces/space/resourcequotas", {"hard": {"gold": "1"}}, "spec.hard[gold]"),
        ("/api/v1/namespaces/space/limitranges",
         {"limits": [{"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "2"}}]},
         "spec.limits[0].default[cpu]"),
        ("/apis/networking.k8s.io/v1/namespaces/space/networkpolicies",
         {"egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0"}}]}]}, "spec.egress[0].to[0].ipBlock.cidr"),
        ("/apis/networking.k8s.io/v1/namespaces/space/networkpolicies",
         {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["192.168.0.0/16"]}}]}]},
         "spec.egress[0].to[0].ipBlock.except[0]"),
        ("/apis/networking.k8s.io/v1/namespaces/space/networkpolicies",
         {"policyTypes": ["Sideways"]}, "spec.policyTypes[0]"),
        ("/api/v1/namespaces/space/persistentvolumeclaims", {"accessModes": ["ReadWriteOnce"]},
         "spec.resources[storage]"),
    ],
)  # fmt: skip
async def test_policies_and_claims_that_cannot_be_are_422(
    plain: Plain, space: str, path: str, spec: dict[str, Any], field: str
) -> None:
    status, answer = await plain.call("POST", path, {"metadata": {"name": "x"}, "spec": spec})
    assert (status, answer["reason"]) == (422, "Invalid")
    assert [cause["field"] for cause in answer["details"]["causes"]] == [field]


async def test_a_pod_may_change_its_labels_and_image_and_nothing_else(plain: Plain, space: str) -> None:
    await plain.call("POST", PODS, pod(schedulerName="nobody"))
    _, found = await plain.call("GET", f"{PODS}/p")
    found["metadata"]["labels"] = {"a": "b"}
    found["spec"]["containers"][0]["image"] = "devpocket/python:latest"
    status, found = await plain.call("PUT", f"{PODS}/p", found)
    assert status == 200
    found["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]
    status, body = await plain.call("PUT", f"{PODS}/p", found)
    assert (status, body["reason"]) == (422, "Invalid")
    assert "spec: Forbidden: pod updates may not change fields other than" in body["message"]


async def test_claims_secrets_and_config_maps_keep_what_is_immutable(plain: Plain, space: str) -> None:
    claims = "/api/v1/namespaces/space/persistentvolumeclaims"
    await plain.call("POST", claims, claim())
    merge = "application/merge-patch+json"
    status, body = await plain.call("PATCH", f"{claims}/c", {"spec": {"accessModes": ["ReadOnlyMany"]}}, merge)
    assert status == 422
    assert "spec: Forbidden: spec is immutable after creation" in body["message"]
    await plain.call("POST", SECRETS, {"metadata": {"name": "s"}, "stringData": {"key": "value"}, "immutable": True})
    status, body = await plain.call("PATCH", f"{SECRETS}/s", {"data": {"key": "eA=="}}, merge)
    assert "field is immutable when `immutable` is set" in body["message"]
    status, body = await plain.call("PATCH", f"{SECRETS}/s", {"type": "kubernetes.io/tls"}, merge)
    assert "type: Invalid value" in body["message"]
