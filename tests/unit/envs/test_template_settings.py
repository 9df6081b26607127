"""What an operator's settings say of templates."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from services.envs.service.templates import TemplateService
from services.envs.settings import EnvsSettings
from tests.fakes.envs import FakeEnvironments, FakeTemplates

NOW = datetime(2026, 11, 25, tzinfo=UTC)


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
        TEMPLATE_IMAGES="python=localhost:5000/py:3.12@sha256:0a, go = golang:1",
        TEMPLATE_PULL_POLICY="python=Never,node=Always",
    )
    await service.seed()
    assert await service.apply_settings() == ["python", "golang", "nodejs"]
    found = {template.name: template for template in await store.all()}
    assert (found["python"].docker_image, found["python"].image_pull_policy) == (
        "localhost:5000/py:3.12@sha256:0a",
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


async def test_an_unknown_template_hinders_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    service = a_service(FakeTemplates(), monkeypatch, TEMPLATE_IMAGES="cobol=cobol:1,python=py:3")
    await service.seed()
    assert await service.apply_settings() == ["python"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TEMPLATE_IMAGES", "python"),
        ("TEMPLATE_IMAGES", "python="),
        ("TEMPLATE_IMAGES", "python=no image"),
        ("TEMPLATE_PULL_POLICY", "python=Sometimes"),
    ],
)
def test_what_cannot_be_stops_the_start(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.lower()):
        EnvsSettings()
