"""docker-compose.yaml, read as Compose reads it: every container is contained, and only the gateway can be reached."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from libs.common.settings import CommonSettings
from services.auth.settings import AuthSettings
from services.envs.settings import EnvsSettings
from services.orchestrator.settings import OrchestratorSettings
from services.terminal.settings import TerminalSettings
from tests.unit.deploy.manifests import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())  # type: ignore[no-untyped-call]
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS: dict[str, type[CommonSettings]] = {
    "auth": AuthSettings,
    "envs": EnvsSettings,
    "orchestrator": OrchestratorSettings,
    "terminal": TerminalSettings,
}
OURS = {*SETTINGS, "gateway", "sandboxes", "cli"}  # Their images name a user and, but for cli, a health check.
SERVERS = {"mongodb", "nats", "redis"}
# Their pages are for whoever is on this machine.
PAGES = {"prometheus", "alertmanager", "grafana"}
# A node of a cluster starts containers of its own.
NODE = "k3s"
ONE_SHOT = {"cli", "k3s-kubeconfig"}

each = pytest.mark.parametrize("name", sorted(CONTAINERS))


@each
def test_it_is_limited_and_comes_back(name: str) -> None:
    container = CONTAINERS[name]
    assert {"mem_limit", "cpus", "pids_limit"} <= container.keys()
    assert container["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    assert "deploy" not in container, "docker-compose 1.29 does not apply it"
    if name not in ONE_SHOT:
        assert container["logging"]["options"] == {"max-size": "10m", "max-file": "5"}


@each
def test_it_says_whether_it_is_well(name: str) -> None:
    container = CONTAINERS[name]
    if name in ONE_SHOT:
        assert container["healthcheck"] == {"disable": True}
    elif name not in OURS:
        assert container["healthcheck"]["test"]


@each
def test_it_may_do_no_more_than_it_needs(name: str) -> None:
    container = CONTAINERS[name]
    if name == NODE:
        assert container["profiles"] == [NODE], "not unless it is asked for"
        return
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert "cap_add" not in container
    assert container["security_opt"] == ["no-new-privileges:true"]
    if "privileged" in container:
        assert name in {"orchestrator", "terminal"}
    if name in SERVERS:
        assert container["user"] not in {"root", "0", "0:0"}


@each
def test_only_the_gateway_can_be_reached_and_only_services_reach_the_servers(name: str) -> None:
    container = CONTAINERS[name]
    assert ("ports" in container) == (name in {"gateway"} | PAGES)
    if name in PAGES:
        assert all(port.startswith("127.0.0.1:") for port in container["ports"])
    networks = set(container.get("networks", ()))
    assert ("data" in networks) == (name in SERVERS | SETTINGS.keys() | {"cli"})
    if name in SERVERS:
        assert networks == {"data"}
    assert networks or container["network_mode"] == "none"


def test_the_network_of_the_servers_leads_nowhere() -> None:
    assert COMPOSE["networks"]["data"] == {"internal": True}


@each
def test_what_it_writes_is_on_a_volume_with_a_name(name: str) -> None:
    for mount in CONTAINERS[name].get("volumes", ()):
        source, _, target = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", mount).partition(":")
        assert source in COMPOSE["volumes"] or (source.startswith("./") and target.endswith(":ro")), mount


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_its_settings_are_ones_that_it_reads(name: str) -> None:
    fields = {field.upper() for field in SETTINGS[name].model_fields}
    own = {variable for variable in CONTAINERS[name]["environment"] if not variable.startswith("OTEL_")}
    assert own <= fields


def test_it_does_not_start_with_a_password_of_ours() -> None:
    text = (ROOT / "docker-compose.yaml").read_text()
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET_KEY))([^}]*)\}", text)
    assert {name for name, _ in secrets} >= {"SECRET_KEY", "MONGODB_PASSWORD", "NATS_PASSWORD", "REDIS_PASSWORD"}
    # The administrator's password alone may be left out: then no administrator is made.
    assert {how for name, how in secrets if name != "ADMIN_PASSWORD"} == {":?set it in .env"}


def test_sandboxes_are_kept_from_the_networks_of_the_containers() -> None:
    (default,) = re.findall(r"\$\{LOCAL_RUNTIME_BLOCKED_CIDRS-([^}]*)\}", (ROOT / "docker-compose.yaml").read_text())
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= set(default.split(","))


def test_services_wait_for_their_servers() -> None:
    for name in SETTINGS:
        depends_on = CONTAINERS[name]["depends_on"]
        assert {server for server, how in depends_on.items() if how["condition"] == "service_healthy"} == SERVERS


def test_a_container_has_longer_to_end_than_its_service_takes() -> None:
    (graceful,) = re.findall(r"--drain-seconds (\d+)", (ROOT / "deploy" / "Dockerfile").read_text())
    for name in SETTINGS:
        assert int(CONTAINERS[name]["stop_grace_period"].removesuffix("s")) >= 2 * int(graceful)
