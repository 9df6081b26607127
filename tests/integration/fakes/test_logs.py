"""What containers print, as the log endpoint gives it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest
from kubernetes.aio.client import ApiException

from tests.fakes.kube import FakeCluster
from tests.integration.fakes.talk import Plain, eventually, pod

LOG = "/api/v1/namespaces/space/pods/p/log"


async def printed(cluster: FakeCluster, core: Any, script: str) -> None:
    """A pod that has printed all it will."""
    await core.create_namespaced_pod("space", pod(command=["sh", "-c", script], restartPolicy="Never"))
    await cluster.settle("space", "p", phase="Succeeded")


async def test_all_of_it_or_the_end_or_the_beginning(cluster: FakeCluster, core: Any, plain: Plain, space: str) -> None:
    await printed(cluster, core, "for i in 1 2 3; do echo line $i; done; printf open")
    assert await core.read_namespaced_pod_log("p", space) == "line 1\nline 2\nline 3\nopen"
    assert await core.read_namespaced_pod_log("p", space, tail_lines=2) == "line 3\nopen"
    assert await core.read_namespaced_pod_log("p", space, tail_lines=0) == ""
    assert await core.read_namespaced_pod_log("p", space, limit_bytes=8) == "line 1\nl"
    for query in ({"tailLines": "-1"}, {"sinceSeconds": "0"}, {"limitBytes": "0"}):
        status, body = await plain.call("GET", LOG, **query)
        assert (status, body["reason"]) == (422, "Invalid"), query
    both = {"sinceSeconds": "5", "sinceTime": "2026-01-01T00:00:00Z"}
    status, body = await plain.call("GET", LOG, **both)
    assert (status, "at most one of" in body["message"]) == (422, True)


async def test_timestamps_have_nanoseconds_and_select(
    cluster: FakeCluster, core: Any, plain: Plain, space: str
) -> None:
    await printed(cluster, core, "echo first; sleep 1.2; echo second")
    lines = (await core.read_namespaced_pod_log("p", space, timestamps=True)).splitlines()
    stamps = [line.split(" ")[0] for line in lines]
    assert all(len(stamp) == len("2026-01-01T00:00:00.000000000Z") for stamp in stamps)
    assert [line.split(" ", 1)[1] for line in lines] == ["first", "second"]
    second = datetime.fromisoformat(stamps[1]).strftime("%Y-%m-%dT%H:%M:%SZ")
    _, body = await plain.call("GET", LOG, sinceTime=second)
    # Whole seconds count, and what wrote them may have been read late.
    later = [line.split(" ", 1)[1] for line in lines if line[:19] >= second[:19]]
    assert body["text"].splitlines() == later
    assert later[-1] == "second"


async def test_following_sees_new_lines_and_ends_with_the_container(
    cluster: FakeCluster, core: Any, space: str
) -> None:
    script = "for i in a b c; do echo $i; sleep 0.1; done; echo bye >&2"
    await core.create_namespaced_pod(space, pod(command=["sh", "-c", script], restartPolicy="Never"))
    await cluster.settle(space, "p", phase="Running")
    answer = await core.read_namespaced_pod_log_without_preload_content("p", space, follow=True)
    seen = [line.decode().strip() async for line in answer.content]
    assert seen == ["a", "b", "c", "bye"]
    assert await core.read_namespaced_pod_log("p", space) == "a\nb\nc\nbye\n"


async def test_the_run_before(cluster: FakeCluster, core: Any, space: str) -> None:
    await core.create_namespaced_pod(space, pod(command=["sh", "-c", "echo run; sleep 1000"]))
    await cluster.settle(space, "p", phase="Running")
    await eventually(lambda: core.read_namespaced_pod_log("p", space), "run\n".__eq__)
    with pytest.raises(ApiException, match="previous terminated container"):
        await core.read_namespaced_pod_log("p", space, previous=True)
    cluster.kill_main(space, "p")
    async with asyncio.timeout(30):
        while (await core.read_namespaced_pod("p", space)).status.container_statuses[0].restart_count < 1:
            await cluster.store.changed(1)
    assert await core.read_namespaced_pod_log("p", space, previous=True) == "run\n"


async def test_a_container_that_has_not_started(cluster: FakeCluster, core: Any, plain: Plain, space: str) -> None:
    await core.create_namespaced_pod(space, pod(container={"image": "nowhere:1"}))
    async with asyncio.timeout(30):
        while True:
            status, body = await plain.call("GET", LOG)
            if status == 400 and "pull" in body["message"]:
                break
            await cluster.store.changed(1)
    assert body["message"].startswith('container "main" in pod "p" is waiting to start: ')
    status, body = await plain.call("GET", LOG, container="other")
    assert (status, body["message"]) == (400, "container other is not valid for pod p")
