"""A real Prometheus with the rules that are checked in, on a real stack: an environment that fails is seen."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.authorization.stores import Stores
from tests.support.app import eventually
from tests.support.monitoring import RULE_FILES, panel_expressions, read_yaml, rule_expressions
from tests.support.phone import Phone
from tests.support.servers import LocalServer, free_port
from tests.support.stack import LocalStack

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="Prometheus is not installed"),
]
_SERVICES = ("auth", "envs", "orchestrator", "terminal")
_REASON = "VariablesUnreadable"
# What a stack that nobody has misused and that sends no mails has nothing to say about.
_MAY_BE_EMPTY = re.compile(r"rate_limit_refusals|devpocket_mails|setbacks|runtime_errors|runtime_call")


class Prometheus:
    """Asks it as Grafana does."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def ask(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query. Raises AssertionError when it cannot be evaluated."""
        answer = await self._http.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    async def rules(self) -> list[dict[str, Any]]:
        """Every rule with its state."""
        groups = (await self._http.get("/api/v1/rules")).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


def _configuration(folder: Path, stack: LocalStack) -> Path:
    """As deploy/monitoring has it, but quicker, and with the replicas of this stack."""
    (folder / "rules").mkdir()
    for path in RULE_FILES:
        rules = read_yaml(path)
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            if "for" in rule:
                rule["for"] = "1s"
        (folder / "rules" / path.name).write_text(yaml.safe_dump(rules))  # type: ignore[no-untyped-call]
    ports = {row["name"]: row["port"] for row in stack.status()}
    jobs = [
        {
            "job_name": service,
            "static_configs": [
                {"targets": [f"127.0.0.1:{port}" for name, port in ports.items() if name.split("-")[0] == service]}
            ],
        }
        for service in _SERVICES
    ]
    quick = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config = {"global": quick, "rule_files": ["rules/*.yml"], "scrape_configs": jobs}
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))  # type: ignore[no-untyped-call]
    return path


@pytest.fixture(scope="module")
async def prometheus(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    argv = [
        "prometheus",
        f"--config.file={_configuration(folder, stack)}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    server = LocalServer(argv, port, folder / "log")
    server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            yield Prometheus(http)
    finally:
        server.stop()


async def _fails(alice: Phone, stores: Stores) -> str:
    """An environment whose variables nobody can read any more: as after SECRET_KEY was lost."""
    environment_id = await alice.create("doomed", environment_variables={"A": "1"})
    assert (await alice.run(environment_id, "echo seen")).startswith("0|seen")
    assert (await alice.http.post(f"/api/v1/environments/{environment_id}/stop")).status_code == 200
    await alice.until(environment_id, "stopped")
    environments = stores.database("envs")["environments"]
    await environments.update_one({"_id": environment_id}, {"$set": {"variables_sealed": "garbled"}})
    assert (await alice.http.post(f"/api/v1/environments/{environment_id}/start")).status_code == 200

    async def has_failed() -> bool:
        status: str = (await alice.http.get(f"/api/v1/environments/{environment_id}")).json()["status"]
        return status == "error"

    await eventually(has_failed)
    return environment_id


async def test_the_gateway_shows_no_metrics(stack: LocalStack) -> None:
    async with httpx.AsyncClient(base_url=stack.url) as http:
        for path in ("/metrics", "/metrics/", "/api/v1/metrics"):
            assert (await http.get(path)).status_code == 404


async def test_an_environment_that_fails_is_on_the_dashboard_and_raises_its_alert(
    prometheus: Prometheus, alice: Phone, stores: Stores
) -> None:
    async def all_up() -> bool:
        return len(await prometheus.ask("devpocket_build_info")) == len(_SERVICES) + 1

    # A counter's first sample must be there before it counts: what was never lower has not grown.
    await eventually(all_up)
    await _fails(alice, stores)

    async def fires() -> bool:
        firing = await prometheus.ask('ALERTS{alertname="DevPocketEnvironmentsFailing", alertstate="firing"}')
        return _REASON in {alert["metric"]["reason"] for alert in firing}

    await eventually(fires, timeout_s=60)
    panels = {expression.where: expression.text for expression in panel_expressions()}

    async def shown(title: str) -> dict[str, float]:
        samples = await prometheus.ask(panels[f"devpocket-environments: {title}"])
        return {next(iter(_labels(sample).values())): float(sample["value"][1]) for sample in samples}

    async def on_the_dashboard() -> bool:
        # Services remember for some seconds what they have counted.
        return (await shown("Environments by status"))["error"] >= 1 and all(
            [
                (await shown(title)).get(_REASON, 0) > 0.5
                for title in ("Failing now, by reason", "Failed during the last hour, by reason")
            ]
        )

    await eventually(on_the_dashboard, timeout_s=60)


def _labels(sample: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in sample["metric"].items() if name != "__name__"}


async def test_every_expression_can_be_evaluated_and_says_something(prometheus: Prometheus) -> None:
    for expression in rule_expressions():
        await prometheus.ask(expression.text)
    silent = list(panel_expressions())

    async def all_speak() -> bool:
        nonlocal silent
        silent = [panel for panel in silent if not await prometheus.ask(panel.text)]
        return all(_MAY_BE_EMPTY.search(panel.text) for panel in silent)

    try:
        await eventually(all_speak, timeout_s=60)
    except TimeoutError:
        pytest.fail(f"nothing is shown by {silent}")
    assert not [rule for rule in await prometheus.rules() if rule["health"] != "ok"]
