"""`devpocket clusters …` on a real document store and a fake cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from libs.common import mongo
from libs.common.contracts.clusters import CLUSTER_SEAL, ClusterConnection
from libs.common.contracts.events import EnvironmentCreated
from libs.common.security.sealing import Sealer
from services.orchestrator.commands import app as commands
from services.orchestrator.main import create_app
from services.orchestrator.repository import CLUSTERS, COLLECTION
from services.orchestrator.settings import OrchestratorSettings
from tests.fakes.kube import FakeCluster
from tests.fakes.runtime import FakeRuntime
from tests.integration.orchestrator.conftest import Envs, a_wish
from tests.support.app import running_app
from tests.support.tokens import TestIssuer


class Shell:
    """Runs commands; nothing they print holds a token."""

    def __init__(self, kube: FakeCluster, folder: Path, database: mongo.Database, secret_key: str) -> None:
        self.kube, self.folder, self.database = kube, folder, database
        self.sealer = Sealer(secret_key, CLUSTER_SEAL)
        self.config = kube.kubeconfig_path

    async def run(self, *arguments: str, code: int = 0) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, commands, list(arguments))
        assert result.exit_code == code, result.output
        assert self.kube.token not in result.output
        return result.output

    async def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(await self.run(*arguments, "--json", code=code))

    async def add(self, *options: str, name: str = "eu-1", code: int = 0) -> str:
        config = str(self.config)
        return await self.run("add", "--name", name, "--region", "eu", "--kubeconfig-file", config, *options, code=code)

    async def stored(self, name: str = "eu-1") -> Any:
        return await self.database[CLUSTERS].find_one({"_id": name})

    def opened(self, sealed: str) -> ClusterConnection:
        return ClusterConnection.model_validate_json(self.sealer.open(sealed))


@pytest.fixture
async def shell(
    settings: OrchestratorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shell]:
    secret_key = settings.secret_key.get_secret_value()
    monkeypatch.setenv("MONGODB_URL", settings.mongodb_url.get_secret_value())
    monkeypatch.setenv("DATABASE_NAME", settings.database_name)
    monkeypatch.setenv("SECRET_KEY", secret_key)
    monkeypatch.setenv("LOCAL_RUNTIME_DIR", str(tmp_path / "runtime"))
    client = mongo.connect(settings)
    async with FakeCluster() as kube:
        yield Shell(kube, tmp_path, mongo.database(client, settings, "orchestrator"), secret_key)
    await mongo.close(client)


class TestCommands:
    async def test_one_is_added_listed_changed_drained_and_removed(self, shell: Shell) -> None:
        assert json.loads(await shell.add("--default", "--capacity", "5", "--json"))["health"] == "healthy"
        (listed,) = await shell.json("list")
        assert (listed["name"], listed["region"], listed["capacity"], listed["is_default"]) == ("eu-1", "eu", 5, True)
        assert "0/5 environments" in await shell.run("list")
        changed = await shell.json("update", "eu-1", "--region", "us", "--capacity", "0", "--no-default")
        assert (changed["region"], changed["capacity"]) == ("us", None)
        assert (await shell.json("drain", "eu-1"))["status"] == "draining"
        assert (await shell.json("drain", "eu-1", "--undo"))["status"] == "active"
        assert await shell.json("remove", "eu-1") == {"removed": "eu-1"}
        assert await shell.json("list") == []
        stored = await shell.stored()
        assert (stored["connection_sealed"], stored["terminal_sealed"]) == (None, None)
        kinds = [entry["event"]["type"].split(".")[2] for entry in stored["pending_events"]]
        assert kinds == ["registered", "updated", "updated", "updated", "updated", "removed"]
        assert {entry["event"]["actor"] for entry in stored["pending_events"]} == {"cli"}

    async def test_credentials_are_stored_sealed_and_replaced_as_a_whole(self, shell: Shell) -> None:
        terminal = shell.folder / "terminal"
        shell.kube.access.add_user("terminal", "the-terminals-token")
        terminal.write_text(json.dumps(shell.kube.kubeconfig_for("terminal", "the-terminals-token")))
        await shell.add("--terminal-kubeconfig-file", str(terminal), "--storage-class", "fast")
        stored = await shell.stored()
        assert shell.opened(stored["connection_sealed"]).kubeconfig == shell.kube.kubeconfig
        assert shell.opened(stored["terminal_sealed"]).kubeconfig["users"][0]["name"] == "terminal"
        assert shell.kube.token not in str(stored)
        cidr = ("--blocked-cidr", "203.0.113.7/24", "--context", "fake")
        await shell.run("update", "eu-1", "--kubeconfig-file", str(shell.config), *cidr)
        opened = shell.opened((await shell.stored())["connection_sealed"])
        assert (opened.blocked_cidrs, opened.context, opened.storage_class) == (("203.0.113.0/24",), "fake", None)

    async def test_health_asks_and_keeps_nothing(self, shell: Shell) -> None:
        await shell.add()
        assert (await shell.json("health", "eu-1"))["health"] == "healthy"
        before = await shell.stored()
        await shell.kube.hang_up()
        for _ in range(2):
            (asked,) = await shell.json("health", code=1)
            assert (asked["health"], asked["health_reason"]) == ("unreachable", "ClusterUnreachable")
        assert "ClusterUnreachable: " in await shell.run("health", "eu-1", code=1)
        assert await shell.stored() == before

    async def test_what_cannot_be_is_a_sentence_and_code_1(self, shell: Shell) -> None:
        await shell.add()
        nonsense = shell.folder / "nonsense"
        nonsense.write_bytes(b"{no: [yaml")
        binary = shell.folder / "binary"
        binary.write_bytes(b"\xff\xfe\x00")
        for arguments, words in (
            (["add", "--name", "Bad Name", "--region", "eu", "--kubeconfig-file", str(shell.config)], "'Bad Name'"),
            (["add", "--name", "eu-1", "--region", "eu", "--kubeconfig-file", str(shell.config)], "already"),
            (["add", "--name", "b", "--region", "eu", "--kubeconfig-file", str(nonsense)], "no valid YAML"),
            (["add", "--name", "b", "--region", "eu", "--kubeconfig-file", str(binary)], ""),
            (["update", "eu-1", "--context", "other"], "together with the kubeconfig"),
            (["update", "eu-1", "--kubeconfig-file", str(shell.config), "--context", "other"], "other"),
            (["update", "nobody", "--region", "eu"], "no cluster 'nobody'"),
            (["health", "nobody"], "no cluster 'nobody'"),
            (["drain", "nobody"], "no cluster 'nobody'"),
            (["remove", "nobody", "--force"], "no cluster 'nobody'"),
        ):
            output = await shell.run(*arguments, code=1)
            assert words in output
            assert "Traceback" not in output
        await shell.kube.hang_up()
        assert "cannot be used" in await shell.add(name="b", code=1)
        await shell.add("--no-verify", name="b")
        await shell.run("add", "--name", "c", "--region", "eu", "--kubeconfig-file", "/nowhere", code=2)

    async def test_says_when_the_database_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MONGODB_URL", "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100")
        result = await asyncio.to_thread(CliRunner().invoke, commands, ["list"])
        assert result.exit_code == 1
        assert "MongoDB cannot be reached" in result.output


class TestWithARunningOrchestrator:
    async def test_it_takes_over_what_was_changed_and_says_so(
        self, shell: Shell, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
    ) -> None:
        swift = settings.model_copy(update={"cluster_refresh_seconds": 0.1, "cluster_check_seconds": 0.3})
        heard = await envs.client.subscribe("devpocket.cluster.eu-1.*")
        async with running_app(create_app(swift, keys=issuer, runtime=FakeRuntime())):
            await shell.add("--no-verify")
            subjects = [(await heard.next_msg(30)).subject.rsplit(".", 1)[1] for _ in range(2)]
            assert subjects == ["registered", "health_changed"]
            data = a_wish(EnvironmentCreated).model_copy(update={"region": "eu"})
            spec = data.spec.model_copy(update={"image": "devpocket/python:latest"})
            created = await envs.say(data.model_copy(update={"spec": spec}))
            await envs.reports(created.subject, "running")
            assert "1 environment lives" in await shell.run("remove", "eu-1", code=1)
            await shell.run("remove", "eu-1", "--force")
            failed = (await envs.reports(created.subject, "failed"))[-1]
        assert failed.data["reason"] == "ClusterRemoved"
        stored = await shell.database[COLLECTION].find_one({"_id": created.subject})
        assert stored is not None
        assert stored["cluster"] == "eu-1"
