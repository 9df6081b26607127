"""What pods are told is what the services read, and they would start with it."""

from __future__ import annotations

import re

import pytest
from opentelemetry.sdk import environment_variables

from libs.cli.stack.gateway import TEMPLATE, UPSTREAMS
from libs.cli.stack.renewal import LEAVING
from libs.common.settings import CommonSettings
from services.auth.settings import AuthSettings
from services.envs.settings import EnvsSettings
from services.orchestrator.settings import OrchestratorSettings
from services.terminal.settings import TerminalSettings
from tests.unit.deploy.manifests import ROOT, SERVICES, Manifest, Release, container_of, pod_of

SETTINGS: dict[str, type[CommonSettings]] = {
    "auth": AuthSettings,
    "envs": EnvsSettings,
    "orchestrator": OrchestratorSettings,
    "terminal": TerminalSettings,
}
# What OpenTelemetry's SDK reads by itself.
BY_THE_SDK = {name for name in vars(environment_variables) if name.startswith("OTEL_")}
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def variables(container: Manifest) -> dict[str, str]:
    """What the container names itself; a stand-in for what comes from the Secret."""
    return {entry["name"]: entry.get("value", "s" * 40) for entry in container["env"]}


@pytest.mark.parametrize("name", SERVICES)
def test_settings_are_known_and_good_enough_to_start(
    release: Release, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = variables(container_of(release.one("Deployment", name)))
    fields = {field.upper() for field in SETTINGS[name].model_fields}
    assert own.keys() <= fields | BY_THE_SDK
    for variable in fields:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {**release.settings(), **own}.items():
        monkeypatch.setenv(variable, value)
    settings = SETTINGS[name](_env_file=None)
    assert settings.environment == ("production" if release.overlay == "production" else "development")
    assert getattr(settings, "runtime", "kubernetes") == "kubernetes"


def test_no_setting_is_one_that_nobody_reads(release: Release) -> None:
    known = {field.upper() for settings in SETTINGS.values() for field in settings.model_fields}
    assert release.settings().keys() <= known | BY_THE_SDK


def test_services_and_gateway_find_each_other(release: Release) -> None:
    for name in UPSTREAMS:
        (port,) = release.one("Service", name)["spec"]["ports"]
        assert port["port"] == 8000
    (exposed,) = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
    assert release.settings()["JWKS_URL"] == f"http://auth:{exposed}/api/v1/auth/.well-known/jwks.json"


@pytest.mark.parametrize("name", SERVICES)
def test_a_pod_has_the_time_to_end_by_itself(release: Release, name: str) -> None:
    deployment = release.one("Deployment", name)
    (drain,) = map(int, re.findall(r"--drain-seconds (\d+)", DOCKERFILE))
    asleep = container_of(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
    defaults = SETTINGS[name].model_fields
    goodbyes = sum(
        defaults[field].default * times
        for field, times in (("terminal_shutdown_seconds", 2), ("shutdown_grace_seconds", 1))
        if field in defaults
    )
    bus_s = 10
    # Idle connections; then goodbyes wait for work at hand, and after them the server for its requests.
    leaving_s = 4 + 2 * drain
    assert asleep + leaving_s + goodbyes + bus_s < pod_of(deployment)["terminationGracePeriodSeconds"]


def test_a_roll_out_takes_nobody_away_before_a_successor_is_ready(release: Release) -> None:
    for deployment in release.kind("Deployment"):
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_gateway_ends_by_finishing_its_requests() -> None:
    assert "\nSTOPSIGNAL SIGQUIT\n" in (ROOT / "deploy" / "gateway" / "Dockerfile").read_text()


def test_a_gateway_that_ends_says_so_where_its_configuration_looks(release: Release) -> None:
    command = container_of(release.one("Deployment", "gateway"))["lifecycle"]["preStop"]["exec"]["command"]
    (looked_for,) = re.findall(r"if \(-f {{ temp_dir }}/(\S+)\)", TEMPLATE.read_text())
    # The image's folder of temporary files.
    assert f"touch /tmp/{looked_for} " in command[-1]
    assert looked_for == LEAVING


def test_the_gateway_mounts_its_proxies_where_it_looks_for_them(release: Release) -> None:
    render = (ROOT / "deploy" / "scripts" / "render_gateway.py").read_text()
    (place,) = re.findall(r'    home: str = "(.*)"', render)
    mounts = container_of(release.one("Deployment", "gateway"))["volumeMounts"]
    assert f"{place}/proxies" in {mount["mountPath"] for mount in mounts}
