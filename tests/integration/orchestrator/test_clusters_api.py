"""Clusters over HTTP: who may, what is refused and in which words, and that no credential ever comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from aiohttp import web

from libs.common.contracts.identity import Plan
from services.orchestrator.main import create_app
from services.orchestrator.settings import OrchestratorSettings
from tests.fakes.kube import FakeCluster
from tests.fakes.runtime import FakeRuntime
from tests.support.app import running_app
from tests.support.tokens import TestIssuer
from tests.unit.orchestrator.memory_clusters import SECRET, a_kubeconfig

API = "/api/v1/clusters"
ENDPOINTS = [
    ("GET", API),
    ("POST", API),
    ("GET", f"{API}/eu-1"),
    ("PUT", f"{API}/eu-1"),
    ("PATCH", f"{API}/eu-1"),
    ("DELETE", f"{API}/eu-1"),
    ("POST", f"{API}/eu-1/drain"),
    ("GET", f"{API}/eu-1/health"),
]
NOBODY_LISTENS = "http://127.0.0.1:9"


class Client:
    """An administrator's; every answer is looked through for what must not be in it."""

    def __init__(self, http: httpx.AsyncClient, issuer: TestIssuer, kube: FakeCluster) -> None:
        self.http, self.issuer, self.kube = http, issuer, kube
        self._headers = {**issuer.headers(plan=Plan.ADMIN), "Content-Type": "application/json"}

    async def call(self, method: str, path: str, status: int, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body)
        answer = await self.http.request(method, path, content=content, headers=self._headers)
        assert answer.status_code == status, answer.text
        for secret in (SECRET, self.kube.token, "sealed"):
            assert secret not in answer.text
        return answer.json() if answer.content else None

    async def add(self, name: str = "eu-1", region: str = "eu", status: int = 201, **changes: Any) -> Any:
        body = {"name": name, "region": region, "kubeconfig": self.kube.kubeconfig, **changes}
        return await self.call("POST", API, status, body)


@pytest.fixture
async def kube() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as cluster:
        yield cluster


@pytest.fixture
async def admin(settings: OrchestratorSettings, issuer: TestIssuer, kube: FakeCluster) -> AsyncIterator[Client]:
    # Nothing happens by itself within a test: what an answer says is what was asked for.
    still = settings.model_copy(update={"cluster_refresh_seconds": 3600.0, "cluster_check_seconds": 3600.0})
    async with running_app(create_app(still, keys=issuer, runtime=FakeRuntime())) as http:
        yield Client(http, issuer, kube)


class TestWhoMay:
    async def test_nobody_and_users_may_not_and_learn_nothing(self, admin: Client) -> None:
        for headers, status in ((None, 401), (admin.issuer.headers(plan=Plan.PRO), 403)):
            for method, path in ENDPOINTS:
                answer = await admin.http.request(method, path, json={}, headers=headers)
                assert answer.status_code == status, (method, path)
                assert answer.headers["content-type"] == "application/problem+json"

    async def test_an_unknown_one_is_not_found(self, admin: Client) -> None:
        for method, path in (each for each in ENDPOINTS if each[1] != API):
            problem = await admin.call(method, path, 404, {} if method in {"PUT", "PATCH"} else None)
            assert problem["code"] == "cluster_not_found"
            assert "'eu-1'" in problem["detail"]


class TestLife:
    async def test_one_is_added_shown_changed_drained_and_removed(self, admin: Client) -> None:
        added = await admin.add(capacity=5, is_default=True)
        assert (added["id"], added["name"], added["region"], added["source"]) == ("eu-1", "eu-1", "eu", "registered")
        assert (added["health"], added["status"], added["runtime"]) == ("healthy", "active", "kubernetes")
        assert (added["is_default"], added["capacity"], added["environments"]) == (True, 5, 0)
        assert added["server_version"].startswith("v1.")
        assert await admin.call("GET", f"{API}/eu-1", 200) == added
        assert [each["name"] for each in await admin.call("GET", API, 200)] == ["default", "eu-1"]
        changed = await admin.call("PATCH", f"{API}/eu-1", 200, {"region": "us", "capacity": 0, "is_default": False})
        assert (changed["region"], changed["capacity"], changed["is_default"]) == ("us", None, False)
        assert (await admin.call("POST", f"{API}/eu-1/drain", 200))["status"] == "draining"
        assert (await admin.call("PUT", f"{API}/eu-1", 200, {"status": "active"}))["status"] == "active"
        assert await admin.call("DELETE", f"{API}/eu-1", 204) is None
        await admin.call("GET", f"{API}/eu-1", 404)
        assert (await admin.add())["environments"] == 0

    async def test_a_kubeconfig_may_be_text(self, admin: Client) -> None:
        text = "# ours\n" + json.dumps(admin.kube.kubeconfig, indent=2)
        assert (await admin.add(kubeconfig=text))["health"] == "healthy"

    async def test_the_name_is_taken_once(self, admin: Client) -> None:
        await admin.add()
        assert (await admin.add(status=409))["code"] == "cluster_exists"
        assert (await admin.add("default", status=409))["code"] == "cluster_exists"

    async def test_the_cluster_of_the_settings_stays_what_they_say(self, admin: Client) -> None:
        assert (await admin.call("DELETE", f"{API}/default", 409))["code"] == "cluster_fixed"
        for body in ({"region": "us"}, {"kubeconfig": admin.kube.kubeconfig}):
            assert (await admin.call("PATCH", f"{API}/default", 409, body))["code"] == "cluster_fixed"
        assert (await admin.call("PATCH", f"{API}/default", 200, {"capacity": 3}))["capacity"] == 3

    async def test_users_see_regions_and_no_clusters(self, admin: Client) -> None:
        await admin.add(verify=False)
        await admin.call("GET", f"{API}/eu-1/health", 200)
        answer = await admin.http.get("/api/v1/regions", headers=admin.issuer.headers())
        assert answer.json() == [
            {"name": "eu", "status": "unavailable", "is_default": False},
            {"name": "local", "status": "available", "is_default": True},
        ]
        assert (await admin.call("GET", f"{API}/eu-1/health", 200))["health"] == "healthy"
        answer = await admin.http.get("/api/v1/regions", headers=admin.issuer.headers())
        assert answer.json()[0]["status"] == "available"


class TestHealth:
    async def test_is_asked_now_of_one_that_nobody_has_worked_with_yet(self, admin: Client) -> None:
        await admin.add(verify=False)
        assert (await admin.call("GET", f"{API}/eu-1", 200))["health"] == "unknown"
        assert (await admin.call("GET", f"{API}/eu-1/health", 200))["health"] == "healthy"
        assert (await admin.call("GET", f"{API}/eu-1", 200))["health"] == "healthy"

    async def test_says_at_once_what_one_failure_does_not_yet_change(self, admin: Client) -> None:
        await admin.add()
        await admin.kube.hang_up()
        asked = await admin.call("GET", f"{API}/eu-1/health", 200)
        assert (asked["health"], asked["health_reason"]) == ("unreachable", "ClusterUnreachable")
        assert asked["health_message"]
        assert (await admin.call("GET", f"{API}/eu-1", 200))["health"] == "healthy"
        await admin.kube.listen()
        assert (await admin.call("GET", f"{API}/eu-1/health", 200))["health"] == "healthy"

    async def test_is_asked_with_the_newest_credentials(self, admin: Client) -> None:
        wrong = admin.kube.kubeconfig_for("admin", SECRET)
        await admin.add(kubeconfig=wrong, verify=False)
        asked = await admin.call("GET", f"{API}/eu-1/health", 200)
        assert asked["health_reason"] == "ClusterUnauthorized"
        await admin.call("PATCH", f"{API}/eu-1", 200, {"kubeconfig": admin.kube.kubeconfig})
        assert (await admin.call("GET", f"{API}/eu-1/health", 200))["health"] == "healthy"


def using(kind: str, **fields: Any) -> dict[str, Any]:
    """A kubeconfig whose user or cluster has these fields too."""
    found: Any = a_kubeconfig(NOBODY_LISTENS)
    found[f"{kind}s"][0][kind] |= fields
    return dict(found)


_BOMB = "clusters: &a [{name: x}]\nusers: [{name: x}]\ncontexts: [{name: x}]\nl0: &l0 [x, x]\n" + "\n".join(
    f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)
)
_DEEP: Any = json.loads('{"a":' * 200 + "1" + "}" * 200)
NO_KUBECONFIGS = [
    ("{no: [yaml", "no valid YAML"),
    ("a: !!bool perhaps", "no valid YAML"),
    ("a: !!timestamp never", "no valid YAML"),
    ("a: 2026-13-45", "no valid YAML"),
    ("just words", "no mapping"),
    ("", "no mapping"),
    ({}, "clusters must be a list"),
    ({"clusters": [], "users": {}, "contexts": []}, "users must be a list"),
    ({"clusters": ["x"], "users": [], "contexts": []}, "clusters must be a list"),
    ("#" * 300_000, "larger than 256 KiB"),
    ({**a_kubeconfig(), "x": "y" * 300_000}, "larger than 256 KiB"),
    ({**a_kubeconfig(), "x": [0] * 300_000}, "larger than 256 KiB"),
    ({**a_kubeconfig(), "x": _DEEP}, "too deep"),
    ({**a_kubeconfig(), "x": "\ud800"}, "cannot express"),
    (_BOMB, "larger than 256 KiB"),
    ("clusters: &a [{name: x, a: *a}]\nusers: *a\ncontexts: *a", "larger than 256 KiB"),
]
UNUSABLE = [
    (using("user", exec={"command": "curl"}), "exec"),
    (using("user", **{"auth-provider": {"name": "gcp"}}), "auth-provider"),
    (using("user", **{"client-certificate": "/etc/passwd"}), "client-certificate"),
    (using("user", tokenFile="/etc/passwd"), "tokenFile"),
    (using("cluster", **{"certificate-authority": "/etc/passwd"}), "certificate-authority"),
    (using("cluster", server=None), "cannot be used"),
    (using("cluster", server=6443), "cannot be used"),
    (using("cluster", server="no url"), "cannot be used"),
    (using("cluster", server="ftp://127.0.0.1"), "cannot be used"),
    (using("user", token=["x"]), "cannot be used"),
    (using("user", token=f"{SECRET}\r\nX: y"), "cannot be used"),
    (using("user", **{"client-certificate-data": SECRET, "client-key-data": SECRET}), "cannot be used"),
    ({**a_kubeconfig(), "users": [{"name": "main", "user": SECRET}]}, "cannot be used"),
    ({**a_kubeconfig(), "contexts": [{"name": "main"}]}, "cannot be used"),
    ({**a_kubeconfig(), "current-context": "other"}, "other"),
    ("clusters: []\nusers: []\ncontexts: []\nat: 2026-01-01\nraw: !!binary gIGC", "cannot be used"),
    (a_kubeconfig(NOBODY_LISTENS), "cannot be reached"),
]


class TestBadInput:
    @pytest.mark.parametrize("field", ["kubeconfig", "terminal_kubeconfig"])
    async def test_what_is_no_kubeconfig_or_does_not_work_is_told(self, admin: Client, field: str) -> None:
        for kubeconfig, words in NO_KUBECONFIGS:
            problem = await admin.add("eu-1", "eu", 422, **{field: kubeconfig})
            assert (problem["code"], words in problem["detail"]) == ("validation_error", True), problem
        for kubeconfig, words in UNUSABLE:
            problem = await admin.add("eu-1", "eu", 422, **{field: kubeconfig})
            assert (problem["code"], words in problem["detail"]) == ("cluster_unusable", True), problem
        await admin.call("GET", f"{API}/eu-1", 404)

    async def test_a_context_that_is_not_there_is_told(self, admin: Client) -> None:
        assert "elsewhere" in (await admin.add(status=422, context="elsewhere"))["detail"]

    async def test_wrong_credentials_are_told(self, admin: Client) -> None:
        problem = await admin.add(status=422, kubeconfig=admin.kube.kubeconfig_for("admin", SECRET))
        assert "does not accept our credentials" in problem["detail"]

    async def test_what_is_no_api_server_is_told(self, admin: Client) -> None:
        answers = [(200, "<html>"), (200, "[]"), (400, "Client sent an HTTP request to an HTTPS server"), (302, "")]

        async def answer(_: web.Request) -> web.Response:
            status, text = answers[0]
            return web.Response(status=status, text=text, headers={"Location": "/version"} if status == 302 else {})

        site = web.Application()
        site.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(site)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            kubeconfig = a_kubeconfig(f"http://127.0.0.1:{runner.addresses[0][1]}")
            while answers:
                problem = await admin.add(status=422, kubeconfig=kubeconfig)
                assert problem["code"] == "cluster_unusable", answers[0]
                del answers[0]
        finally:
            await runner.cleanup()

    async def test_other_fields_are_checked(self, admin: Client) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"name": "No Label"}, "'No Label' cannot be used"),
            ({"name": "-a"}, "no hyphen at either end"),
            ({"name": "a" * 41}, "at most 40 characters"),
            ({"name": ""}, "at least 1 character"),
            ({"region": "a.b"}, "region 'a.b'"),
            ({"kubeconfig": None}, "kubeconfig"),
            ({"kubeconfig": 7}, "kubeconfig"),
            ({"capacity": -1}, "capacity"),
            ({"blocked_cidrs": ["10.0.0.0/99"]}, "blocked_cidrs"),
            ({"colour": "red"}, "colour"),
        ]
        for changes, words in cases:
            assert words in (await admin.add(status=422, **changes))["detail"]

    async def test_a_change_is_checked_and_changes_nothing(self, admin: Client) -> None:
        added = await admin.add()
        cases: list[tuple[dict[str, Any], str]] = [
            ({"context": "other"}, "context can only be changed together with the kubeconfig"),
            ({"blocked_cidrs": ["203.0.113.0/24"]}, "blocked_cidrs can only"),
            ({"status": "removed"}, "status"),
            ({"kubeconfig": "just words"}, "no mapping"),
            ({"kubeconfig": a_kubeconfig(NOBODY_LISTENS)}, "cannot be reached"),
            ({"terminal_kubeconfig": a_kubeconfig(NOBODY_LISTENS)}, "cannot be reached"),
            ({"region": "no label"}, "'no label' cannot be used"),
        ]
        for body, words in cases:
            assert words in (await admin.call("PATCH", f"{API}/eu-1", 422, body))["detail"]
        assert await admin.call("GET", f"{API}/eu-1", 200) == added

    async def test_odd_names_in_the_path_are_not_found(self, admin: Client) -> None:
        for name in ("%00", "..%2f", "%F0%9F%90%8B", "$where", "a" * 64):
            await admin.call("GET", f"{API}/{name}", 404)
        await admin.call("GET", f"{API}/{'a' * 65}", 422)
