"""Rules, dashboards and manifests of the monitoring: right by promtool, and about metrics that there are."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kubernetes_validate.utils import validate

from libs.common.metrics.catalogue import series_names
from tests.support.monitoring import (
    DASHBOARDS,
    MONITORING,
    PROMETHEUS,
    ROOT,
    RULE_FILES,
    metrics_in,
    panel_expressions,
    read_yaml,
    rule_expressions,
    rules,
)
from tests.unit.deploy.manifests import KUBERNETES, SERVICES, build, container_of
from tests.unit.deploy.test_manifests import SCHEMA

TESTS = PROMETHEUS / "tests" / "alerts.yml"
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
class TestByPromtool:
    def test_the_configuration_is_one(self) -> None:
        _promtool("check", "config", PROMETHEUS / "prometheus.yml")

    def test_each_alert_fires_when_it_should_and_only_then(self) -> None:
        _promtool("test", "rules", TESTS)

    def test_the_tests_would_notice_a_rule_that_never_fires(self, tmp_path: Path) -> None:
        (tmp_path / "tests").mkdir()
        for path in RULE_FILES:
            text = path.read_text().replace('devpocket_clusters{state="unreachable"}) > 0', "vector(0)) > 0")
            (tmp_path / "rules").mkdir(exist_ok=True)
            (tmp_path / "rules" / path.name).write_text(text)
        tests = read_yaml(TESTS)
        tests["tests"] = [test for test in tests["tests"] if "DevPocketClusterUnreachable" in str(test)]
        (tmp_path / "tests" / TESTS.name).write_text(json.dumps(tests))
        with pytest.raises(AssertionError, match="DevPocketClusterUnreachable"):
            _promtool("test", "rules", tmp_path / "tests" / TESTS.name)


class TestAlerts:
    def test_each_has_a_test_that_it_fires_and_one_that_it_does_not(self) -> None:
        checks = [check for test in read_yaml(TESTS)["tests"] for check in test["alert_rule_test"]]
        fired = {check["alertname"] for check in checks if check["exp_alerts"]}
        quiet = {check["alertname"] for check in checks if not check["exp_alerts"]}
        assert fired == quiet == set(ALERTS)

    @pytest.mark.parametrize("name", ALERTS)
    def test_says_how_bad_it_is_and_what_to_do(self, name: str) -> None:
        rule = ALERTS[name]
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["for"]
        assert {"summary", "description"} <= rule["annotations"].keys()
        assert rule["annotations"]["runbook_url"].endswith(f"docs/operations/runbooks.md#{name.lower()}")


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """What services export, what rules record, and what Prometheus itself knows."""
    apps = [importlib.import_module(f"services.{service}.main").create_app() for service in SERVICES]
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return {"up", "ALERTS"} | recorded | {name for app in apps for name in series_names(app.state.platform.metrics)}


class TestNames:
    def test_rules_and_dashboards_name_only_metrics_that_there_are(self, exported: set[str]) -> None:
        expressions = [*rule_expressions(), *panel_expressions()]
        assert len(expressions) > 60
        for expression in expressions:
            names = metrics_in(expression.text)
            assert names, expression
            assert names <= exported, f"{expression.where} names {names - exported}"

    @pytest.mark.parametrize(
        "mistaken",
        [
            "max(devpocket_environment) > 0",
            "sum by (job) (rate(devpocket_http_request_total[5m]))",
            "devpokcet_clusters > 0",
            "job:devpocket_http_requests:rate1m > 0",
            'devpocket_environments{status="error"} and absent(devpocket_enviroments)',
        ],
    )
    def test_a_typo_is_noticed(self, mistaken: str, exported: set[str]) -> None:
        assert not metrics_in(mistaken) <= exported

    def test_labels_functions_and_numbers_are_no_metrics(self) -> None:
        text = (
            'topk(8, histogram_quantile(0.95, sum by (job, le) (rate(a_bucket{route!~"b{c}"}[5m])))) / on () d or 1e3'
        )
        assert metrics_in(text) == {"a_bucket", "d"}


class TestDashboards:
    @pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: str(path.stem))
    def test_is_one_that_grafana_finds_and_nobody_changes(self, path: Path) -> None:
        dashboard = json.loads(path.read_text())
        assert dashboard["uid"] == path.stem
        assert dashboard["editable"] is False
        provisioned = read_yaml(MONITORING / "grafana" / "provisioning" / "datasources" / "prometheus.yml")
        known = {source["uid"] for source in provisioned["datasources"]}
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids))
        for panel in dashboard["panels"]:
            assert {target["datasource"]["uid"] for target in panel["targets"]} <= known
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24

    def test_the_failing_ones_are_shown_by_reason(self) -> None:
        shown = [expression.text for expression in panel_expressions() if "reason" in expression.text]
        assert any("devpocket_environment_failures_total" in text for text in shown)


class TestCompose:
    @pytest.mark.parametrize("name", ["prometheus", "alertmanager", "grafana"])
    def test_is_pinned_confined_and_on_loopback(self, name: str) -> None:
        service = read_yaml(ROOT / "docker-compose.yaml")["services"][name]
        assert service["profiles"] == ["monitoring"]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert not str(service["user"]).startswith("0")
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        image, _, tag = service["image"].partition(":")
        assert image.count("/") == 1
        assert tag.strip("v").replace(".", "").isdigit()
        assert "healthcheck" in service
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), source

    def test_prometheus_scrapes_every_service_by_a_job_of_its_name(self) -> None:
        config = read_yaml(PROMETHEUS / "prometheus.yml")
        jobs = {job["job_name"]: job for job in config["scrape_configs"]}
        for service in SERVICES:
            assert jobs[service]["dns_sd_configs"][0]["names"] == [service]


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], ...]:
    """The production overlay with both components, as an operator would write it."""
    folder = tmp_path_factory.mktemp("overlay")
    parts = [KUBERNETES / "components" / name for name in ("monitoring", "monitoring-operator")]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "devpocket",
        "resources": [os.path.relpath(KUBERNETES / "overlays" / "production", folder)],
        "components": [os.path.relpath(part, folder) for part in parts],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
    return build(folder)


class TestKubernetes:
    def test_fits_the_published_schemas(self, monitored: tuple[dict[str, Any], ...]) -> None:
        for item in monitored:
            if not item["apiVersion"].startswith("monitoring.coreos.com/"):
                validate(item, SCHEMA, strict=True)

    def test_every_service_has_a_port_for_metrics_and_its_settings_say_so(
        self, monitored: tuple[dict[str, Any], ...]
    ) -> None:
        (settings,) = (
            item["data"]
            for item in monitored
            if item["kind"] == "ConfigMap" and item["metadata"]["name"].startswith("devpocket-settings-")
        )
        assert (settings["METRICS_PORT"], settings["METRICS_ADDRESS"]) == ("9090", "0.0.0.0")
        for service in SERVICES:
            (found,) = (i for i in monitored if i["kind"] == "Deployment" and i["metadata"]["name"] == service)
            assert {port["name"]: port["containerPort"] for port in container_of(found)["ports"]} == {
                "http": 8000,
                "metrics": 9090,
            }
            annotations = found["spec"]["template"]["metadata"]["annotations"]
            assert annotations["prometheus.io/port"] == settings["METRICS_PORT"]

    def test_another_namespace_reaches_that_port_and_no_other_of_a_service(
        self, monitored: tuple[dict[str, Any], ...]
    ) -> None:
        policies = [item for item in monitored if item["kind"] == "NetworkPolicy"]
        foreign = [
            (policy["metadata"]["name"], [port["port"] for port in rule["ports"]])
            for policy in policies
            for rule in policy["spec"].get("ingress", [])
            if any("namespaceSelector" in peer for peer in rule.get("from", []))
        ]
        assert foreign == [("metrics", [9090])]

    def test_the_operators_rules_are_the_rules(self) -> None:
        script = ROOT / "deploy" / "scripts" / "prometheus_rule.py"
        done = subprocess.run(
            [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr

    def test_without_the_components_nothing_of_the_operator_is_applied(self) -> None:
        kinds = {item["kind"] for item in build(KUBERNETES / "overlays" / "production")}
        assert not kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
