"""Lists with selectors and pages; watches that start anywhere, end at any time, and forget."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from kubernetes.aio import watch
from kubernetes.aio.client import ApiException

from tests.fakes.kube import FakeCluster
from tests.integration.fakes.talk import Plain, pod

SECRETS = "/api/v1/namespaces/space/secrets"


async def put(plain: Plain, *names: str, **labels: str) -> None:
    for name in names:
        status, body = await plain.call("POST", SECRETS, {"metadata": {"name": name, "labels": labels}})
        assert status == 201, body


async def events(plain: Plain, path: str, **query: str) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a watch until the server ends it."""
    async with plain.session.get(plain.url(path), params={"watch": "true", **query}) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            yield json.loads(line)


def names(listing: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in listing["items"]]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("colour=red", ["a", "b"]),
        ("colour!=red", ["c", "d"]),
        ("colour in (blue, green),colour", ["c"]),
        ("colour notin (blue)", ["a", "b", "d"]),
        ("!colour", ["d"]),
        ("colour", ["a", "b", "c"]),
    ],
)
async def test_labels_select(plain: Plain, space: str, selector: str, found: list[str]) -> None:
    await put(plain, "a", "b", colour="red")
    await put(plain, "c", colour="blue")
    await put(plain, "d")
    _, listing = await plain.call("GET", SECRETS, labelSelector=selector)
    assert names(listing) == found
    assert listing["kind"] == "SecretList"


async def test_fields_select_those_that_can_be_selected_by(core: Any, plain: Plain, space: str) -> None:
    await put(plain, "a", "b")
    assert [
        s.metadata.name for s in (await core.list_namespaced_secret(space, field_selector="metadata.name=a")).items
    ] == ["a"]
    await core.create_namespaced_pod(space, pod(schedulerName="nobody"))
    assert (await core.list_namespaced_pod(space, field_selector="status.phase!=Pending")).items == []
    status, body = await plain.call("GET", SECRETS, fieldSelector="data.key=x")
    assert (status, body["message"]) == (400, "field label not supported: data.key")


async def test_pages_follow_each_other_until_the_history_is_forgotten(
    cluster: FakeCluster, plain: Plain, space: str
) -> None:
    await put(plain, "a", "b", "c")
    _, first = await plain.call("GET", SECRETS, limit="2")
    assert names(first) == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 1
    token = first["metadata"]["continue"]
    _, second = await plain.call("GET", SECRETS, **{"limit": "2", "continue": token})
    assert names(second) == ["c"]
    assert "continue" not in second["metadata"]
    cluster.compact()
    status, body = await plain.call("GET", SECRETS, **{"limit": "2", "continue": token})
    assert (status, body["reason"]) == (410, "Expired")


async def test_a_version_from_the_future_is_504_as_the_real_one_says(plain: Plain, space: str) -> None:
    status, body = await plain.call("GET", SECRETS, resourceVersion="99999999")
    assert (status, body["reason"]) == (504, "Timeout")
    assert "Too large resource version" in body["message"]


async def test_a_watch_shows_what_happens_after_its_version(core: Any, plain: Plain, space: str) -> None:
    await put(plain, "before")
    version = (await core.list_namespaced_secret(space)).metadata.resource_version
    await put(plain, "a")
    await plain.call("PATCH", f"{SECRETS}/a", {"data": {"k": "dg=="}}, "application/merge-patch+json")
    await plain.call("DELETE", f"{SECRETS}/a")
    seen = []
    async with watch.Watch() as following:
        async for event in following.stream(core.list_namespaced_secret, space, resource_version=version):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                break
    assert seen == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_a_watch_without_a_version_begins_with_what_is_there(plain: Plain, space: str) -> None:
    await put(plain, "a", "b")
    seen = [e["object"]["metadata"]["name"] async for e in events(plain, SECRETS, timeoutSeconds="0.2")]
    assert seen == ["a", "b"]


async def test_to_a_selecting_watch_things_come_and_go_with_their_labels(plain: Plain, space: str) -> None:
    await put(plain, "a", colour="red")
    _, listing = await plain.call("GET", SECRETS)
    merge = "application/merge-patch+json"
    await plain.call("PATCH", f"{SECRETS}/a", {"metadata": {"labels": {"colour": "blue"}}}, merge)
    await plain.call("PATCH", f"{SECRETS}/a", {"metadata": {"labels": {"colour": "red"}}}, merge)
    version = listing["metadata"]["resourceVersion"]
    query = {"labelSelector": "colour=red", "resourceVersion": version, "timeoutSeconds": "0.2"}
    assert [e["type"] async for e in events(plain, SECRETS, **query)] == ["DELETED", "ADDED"]


async def test_bookmarks_come_to_those_who_ask_and_carry_only_a_version(
    cluster: FakeCluster, plain: Plain, space: str
) -> None:
    cluster.pace.bookmark = 0.05
    _, listing = await plain.call("GET", SECRETS)
    version = listing["metadata"]["resourceVersion"]
    await plain.call("POST", "/api/v1/namespaces/space/configmaps", {"metadata": {"name": "other"}})
    query = {"resourceVersion": version, "timeoutSeconds": "0.3"}
    assert [e async for e in events(plain, SECRETS, **query)] == []
    seen = [e async for e in events(plain, SECRETS, allowWatchBookmarks="true", **query)]
    assert {e["type"] for e in seen} == {"BOOKMARK"}
    assert int(seen[-1]["object"]["metadata"]["resourceVersion"]) > int(version)


async def test_initial_events_end_with_a_marked_bookmark(plain: Plain, space: str) -> None:
    await put(plain, "a")
    query = {"sendInitialEvents": "true", "allowWatchBookmarks": "true", "resourceVersionMatch": "NotOlderThan"}
    seen = [e async for e in events(plain, SECRETS, timeoutSeconds="0.2", **query)]
    assert [e["type"] for e in seen[:2]] == ["ADDED", "BOOKMARK"]
    assert seen[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_forgotten_version_is_410_as_an_event_or_as_the_answer(
    cluster: FakeCluster, core: Any, plain: Plain, space: str
) -> None:
    version = (await core.list_namespaced_secret(space)).metadata.resource_version
    cluster.compact()
    seen = [e async for e in events(plain, SECRETS, resourceVersion=version)]
    assert [(e["type"], e["object"]["code"], e["object"]["reason"]) for e in seen] == [("ERROR", 410, "Expired")]
    async with watch.Watch() as following:
        stream = following.stream(core.list_namespaced_secret, space, resource_version=version, timeout_seconds=5)
        with pytest.raises(ApiException) as gone:
            await anext(stream)
    assert gone.value.status == 410
    cluster.compact(http_status=True)
    status, body = await plain.call("GET", SECRETS, watch="true", resourceVersion=version)
    assert (status, body["reason"]) == (410, "Expired")


async def test_the_server_may_hang_up(cluster: FakeCluster, plain: Plain, space: str) -> None:
    await put(plain, "a")
    async with aclosing(events(plain, SECRETS)) as stream:
        assert (await anext(stream))["type"] == "ADDED"
        cluster.drop_watches()
        with pytest.raises(Exception, match=r".*"):  # a clean end or a broken connection, as the network pleases
            await asyncio.wait_for(anext(stream), 30)
