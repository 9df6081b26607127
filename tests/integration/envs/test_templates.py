"""Templates by API and command line."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from libs.common.contracts.identity import Plan
from services.envs.commands import app as commands
from services.envs.settings import EnvsSettings
from tests.integration.envs.conftest import World

API = "/api/v1/templates"
_FIVE = ["golang", "nodejs", "python", "rust", "ubuntu"]
_RUBY = {
    "name": "ruby",
    "display_name": "Ruby",
    "description": "Ruby with bundler",
    "category": "programming_language",
    "docker_image": "registry.example:5000/ruby:3",
    "environment_variables": {"RAILS_ENV": "development"},
    "startup_commands": ["bundle install", "true"],
    "default_resources": {"cpu": "4", "memory": "512Mi", "storage": "1Gi"},
    "default_port": 3000,
}


@pytest.fixture
def admin(world: World) -> dict[str, str]:
    return world.issuer.headers(plan=Plan.ADMIN)


class TestRead:
    async def test_five_are_there_with_the_originals_fields(self, world: World) -> None:
        found = await world.call("GET", API)
        assert [template["name"] for template in found] == _FIVE
        assert found[2].keys() == {
            "id", "name", "display_name", "description", "category", "tags", "docker_image", "default_port",
            "default_resources", "environment_variables", "startup_commands", "status", "version", "created_at",
            "updated_at", "usage_count", "documentation_url", "icon_url", "image_pull_policy",
        }  # fmt: skip
        assert found[2]["docker_image"] == "devpocket/python:latest"
        assert await world.call("GET", f"{API}/python") == found[2]
        assert (await world.call("GET", f"{API}/go"))["name"] == "golang"

    async def test_usage_count_is_real(self, world: World) -> None:
        for name in ("a", "b"):
            await world.create(name)
        counts = {template["name"]: template["usage_count"] for template in await world.call("GET", API)}
        assert counts == {**dict.fromkeys(_FIVE, 0), "python": 2}

    async def test_filters(self, world: World) -> None:
        assert [t["name"] for t in await world.call("GET", f"{API}?category=operating_system")] == ["ubuntu"]
        assert await world.call("GET", f"{API}?status=beta") == []
        await world.call("GET", f"{API}?status=old", 422)
        assert (await world.call("GET", f"{API}/cobol", 404))["detail"] == "Template not found"

    async def test_nobody_is_401(self, world: World) -> None:
        assert (await world.http.get(API)).status_code == 401


class TestAdmin:
    async def test_a_new_one_is_used_by_new_environments(self, world: World, admin: dict[str, str]) -> None:
        created = await world.call("POST", API, 201, json=_RUBY, headers=admin)
        assert created.items() >= _RUBY.items()
        environment = await world.create(template="ruby")
        assert environment["resources"] == {"cpu": "2000m", "memory": "512Mi", "storage": "1Gi"}
        assert environment["web_port"] == 3000
        ((_, data),) = await world.told(environment["id"], 1)
        assert data["spec"]["startup_command"] == "bundle install && true"
        assert data["spec"]["image"] == "registry.example:5000/ruby:3"
        assert (data["spec"]["web_port"], data["spec"]["image_pull_policy"]) == (3000, None)

    async def test_a_pull_policy_reaches_the_wish_and_default_takes_it_away(
        self, world: World, admin: dict[str, str]
    ) -> None:
        created = await world.call("POST", API, 201, json={**_RUBY, "image_pull_policy": "Always"}, headers=admin)
        assert created["image_pull_policy"] == "Always"
        changed = await world.call("PUT", f"{API}/ruby", json={"image_pull_policy": "Never"}, headers=admin)
        assert changed["image_pull_policy"] == "Never"
        # Null leaves a value as it is, as in every other field.
        await world.call("PUT", f"{API}/ruby", json={"image_pull_policy": None}, headers=admin)
        assert (await world.call("GET", f"{API}/ruby"))["image_pull_policy"] == "Never"
        environment = await world.create(template="ruby")
        ((_, data),) = await world.told(environment["id"], 1)
        assert data["spec"]["image_pull_policy"] == "Never"
        reset = await world.call("PUT", f"{API}/ruby", json={"image_pull_policy": "default"}, headers=admin)
        assert reset["image_pull_policy"] is None

    async def test_what_exists_keeps_image_and_policy_also_at_a_restart(
        self, world: World, admin: dict[str, str]
    ) -> None:
        environment_id = await world.running()
        changes = {"docker_image": "py:4", "image_pull_policy": "Always"}
        await world.call("PUT", f"{API}/python", json=changes, headers=admin)
        await world.call("POST", f"/api/v1/environments/{environment_id}/restart")
        told = dict(await world.told(environment_id, 5))
        spec = told["env.restart_requested"]["spec"]
        assert (spec["image"], spec["image_pull_policy"]) == ("devpocket/python:latest", None)
        ((_, data),) = await world.told((await world.create("two"))["id"], 1)
        assert (data["spec"]["image"], data["spec"]["image_pull_policy"]) == ("py:4", "Always")

    async def test_an_image_that_is_none_is_refused_in_words(self, world: World, admin: dict[str, str]) -> None:
        for image, words in (
            ("Bad:1", "names are in lower case"),
            ("a b", "is no image reference"),
            ("\ud800", "is no image reference"),
        ):
            for method, path in (("POST", ""), ("PUT", "/python")):
                # The client's own encoder refuses half a character.
                content = json.dumps({**_RUBY, "docker_image": image})
                headers = {**admin, "Content-Type": "application/json"}
                problem = await world.call(method, f"{API}{path}", 422, content=content, headers=headers)
                (error,) = problem["errors"]
                assert error["field"] == "body.docker_image"
                assert words.lower() in error["message"].lower()

    async def test_a_template_from_before_there_were_policies_still_loads(
        self, world: World, admin: dict[str, str]
    ) -> None:
        templates = world.app.state.platform.database["templates"]
        await templates.update_one({"_id": "python"}, {"$unset": {"image_pull_policy": ""}})
        assert (await world.call("GET", f"{API}/python"))["image_pull_policy"] is None
        await world.create()
        await world.call("PUT", f"{API}/python", json={"image_pull_policy": "Never"}, headers=admin)
        assert (await world.call("GET", f"{API}/python"))["image_pull_policy"] == "Never"

    async def test_taken_names_and_aliases_are_400(self, world: World, admin: dict[str, str]) -> None:
        for name in ("python", "node"):
            problem = await world.call("POST", API, 400, json={**_RUBY, "name": name}, headers=admin)
            assert problem["code"] == "template_exists"

    async def test_put_changes_what_is_given(self, world: World, admin: dict[str, str]) -> None:
        before = await world.call("GET", f"{API}/rust")
        changed = await world.call("PUT", f"{API}/rust", json={"version": "2.0.0"}, headers=admin)
        assert changed == {**before, "version": "2.0.0", "updated_at": changed["updated_at"]}
        await world.call("PUT", f"{API}/cobol", 404, json={}, headers=admin)

    async def test_delete_hides_it_from_users(self, world: World, admin: dict[str, str]) -> None:
        await world.create(template="rust")
        answer = await world.call("DELETE", f"{API}/rust", headers=admin)
        assert answer == {"message": "Template deleted successfully"}
        await world.call("GET", f"{API}/rust", 404)
        assert (await world.call("GET", f"{API}/rust", headers=admin))["status"] == "deprecated"
        problem = await world.create("two", template="rust", expected=422)
        assert problem["detail"].endswith("golang, nodejs, python, ubuntu")

    @pytest.mark.parametrize(("method", "path"), [("POST", ""), ("PUT", "/python"), ("DELETE", "/python")])
    async def test_writing_is_403_for_users_and_401_for_nobody(self, world: World, method: str, path: str) -> None:
        assert (await world.call(method, f"{API}{path}", 403, json=_RUBY))["code"] == "forbidden"
        assert (await world.http.request(method, f"{API}{path}", json=_RUBY)).status_code == 401

    @pytest.mark.parametrize(
        "change",
        [
            {"docker_image": "bad image"},
            {"image_pull_policy": "Sometimes"},
            {"default_port": 70_000},
            {"environment_variables": {"LD_PRELOAD": "x"}},
            {"icon_url": "javascript:alert(1)"},
            {"default_resources": {"cpu": "x", "memory": "1Gi", "storage": "1Gi"}},
            {"category": "toys"},
        ],
    )
    async def test_nonsense_is_422(self, world: World, admin: dict[str, str], change: dict[str, Any]) -> None:
        await world.call("POST", API, 422, json={**_RUBY, **change}, headers=admin)
        await world.call("PUT", f"{API}/python", 422, json=change, headers=admin)


@pytest.fixture
def stack(settings: EnvsSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment as `devpocket` prepares it."""
    monkeypatch.setenv("MONGODB_URL", settings.mongodb_url.get_secret_value())
    monkeypatch.setenv("DATABASE_NAME", settings.database_name)


class TestCommandLine:
    async def test_lists_and_seeds(self, world: World, stack: None, admin: dict[str, str]) -> None:
        await world.create()
        await world.call("DELETE", f"{API}/rust", headers=admin)
        assert json.loads(await self._run("seed", "--json")) == {"written": []}
        assert "Nothing to do" in await self._run("seed")
        listed = {t["name"]: t for t in json.loads(await self._run("list", "--json"))}
        assert sorted(listed) == _FIVE
        assert (listed["rust"]["status"], listed["python"]["usage_count"]) == ("deprecated", 1)
        assert sorted(json.loads(await self._run("seed", "--force", "--json"))["written"]) == _FIVE
        assert (await world.call("GET", f"{API}/rust"))["status"] == "active"
        assert "devpocket/golang:latest" in await self._run("list")

    async def test_says_when_the_database_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MONGODB_URL", "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100")
        result = await asyncio.to_thread(CliRunner().invoke, commands, ["list"])
        assert result.exit_code == 1
        assert "MongoDB cannot be reached" in result.output

    async def test_one_is_added_changed_and_shown(self, world: World, stack: None) -> None:
        image = "registry.example:5000/ruby:3"
        added = json.loads(await self._run("add", "ruby", "--image", image, "--pull-policy", "Never", "--json"))
        assert (added["docker_image"], added["image_pull_policy"], added["display_name"]) == (image, "Never", "ruby")
        created = await world.create("one", template="ruby")
        changed = await self._run("set", "ruby", "--image", "ruby:4", "--port", "80", "--command", "make", "--json")
        assert json.loads(changed)["startup_commands"] == ["make"]
        assert "ruby:4" in await self._run("show", "ruby")
        assert "Never" in await self._run("list")
        await self._run("set", "ruby", "--pull-policy", "default", "--command", "")
        shown = json.loads(await self._run("show", "ruby", "--json"))
        assert (shown["image_pull_policy"], shown["startup_commands"]) == (None, [])
        stored = await world.app.state.platform.database["environments"].find_one({"_id": created["id"]})
        assert (stored["image"], stored["image_pull_policy"]) == (image, "Never")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["add", "Bad Name", "--image", "x"], "NAME: Name may contain only letters"),
            (["add", "python", "--image", "x"], "already exists"),
            (["add", "ruby", "--image", "Ruby:3"], "--image: 'Ruby:3' is no image reference; names are in lower case"),
            (["add", "ruby", "--image", "ruby:3", "--port", "0"], "--port: "),
            (
                ["set", "python", "--pull-policy", "Sometimes"],
                "--pull-policy: Input should be 'Always', 'IfNotPresent'",
            ),
            (["set", "python", "--image", "no image"], "--image: 'no image' is no image reference: write"),
            (["set", "python"], "Nothing to change: give --image, --pull-policy, --command or --port"),
            (["set", "cobol", "--port", "80"], "There is no template of this name"),
            (["show", "cobol"], "devpocket templates list"),
        ],
    )
    async def test_what_cannot_be_is_told(self, world: World, stack: None, arguments: list[str], words: str) -> None:
        result = await asyncio.to_thread(CliRunner().invoke, commands, arguments)
        assert result.exit_code == 1
        assert words in result.output

    async def test_settings_that_cannot_be_are_told_under_their_name(
        self, world: World, stack: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TEMPLATE_IMAGES", "python")
        result = await asyncio.to_thread(CliRunner().invoke, commands, ["list"])
        assert result.exit_code == 1
        assert "TEMPLATE_IMAGES: 'python' says nothing of a template: write TEMPLATE=IMAGE" in result.output

    async def _run(self, *arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, commands, list(arguments))
        assert result.exit_code == 0, result.output
        return result.stdout
