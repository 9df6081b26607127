"""What a namespace lets in: Pod Security, limits, quota, accounts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.kube import FakeCluster, Pace
from tests.integration.fakes.talk import Plain, claim, pod

PODS = "/api/v1/namespaces/space/pods"
QUOTAS = "/api/v1/namespaces/space/resourcequotas"
SAFE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SAFE_POD = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
AMOUNTS = {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "250m", "memory": "512Mi"}}


async def restrict(plain: Plain) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    merge = "application/merge-patch+json"
    await plain.call("PATCH", "/api/v1/namespaces/space", {"metadata": {"labels": labels}}, merge)


async def counted(cluster: FakeCluster, plain: Plain, **hard: str) -> None:
    """A quota whose status is known."""
    names = {name.replace("_", "."): value for name, value in hard.items()}
    await plain.call("POST", QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": names}})
    async with asyncio.timeout(30):
        while "status" not in (await plain.call("GET", f"{QUOTAS}/q"))[1]:
            await cluster.store.changed(1)


async def test_a_restricted_namespace_names_everything_that_is_wrong(plain: Plain, space: str) -> None:
    await restrict(plain)
    status, body = await plain.call("POST", PODS, pod())
    assert (status, body["reason"]) == (403, "Forbidden")
    assert body["message"] == (
        'pods "p" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container '
        '"main" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "main" '
        'must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "main" must set '
        'securityContext.runAsNonRoot=true), seccompProfile (pod or container "main" must set '
        'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hostNetwork": True}, "host namespaces (hostNetwork=true)"),
        ({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, 'hostPath volumes (volume "h")'),
        ({"securityContext": SAFE_POD | {"runAsUser": 0}}, "runAsUser=0 (pod must not set runAsUser=0)"),
        ({"securityContext": SAFE_POD | {"runAsNonRoot": False}}, "runAsNonRoot != true"),
        ({"securityContext": SAFE_POD | {"seccompProfile": {"type": "Unconfined"}}}, "seccompProfile"),
        ({"container": {"securityContext": SAFE | {"privileged": True, "allowPrivilegeEscalation": True}}},
         "privileged ("),
        ({"container": {"securityContext": SAFE | {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}}},
         'must not include "SYS_ADMIN"'),
    ],
)  # fmt: skip
async def test_each_breach_is_refused(plain: Plain, space: str, change: dict[str, Any], words: str) -> None:
    await restrict(plain)
    safe: dict[str, Any] = {"securityContext": SAFE_POD, "container": {"securityContext": SAFE}}
    status, body = await plain.call("POST", PODS, pod(**(safe | change)))
    assert status == 403
    assert words in body["message"]


async def test_a_safe_pod_is_let_in(plain: Plain, space: str) -> None:
    await restrict(plain)
    status, body = await plain.call("POST", PODS, pod(securityContext=SAFE_POD, container={"securityContext": SAFE}))
    assert status == 201, body


async def test_a_quota_that_nobody_has_counted_yet_lets_nothing_in(
    cluster: FakeCluster, plain: Plain, space: str
) -> None:
    cluster.pace.quota_lag = 60
    cluster.controllers.pause_quota()
    await plain.call("POST", QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}}})
    status, body = await plain.call("POST", PODS, pod())
    assert (status, body["message"]) == (403, 'pods "p" is forbidden: status unknown for quota: q, resources: pods')


async def test_quota_is_enforced_told_of_and_given_back(cluster: FakeCluster, plain: Plain, space: str) -> None:
    await counted(cluster, plain, limits_cpu="700m", pods="5")
    status, body = await plain.call("POST", PODS, pod())
    assert (status, body["message"]) == (
        403,
        'pods "p" is forbidden: failed quota: q: must specify limits.cpu for: main',
    )
    sized: dict[str, Any] = {"container": {"resources": AMOUNTS}}
    status, body = await plain.call("POST", PODS, pod(**sized))
    assert status == 201, body
    _, quota = await plain.call("GET", f"{QUOTAS}/q")
    assert quota["status"]["used"] == {"limits.cpu": "500m", "pods": "1"}
    status, body = await plain.call("POST", PODS, pod("q2", **sized))
    assert (status, body["message"]) == (
        403,
        'pods "q2" is forbidden: exceeded quota: q, requested: limits.cpu=500m, used: limits.cpu=500m, '
        "limited: limits.cpu=700m",
    )
    await plain.call("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
    async with asyncio.timeout(30):
        while (await plain.call("POST", PODS, pod("q2", **sized)))[0] != 201:
            await cluster.store.changed(1)


async def test_concurrent_creations_never_pass_a_quota(cluster: FakeCluster, plain: Plain, space: str) -> None:
    await counted(cluster, plain, persistentvolumeclaims="3", requests_storage="100Gi")
    path = "/api/v1/namespaces/space/persistentvolumeclaims"
    answers = await asyncio.gather(*(plain.call("POST", path, claim(f"c{n}")) for n in range(10)))
    assert sorted(status for status, _ in answers) == [201] * 3 + [403] * 7


async def test_a_limit_range_fills_in_and_bounds(plain: Plain, space: str) -> None:
    item = {
        "type": "Container",
        "default": {"cpu": "1", "memory": "1Gi"},
        "defaultRequest": {"cpu": "100m"},
        "max": {"cpu": "2"},
    }
    ranges = "/api/v1/namespaces/space/limitranges"
    status, body = await plain.call("POST", ranges, {"metadata": {"name": "l"}, "spec": {"limits": [item]}})
    assert status == 201, body
    _, made = await plain.call("POST", PODS, pod())
    assert made["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "1Gi"},
    }
    status, body = await plain.call("POST", PODS, pod("big", container={"resources": {"limits": {"cpu": "3"}}}))
    assert (status, body["message"]) == (
        403,
        'pods "big" is forbidden: maximum cpu usage per Container is 2, but limit is 3',
    )


async def test_a_new_namespace_has_no_service_account_for_a_moment(plain: Plain) -> None:
    async with FakeCluster(pace=Pace(service_account=30)) as slow, Plain(slow.url, slow.token) as talk:
        await asyncio.sleep(0)
        await slow.has_account("default")
        await talk.call("POST", "/api/v1/namespaces", {"metadata": {"name": "space"}})
        status, body = await talk.call("POST", PODS, pod())
    assert (status, body["message"]) == (
        403,
        'pods "p" is forbidden: error looking up service account space/default: serviceaccount "default" not found',
    )
