"""The contract of /api/v1/environments on real servers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from libs.common.contracts.events import RuntimeDeleted, RuntimeRunning, RuntimeStopped
from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from libs.common.security.sealing import Sealer
from services.envs.deps import VARIABLES_PURPOSE
from services.envs.main import create_app
from services.envs.settings import EnvsSettings
from tests.integration.envs.conftest import API, World
from tests.support.app import running_app
from tests.support.tokens import TestIssuer

_FIELDS = {
    "id", "user_id", "name", "description", "template", "status", "status_reason", "resources", "region",
    "external_url", "web_port", "created_at", "updated_at", "last_accessed", "cpu_usage", "memory_usage",
    "storage_usage", "installation_completed",
}  # fmt: skip


class TestCreate:
    async def test_answers_201_with_the_whole_environment(self, world: World) -> None:
        created = await world.create(
            "My-API", description="an api", environment_variables={"TOKEN": "s3cret"}, region="eu-west"
        )
        assert created.keys() == _FIELDS
        assert created["name"] == "my-api"
        assert created["status"] == "creating"
        assert created["user_id"] == world.user_id
        assert created["resources"] == {"cpu": "500m", "memory": "1Gi", "storage": "5Gi"}
        assert created["web_port"] == 8000
        assert created["installation_completed"] is False
        assert await world.call("GET", f"{API}/{created['id']}") == created

    @pytest.mark.parametrize(("alias", "name"), [("node", "nodejs"), ("go", "golang"), ("Rust", "rust")])
    async def test_knows_aliases(self, world: World, alias: str, name: str) -> None:
        assert (await world.create(template=alias))["template"] == name

    async def test_the_trailing_slash_is_no_redirect(self, world: World) -> None:
        await world.call("POST", f"{API}/", 201, json={"name": "slash", "template": "python"})
        assert [e["name"] for e in await world.call("GET", f"{API}/")] == ["slash"]

    @pytest.mark.parametrize(
        ("body", "word"),
        [
            ({"name": "with_underscore"}, "with-underscore"),
            ({"name": "-x"}, "hyphen"),
            ({"name": "ümlaut"}, "a-z"),
            ({"name": ""}, "1 to 50"),
            ({"name": "x" * 51}, "1 to 50"),
            ({"name": 7}, "string"),
            ({"name": "x\n"}, None),
            ({"template": "cobol"}, "python"),
            ({"resources": {"cpu": "many"}}, "millicores"),
            ({"resources": {"memory": "1GB"}}, "Gi"),
            ({"resources": {"memory": "1Ki"}}, "16Mi"),
            ({"environment_variables": {"1X": "v"}}, "variable name"),
            ({"environment_variables": {"LD_PRELOAD": "v"}}, "reserved"),
            ({"environment_variables": {"DEVPOCKET_X": "v"}}, "reserved"),
            ({"environment_variables": {"X": "\0"}}, "zero byte"),
            ({"environment_variables": {"X": "v" * 33_000}}, "32768"),
            ({"environment_variables": {f"V{i}": "" for i in range(101)}}, "100"),
            ({"environment_variables": {f"V{i}": "v" * 32_000 for i in range(5)}}, "131072"),
            ({"startup_command": "x" * 4097}, "4096"),
            ({"description": "x" * 501}, "500"),
            ({"region": "EU West"}, "A region has 1 to 50"),
        ],
    )
    async def test_bad_input_is_422_with_a_sentence_or_tidied(
        self, world: World, body: dict[str, Any], word: str | None
    ) -> None:
        body = {"name": "ok", "template": "python", **body}
        if word is None:
            assert (await world.call("POST", API, 201, json=body))["name"] == "x"
            return
        problem = await world.call("POST", API, 422, json=body)
        assert word in problem["detail"]
        assert problem["code"] in {"validation_error", "unknown_template"}
        assert await world.call("GET", API) == []

    async def test_a_refused_value_is_not_repeated(self, world: World) -> None:
        response = await world.http.post(
            API,
            json={"name": "ok", "environment_variables": {"LD_X": "hunter2", "Y": 5}},
            headers=world.headers,
        )
        assert response.status_code == 422
        assert "hunter2" not in response.text

    async def test_more_than_the_plan_is_403_naming_the_limit(self, world: World) -> None:
        problem = await world.create(resources={"memory": "8Gi"}, expected=403)
        assert problem["code"] == "resource_limit_exceeded"
        assert "4Gi" in problem["detail"]
        assert "pro" in problem["detail"]

    async def test_a_duplicate_name_is_400(self, world: World) -> None:
        await world.create("same")
        problem = await world.create("SAME", expected=400)
        assert problem["detail"] == "Environment name already exists"
        await world.create("same", headers=world.issuer.headers())

    async def test_quota_is_403_naming_plan_and_limit(self, world: World) -> None:
        free = world.issuer.headers(plan=Plan.FREE)
        await world.create("one", headers=free)
        problem = await world.create("two", headers=free, expected=403)
        assert problem["code"] == "quota_exceeded"
        assert "free plan allows 1 environment;" in problem["detail"]

    @pytest.mark.parametrize(("plan", "limit"), [(Plan.FREE, 1), (Plan.STARTER, 3), (Plan.PRO, 10)])
    async def test_twenty_parallel_creates_never_exceed_the_plan(self, world: World, plan: Plan, limit: int) -> None:
        headers = world.issuer.headers(plan=plan)
        answers = await asyncio.gather(
            *(world.http.post(API, json={"name": f"env-{i}", "template": "python"}, headers=headers) for i in range(20))
        )
        assert Counter(answer.status_code for answer in answers) == {201: limit, 403: 20 - limit}
        assert len(await world.call("GET", API, headers=headers)) == limit

    async def test_parallel_creates_of_one_name_make_one(self, world: World) -> None:
        answers = await asyncio.gather(
            *(world.http.post(API, json={"name": "same"}, headers=world.headers) for _ in range(8))
        )
        assert Counter(answer.status_code for answer in answers) == {201: 1, 400: 7}

    async def test_the_plan_of_auths_events_wins_over_the_token(self, world: World) -> None:
        user_id = new_id()
        headers = world.issuer.headers(user_id, plan=Plan.FREE)
        await world.user_state(user_id, Plan.STARTER, version=2)
        await world.user_state(user_id, Plan.FREE, version=1)
        for name in ("one", "two", "three"):
            await world.create(name, headers=headers)
        await world.create("four", headers=headers, expected=403)
        await world.user_state(user_id, Plan.STARTER, version=3, active=False)
        assert (await world.create("five", headers=headers, expected=403))["code"] == "account_inactive"

    async def test_an_unverified_address_is_403_where_that_is_required(self, settings: EnvsSettings) -> None:
        settings = settings.model_copy(update={"require_email_verification": True})
        issuer = TestIssuer(settings)
        async with running_app(create_app(settings, keys=issuer)) as http:
            answer = await http.post(API, json={"name": "x"}, headers=issuer.headers(verified=False))
            assert (answer.status_code, answer.json()["code"]) == (403, "email_not_verified")
            assert (await http.post(API, json={"name": "x"}, headers=issuer.headers())).status_code == 201


class TestSecrets:
    async def test_variables_are_sealed_at_rest_and_on_the_bus_and_never_returned(
        self, world: World, settings: EnvsSettings
    ) -> None:
        created = await world.create(environment_variables={"TOKEN": "hunter2"})
        assert "hunter2" not in json.dumps(created)
        document = await world.app.state.platform.database["environments"].find_one({"_id": created["id"]})
        assert "hunter2" not in repr(document)
        (message,) = await world.stored(created["id"], 1)
        assert b"hunter2" not in message.data
        sealed = json.loads(message.data)["data"]["spec"]["variables_sealed"]
        opened = Sealer(settings.secret_key.get_secret_value(), VARIABLES_PURPOSE).open(sealed)
        assert json.loads(opened) == {"PYTHONUNBUFFERED": "1", "TOKEN": "hunter2"}


class TestList:
    async def test_pages_with_link_newest_first(self, world: World) -> None:
        for i in range(5):
            await world.create(f"env-{i}")
        names: list[str] = []
        url = f"{API}?limit=2"
        for _ in range(3):
            response = await world.http.get(url, headers=world.headers)
            names += [environment["name"] for environment in response.json()]
            link = response.headers.get("link", "")
            url = link[1 : link.index(">")] if link else ""
        assert names == ["env-4", "env-3", "env-2", "env-1", "env-0"]
        assert url == ""

    async def test_filters_by_status_and_keeps_the_filter_in_the_link(self, world: World) -> None:
        for i in range(2):
            await world.create(f"env-{i}")
        running = await world.running("runs")
        assert [e["id"] for e in await world.call("GET", f"{API}?status_filter=running")] == [running]
        response = await world.http.get(f"{API}?status_filter=creating&limit=1", headers=world.headers)
        assert "status_filter=creating" in response.headers["link"]
        assert await world.call("GET", f"{API}?status_filter=terminated") == []

    @pytest.mark.parametrize(
        "query", ["status_filter=asleep", "limit=0", "limit=101", "limit=x", "cursor=%00", "cursor=!!!", "cursor=eA="]
    )
    async def test_bad_queries_are_422(self, world: World, query: str) -> None:
        await world.call("GET", f"{API}?{query}", 422)


class TestUpdate:
    @pytest.mark.parametrize("method", ["PATCH", "PUT"])
    async def test_changes_what_is_given(self, world: World, method: str) -> None:
        environment_id = await world.running(description="old", resources={"cpu": "1000m"})
        changed = await world.call(
            method,
            f"{API}/{environment_id}",
            json={
                "name": "new-name",
                "resources": {"memory": "2Gi"},
                "environment_variables": {"A": "b"},
                "startup_command": "make run",
                "description": None,
            },
        )
        assert changed["name"] == "new-name"
        assert changed["description"] == "old"
        assert changed["resources"] == {"cpu": "1000m", "memory": "2Gi", "storage": "5Gi"}
        assert changed["status"] == "running"
        name, data = (await world.told(environment_id, 4))[3]
        assert name == "env.updated"
        assert (data["generation"], data["version"]) == (1, 3)
        assert data["spec"]["startup_command"] == "make run"
        assert data["spec"]["resources"]["memory"] == "2Gi"

    async def test_nothing_new_is_no_event(self, world: World) -> None:
        environment_id = await world.running()
        before = await world.call("GET", f"{API}/{environment_id}")
        assert await world.call("PATCH", f"{API}/{environment_id}", json={}) == before
        assert await world.call("PATCH", f"{API}/{environment_id}", json={"name": "one"}) == before

    async def test_refuses_taken_names_too_much_and_nonsense(self, world: World) -> None:
        await world.create("taken")
        url = f"{API}/{await world.running()}"
        assert (await world.call("PATCH", url, 400, json={"name": "taken"}))["code"] == "duplicate_name"
        await world.call("PATCH", url, 403, json={"resources": {"cpu": "64"}})
        await world.call("PATCH", url, 422, json={"name": "a_b"})
        await world.call("DELETE", url)
        await world.call("PATCH", url, 409, json={"name": "other"})


class TestCommands:
    async def test_the_whole_life_and_its_messages(self, world: World) -> None:
        url = f"{API}/{(environment_id := await world.running())}"
        for command, message, status, report, then in (
            ("stop", "Environment stopped successfully", "stopping", RuntimeStopped, "stopped"),
            ("start", "Environment started successfully", "starting", RuntimeRunning, "running"),
            ("restart", "Environment restarted successfully", "restarting", RuntimeRunning, "running"),
        ):
            for _ in range(2):
                if command == "restart" and (await world.call("GET", url))["status"] != "running":
                    continue
                assert await world.call("POST", f"{url}/{command}") == {"message": message, "status": status}
            generation = {"stop": 2, "start": 3, "restart": 4}[command]
            await world.report(environment_id, report, generation=generation)
            await world.until_status(environment_id, then)
        deletion = {"message": "Environment deletion started", "status": "terminating"}
        assert await world.call("DELETE", url) == deletion
        assert await world.call("DELETE", url) == deletion
        await world.report(environment_id, RuntimeDeleted, generation=5)
        await world.settled("runtime")
        assert (await world.call("GET", url, 404))["detail"] == "Environment not found"
        await world.call("DELETE", url, 404)
        told = await world.told(environment_id, 15)
        assert [name for name, _ in told] == [
            "env.created", "runtime.running", "env.status_changed",
            "env.stop_requested", "env.status_changed", "runtime.stopped", "env.status_changed",
            "env.start_requested", "env.status_changed", "runtime.running", "env.status_changed",
            "env.restart_requested", "env.status_changed", "runtime.running", "env.status_changed",
        ]  # fmt: skip
        versions = [data["version"] for name, data in told if name.startswith("env.")]
        assert versions == sorted(versions)

    async def test_what_the_table_forbids_is_409_with_a_sentence(self, world: World) -> None:
        url = f"{API}/{(await world.create())['id']}"
        problem = await world.call("POST", f"{url}/start", 409)
        assert problem["detail"] == (
            "The environment is creating and cannot be started now: please wait until it is running"
        )
        await world.call("POST", f"{url}/restart", 409)

    async def test_a_name_and_a_place_are_free_again_after_deletion(self, world: World) -> None:
        headers = world.issuer.headers(plan=Plan.FREE)
        environment_id = (await world.create(headers=headers))["id"]
        await world.call("DELETE", f"{API}/{environment_id}", headers=headers)
        await world.create("other", headers=headers, expected=403)
        await world.report(environment_id, RuntimeDeleted, generation=2)
        await world.settled("runtime")
        assert await world.call("GET", API, headers=headers) == []
        await world.create(headers=headers)

    async def test_parallel_commands_make_one_wish_each(self, world: World) -> None:
        environment_id = await world.running()
        answers = await asyncio.gather(
            *(world.http.post(f"{API}/{environment_id}/stop", headers=world.headers) for _ in range(10))
        )
        assert {answer.status_code for answer in answers} == {200}
        document = await world.app.state.platform.database["environments"].find_one({"_id": environment_id})
        assert document["generation"] == 2


class TestAccess:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", ""), ("PATCH", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/start"), ("POST", "/stop"),
            ("POST", "/restart"), ("GET", "/metrics"), ("GET", "/events"),
        ],
    )  # fmt: skip
    async def test_every_route_is_404_for_others_and_401_for_nobody(self, world: World, method: str, path: str) -> None:
        environment_id = await world.running()
        url = f"{API}/{environment_id}{path}"
        body: dict[str, Any] = {"json": {}} if method in {"PATCH", "PUT"} else {}
        for headers in (world.issuer.headers(), world.issuer.headers(plan=Plan.ADMIN)):
            assert (await world.call(method, url, 404, headers=headers, **body))["detail"] == "Environment not found"
        await world.call(method, f"{API}/{new_id()}{path}", 404, **body)
        assert (await world.http.request(method, url, **body)).status_code == 401
        assert (await world.call("GET", f"{API}/{environment_id}"))["status"] == "running"

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_the_collection_is_401_for_nobody(self, world: World, method: str) -> None:
        assert (await world.http.request(method, API, json={"name": "x"})).status_code == 401

    async def test_a_list_holds_only_ones_own(self, world: World) -> None:
        await world.create()
        assert await world.call("GET", API, headers=world.issuer.headers(plan=Plan.ADMIN)) == []
