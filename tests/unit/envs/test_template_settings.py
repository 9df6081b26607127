"""What an operator's settings say of templates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import structlog
from pydantic import ValidationError
from structlog.testing import capture_logs

from services.envs.errors import SettingsNameNoTemplateError
from services.envs.service import templates
from services.envs.service.templates import TemplateService
from services.envs.settings import EnvsSettings
from tests.fakes.envs import FakeEnvironments, FakeTemplates

NOW = datetime(2026, 11, 25, tzinfo=UTC)
DIGEST = f"sha256:{'0a' * 32}"


def a_service(store: FakeTemplates, monkeypatch: pytest.MonkeyPatch, **variables: str) -> TemplateService:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = EnvsSettings()
    return TemplateService(
        store,
        FakeEnvironments(),
        image_prefix=settings.template_image_prefix,
        images=settings.template_images,
        pull_policies=settings.template_pull_policy,
        clock=lambda: NOW,
    )


async def test_images_and_policies_of_single_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeTemplates()
    service = a_service(
        store,
        monkeypatch,
        TEMPLATE_IMAGE_PREFIX="registry.example/dev",
        TEMPLATE_IMAGES=f"python=localhost:5000/py:3.12@{DIGEST}, go = golang:1",
        TEMPLATE_PULL_POLICY="python=Never,node=Always",
    )
    await service.seed()
    assert await service.apply_settings() == ["golang", "nodejs", "python"]
    found = {template.name: template for template in await store.all()}
    assert (found["python"].docker_image, found["python"].image_pull_policy) == (
        f"localhost:5000/py:3.12@{DIGEST}",
        "Never",
    )
    assert (found["golang"].docker_image, found["golang"].image_pull_policy) == ("golang:1", None)
    assert (found["nodejs"].docker_image, found["nodejs"].image_pull_policy) == (
        "registry.example/dev/nodejs:latest",
        "Always",
    )
    assert await service.apply_settings() == []


async def test_what_the_settings_leave_open_stays_as_administrators_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    service = a_service(FakeTemplates(), monkeypatch, TEMPLATE_IMAGES="python=py:3")
    await service.seed()
    await service.change("rust", {"docker_image": "rust:1"})
    await service.change("python", {"description": "Ours"})
    await service.apply_settings()
    rust, python = [(await service.get(name, sees_deprecated=True))[0] for name in ("rust", "python")]
    assert (rust.docker_image, python.docker_image, python.description) == ("rust:1", "py:3", "Ours")


async def test_one_word_is_for_all_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeTemplates()
    service = a_service(store, monkeypatch, TEMPLATE_PULL_POLICY="Never")
    await service.seed()
    await service.change("rust", {"image_pull_policy": "Always", "docker_image": "rust:1"})
    assert await service.apply_settings() == ["golang", "nodejs", "python", "rust", "ubuntu"]
    assert {template.image_pull_policy for template in await store.all()} == {"Never"}
    assert (await store.all())[3].docker_image == "rust:1"


async def test_each_change_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    service = a_service(FakeTemplates(), monkeypatch, TEMPLATE_IMAGES="python=py:3,ubuntu=ubuntu:24.04")
    await service.seed()
    # One that another test has used remembers how logging was set up then, and its level may still be in force.
    heard = structlog.make_filtering_bound_logger("info")
    monkeypatch.setattr(templates, "log", structlog.wrap_logger(None, wrapper_class=heard))
    with capture_logs() as logs:
        await service.apply_settings()
        await service.apply_settings()
    assert [(line["template"], line["image_before"], line["image"]) for line in logs] == [
        ("python", "devpocket/python:latest", "py:3"),
        ("ubuntu", "devpocket/ubuntu:latest", "ubuntu:24.04"),
    ]


@pytest.mark.parametrize("name", ["TEMPLATE_IMAGES", "TEMPLATE_PULL_POLICY"])
async def test_an_unknown_template_stops_the_start_until_it_is_there(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {"TEMPLATE_IMAGES": "cobol=cobol:1,python=py:3", "TEMPLATE_PULL_POLICY": "cobol=Never,python=Never"}[name]
    store = FakeTemplates()
    service = a_service(store, monkeypatch, **{name: value})
    await service.seed()
    before = await store.all()
    with pytest.raises(SettingsNameNoTemplateError) as caught:
        await service.apply_settings()
    sentence = str(caught.value)
    assert "names cobol, which is no template; there are: golang, nodejs, python, rust, ubuntu." in sentence
    assert "devpocket templates add cobol --image IMAGE" in sentence
    assert await store.all() == before
    await service.create(replace(before[0], name="cobol"))
    assert await service.apply_settings() == ["cobol", "python"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TEMPLATE_IMAGES", "python", "'python' says nothing of a template: write TEMPLATE=IMAGE"),
        ("TEMPLATE_IMAGES", "python=", "write TEMPLATE=IMAGE"),
        ("TEMPLATE_IMAGES", "=py:3", "write TEMPLATE=IMAGE"),
        ("TEMPLATE_IMAGES", "python=no image", "'no image' is no image reference: write"),
        ("TEMPLATE_IMAGES", "node=a,nodejs=b", "names the template 'nodejs' twice"),
        ("TEMPLATE_IMAGES", "my_py=a", "Name must not contain underscores; try 'my-py'"),
        ("TEMPLATE_PULL_POLICY", "Sometimes", "write one of Always, IfNotPresent, Never for all, or TEMPLATE=POLICY"),
        ("TEMPLATE_PULL_POLICY", "python=Sometimes", "'Always', 'IfNotPresent' or 'Never'"),
        ("TEMPLATE_PULL_POLICY", "never", "write one of Always, IfNotPresent, Never"),
    ],
)
def test_what_cannot_be_stops_the_start(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        EnvsSettings()
    (error,) = caught.value.errors()
    assert error["loc"][0] == name.lower()
    assert words in error["msg"]
