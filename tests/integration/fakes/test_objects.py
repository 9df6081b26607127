"""Create, read, update, patch and delete, and what is refused in which words."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from kubernetes.aio.client import ApiException

from tests.fakes.kube import FakeCluster
from tests.integration.fakes.talk import Plain, pod

SECRETS = "/api/v1/namespaces/space/secrets"
PODS = "/api/v1/namespaces/space/pods"


def secret(name: str = "s", **content: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "stringData": {"key": "value"}, **content}


async def test_an_object_is_given_its_identity_and_can_be_read_back(core: Any, space: str) -> None:
    made = await core.create_namespaced_secret(space, secret())
    assert made.metadata.uid
    assert made.metadata.creation_timestamp
    read = await core.read_namespaced_secret("s", space)
    assert read.data == {"key": base64.b64encode(b"value").decode()}
    assert read.type == "Opaque"
    assert read.metadata.resource_version == made.metadata.resource_version


async def test_what_is_not_there_is_404_in_the_words_of_the_real_one(plain: Plain, space: str) -> None:
    status, body = await plain.call("GET", f"{PODS}/nobody")
    assert status == 404
    assert body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'pods "nobody" not found',
        "reason": "NotFound",
        "details": {"name": "nobody", "kind": "pods"},
        "code": 404,
    }
    status, body = await plain.call("POST", "/api/v1/namespaces/nowhere/secrets", secret())
    assert (status, body["message"]) == (404, 'namespaces "nowhere" not found')
    status, body = await plain.call("GET", "/apis/networking.k8s.io/v1/namespaces/space/networkpolicies/none")
    assert body["message"] == 'networkpolicies.networking.k8s.io "none" not found'
    assert body["details"] == {"name": "none", "group": "networking.k8s.io", "kind": "networkpolicies"}
    status, body = await plain.call("GET", "/api/v1/namespaces/space/gadgets")
    assert (status, body["message"]) == (404, "the server could not find the requested resource")


async def test_a_second_one_of_the_same_name_is_409(core: Any, space: str) -> None:
    await core.create_namespaced_secret(space, secret())
    with pytest.raises(ApiException) as refused:
        await core.create_namespaced_secret(space, secret())
    assert refused.value.status == 409
    assert '"reason": "AlreadyExists"' in str(refused.value.body)
    assert 'secrets \\"s\\" already exists' in str(refused.value.body)


async def test_names_can_be_made_up_by_the_server(core: Any, space: str) -> None:
    names = set()
    for _ in range(5):
        made = await core.create_namespaced_secret(space, {"metadata": {"generateName": "auto-"}})
        names.add(made.metadata.name)
    assert len(names) == 5
    assert all(name.startswith("auto-") and len(name) == 10 for name in names)


async def test_versions_grow_over_the_whole_server_and_a_write_that_changes_nothing_makes_none(
    core: Any, plain: Plain, space: str
) -> None:
    first = await core.create_namespaced_secret(space, secret("a"))
    second = await core.create_namespaced_config_map(space, {"metadata": {"name": "b"}})
    assert int(second.metadata.resource_version) > int(first.metadata.resource_version)
    merge = "application/merge-patch+json"
    _, same = await plain.call("PATCH", f"{SECRETS}/a", {"metadata": {"labels": None}}, merge)
    assert same["metadata"]["resourceVersion"] == first.metadata.resource_version


async def test_an_update_of_an_old_version_is_409(plain: Plain, core: Any, space: str) -> None:
    await core.create_namespaced_secret(space, secret())
    _, old = await plain.call("GET", f"{SECRETS}/s")
    status, _ = await plain.call("PUT", f"{SECRETS}/s", old | {"data": {"a": "Yg=="}})
    assert status == 200
    status, body = await plain.call("PUT", f"{SECRETS}/s", old | {"data": {"a": "Yw=="}})
    assert (status, body["reason"]) == (409, "Conflict")
    assert body["message"].startswith('Operation cannot be fulfilled on secrets "s": the object has been modified')
    del old["metadata"]["resourceVersion"]
    status, _ = await plain.call("PUT", f"{SECRETS}/s", old)
    assert status == 200


async def test_preconditions_guard_a_deletion(plain: Plain, core: Any, space: str) -> None:
    made = await core.create_namespaced_secret(space, secret())
    status, body = await plain.call("DELETE", f"{SECRETS}/s", {"preconditions": {"uid": "another"}})
    assert (status, body["reason"]) == (409, "Conflict")
    assert "Precondition failed: UID in precondition: another" in body["message"]
    status, body = await plain.call("DELETE", f"{SECRETS}/s", {"preconditions": {"resourceVersion": "1"}})
    assert (status, body["reason"]) == (409, "Conflict")
    status, body = await plain.call("DELETE", f"{SECRETS}/s", {"preconditions": {"uid": made.metadata.uid}})
    assert (status, body["status"], body["details"]["uid"]) == (200, "Success", made.metadata.uid)
    status, _ = await plain.call("DELETE", f"{SECRETS}/s")
    assert status == 404


async def test_patches_of_all_shapes(plain: Plain, space: str) -> None:
    await plain.call("POST", PODS, pod(metadata={"labels": {"a": "1", "b": "2"}, "finalizers": ["x.io/one"]}))
    path = f"{PODS}/p"
    _, body = await plain.call("PATCH", path, {"metadata": {"labels": {"a": None}}}, "application/merge-patch+json")
    assert body["metadata"]["labels"] == {"b": "2"}
    steps = [
        {"op": "test", "path": "/metadata/labels/b", "value": "2"},
        {"op": "add", "path": "/metadata/labels/c", "value": "3"},
    ]
    _, body = await plain.call("PATCH", path, steps, "application/json-patch+json")
    assert body["metadata"]["labels"] == {"b": "2", "c": "3"}
    steps = [{"op": "test", "path": "/metadata/labels/b", "value": "9"}]
    status, _ = await plain.call("PATCH", path, steps, "application/json-patch+json")
    assert status == 422
    strategic = "application/strategic-merge-patch+json"
    change = {
        "spec": {"containers": [{"name": "main", "image": "devpocket/rust:latest"}]},
        "metadata": {"finalizers": ["x.io/two"]},
    }
    _, body = await plain.call("PATCH", path, change, strategic)
    assert [c["image"] for c in body["spec"]["containers"]] == ["devpocket/rust:latest"]
    assert body["metadata"]["finalizers"] == ["x.io/one", "x.io/two"]
    status, body = await plain.call("PATCH", path, {}, "application/json")
    assert (status, body["reason"]) == (415, "UnsupportedMediaType")


async def test_applying_creates_and_changes_and_needs_a_manager(plain: Plain, space: str) -> None:
    path, kind = "/api/v1/namespaces/space/configmaps/m", "application/apply-patch+yaml"
    whole = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}}
    status, _ = await plain.call("PATCH", path, whole, kind)
    assert status == 400
    status, _ = await plain.call("PATCH", path, whole, kind, fieldManager="test")
    assert status == 201
    status, body = await plain.call("PATCH", path, whole | {"data": {"b": "2"}}, kind, fieldManager="test")
    assert status == 200
    assert body["data"]["b"] == "2"


async def test_the_status_has_a_door_of_its_own(plain: Plain, space: str, cluster: FakeCluster) -> None:
    cluster.pause_kubelet()
    await plain.call("POST", PODS, pod())
    merge = "application/merge-patch+json"
    _, body = await plain.call("PATCH", f"{PODS}/p", {"status": {"message": "mine"}}, merge)
    assert "message" not in body["status"]
    _, body = await plain.call(
        "PATCH", f"{PODS}/p/status", {"status": {"message": "mine"}, "metadata": {"labels": {"a": "b"}}}, merge
    )
    assert body["status"]["message"] == "mine"
    assert "labels" not in body["metadata"]


async def test_a_finalizer_holds_an_object_until_it_is_taken_away(plain: Plain, space: str) -> None:
    await plain.call("POST", SECRETS, {"metadata": {"name": "s", "finalizers": ["x.io/hold"]}})
    status, body = await plain.call("DELETE", f"{SECRETS}/s")
    assert status == 200
    assert body["metadata"]["deletionTimestamp"]
    merge = "application/merge-patch+json"
    _, body = await plain.call("PATCH", f"{SECRETS}/s", {"metadata": {"finalizers": ["x.io/hold", "x.io/new"]}}, merge)
    assert body["metadata"]["finalizers"] == ["x.io/hold"]
    await plain.call("PATCH", f"{SECRETS}/s", {"metadata": {"finalizers": None}}, merge)
    status, _ = await plain.call("GET", f"{SECRETS}/s")
    assert status == 404


async def test_a_dry_run_answers_and_does_nothing(plain: Plain, space: str) -> None:
    status, body = await plain.call("POST", SECRETS, secret(), dryRun="All")
    assert (status, body["metadata"]["name"]) == (201, "s")
    status, _ = await plain.call("GET", f"{SECRETS}/s")
    assert status == 404


async def test_a_collection_is_deleted_by_selector(plain: Plain, space: str) -> None:
    for name, colour in (("a", "red"), ("b", "red"), ("c", "blue")):
        await plain.call("POST", SECRETS, {"metadata": {"name": name, "labels": {"colour": colour}}})
    await plain.call("DELETE", SECRETS, labelSelector="colour=red")
    _, left = await plain.call("GET", SECRETS)
    assert [item["metadata"]["name"] for item in left["items"]] == ["c"]


async def test_a_namespace_goes_with_everything_in_it_and_takes_nothing_new_meanwhile(
    cluster: FakeCluster, plain: Plain, space: str
) -> None:
    await plain.call("POST", SECRETS, secret())
    await plain.call("POST", PODS, pod(command=["sleep", "60"], terminationGracePeriodSeconds=1))
    await cluster.settle(space, "p", phase="Running")
    status, body = await plain.call("DELETE", "/api/v1/namespaces/space")
    assert (status, body["status"]["phase"]) == (200, "Terminating")
    status, body = await plain.call("POST", SECRETS, secret("late"))
    assert (status, body["reason"]) == (403, "Forbidden")
    assert body["message"] == (
        'secrets "late" is forbidden: unable to create new content in namespace space because it is being terminated'
    )
    assert body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    async with asyncio.timeout(30):
        while (await plain.call("GET", "/api/v1/namespaces/space"))[0] != 404:
            await cluster.store.changed(1)
    assert (await plain.call("GET", f"{SECRETS}/s"))[0] == 404
