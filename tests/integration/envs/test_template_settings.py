"""What an operator's settings say of templates holds at every start."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from libs.common.contracts.identity import Plan
from services.envs.errors import SettingsNameNoTemplateError
from services.envs.main import create_app
from services.envs.service.templates import TemplateService
from tests.integration.envs.conftest import World
from tests.integration.envs.test_templates import _FIVE, _RUBY, API
from tests.support.app import running_app


@pytest.fixture
def admin(world: World) -> dict[str, str]:
    return world.issuer.headers(plan=Plan.ADMIN)


async def _start(world: World, **named: Any) -> None:
    """Another replica with these settings starts, and is ready; then it ends."""
    async with running_app(create_app(world.app.state.platform.settings.model_copy(update=named), keys=world.issuer)):
        pass


async def test_they_hold_over_what_the_api_has_changed(world: World, admin: dict[str, str]) -> None:
    for name in ("python", "rust"):
        await world.call("PUT", f"{API}/{name}", json={"docker_image": "mine:1", "version": "9"}, headers=admin)
    named = {"template_images": {"python": "py:3"}, "template_pull_policy": {"*": "Never", "golang": "Always"}}
    await _start(world, **named)
    found = {template["name"]: template for template in await world.call("GET", API)}
    assert (found["python"]["docker_image"], found["python"]["version"]) == ("py:3", "9")
    assert found["rust"]["docker_image"] == "mine:1"
    assert {name: template["image_pull_policy"] for name, template in found.items()} == {
        **dict.fromkeys(_FIVE, "Never"),
        "golang": "Always",
    }
    await world.call("PUT", f"{API}/python", json={"docker_image": "mine:2"}, headers=admin)
    await _start(world)
    assert (await world.call("GET", f"{API}/python"))["docker_image"] == "mine:2"
    await _start(world, **named)
    assert (await world.call("GET", f"{API}/python"))["docker_image"] == "py:3"


async def test_a_name_that_no_template_has_holds_the_start_until_it_is_there(
    world: World, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_settings, refused = TemplateService.apply_settings, asyncio.Event()

    async def watched(service: TemplateService) -> list[str]:
        try:
            return await apply_settings(service)
        except SettingsNameNoTemplateError:
            refused.set()
            raise

    monkeypatch.setattr(TemplateService, "apply_settings", watched)
    settings = world.app.state.platform.settings.model_copy(update={"template_images": {"cobol": "cobol:2"}})
    app = create_app(settings, keys=world.issuer)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        await asyncio.wait_for(refused.wait(), 30)
        assert (await http.get("/health/ready")).status_code == 503
        await world.call("POST", API, 201, json={**_RUBY, "name": "cobol"}, headers=admin)
        await asyncio.wait_for(app.state.platform.health.wait_started(), 30)
        assert (await http.get("/health/ready")).status_code == 200
    assert (await world.call("GET", f"{API}/cobol"))["docker_image"] == "cobol:2"
