"""What a running stack promises."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from nats.errors import Error as NatsError
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis import Redis
from redis.exceptions import AuthenticationError

from libs.cli.stack.client import status_of
from libs.cli.stack.state import State
from tests.integration.stack.harness import READY, RunningStack, devpocket, eventually, statuses

NAMES = ["nats", "redis", "mongodb", "auth", "envs", "orchestrator", "terminal-1", "terminal-2", "gateway"]


def secrets_of(stack: RunningStack) -> list[str]:
    values: dict[str, str] = json.loads(stack.paths.secrets.read_text())
    return [value for name, value in values.items() if not name.endswith("_user")]


class TestReady:
    def test_every_component_is_shown_and_the_ready_line_is_the_last_and_only_one(self, stack: RunningStack) -> None:
        assert {line.split()[1] for line in stack.lines if line.startswith("✓")} == set(NAMES)
        assert [line for line in stack.lines if READY.search(line)] == [f"DevPocket is ready at {stack.url}"]

    def test_status_names_pid_port_and_state_of_each(self, stack: RunningStack) -> None:
        result = devpocket("status", "--json", "--data-dir", str(stack.data_dir))
        rows: list[dict[str, Any]] = json.loads(result.stdout)
        assert result.returncode == 0
        assert [row["name"] for row in rows] == NAMES
        assert all(set(row) == {"name", "pid", "port", "state"} for row in rows)
        assert {row["state"] for row in rows} == {"running"}
        assert {row["port"] for row in rows if row["name"] == "gateway"} == {stack.port}

    def test_a_second_one_on_the_same_folder_is_refused(self, stack: RunningStack) -> None:
        second = RunningStack(stack.data_dir)
        assert second.wait_ended() == 1
        assert f"a stack already runs at {stack.url}" in second.lines[-1]
        assert httpx.get(f"{stack.url}/health/ready", timeout=30).status_code == 200


class TestSecrets:
    def test_files_are_private(self, stack: RunningStack) -> None:
        paths = stack.paths
        assert stat.S_IMODE(paths.root.stat().st_mode) == 0o700
        for path in (
            paths.secrets,
            paths.environment,
            paths.state,
            paths.nats / "nats.conf",
            paths.redis / "redis.conf",
        ):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    def test_no_secret_is_in_argument_lists_or_the_state_file(self, stack: RunningStack) -> None:
        shown = stack.paths.state.read_text()
        for pid in [stack.process.pid, *stack.pids()]:
            shown += Path(f"/proc/{pid}/cmdline").read_text()
        for name in ("nats", "redis", "mongodb", "gateway"):
            shown += Path(f"/proc/{stack.pid_of(name)}/environ").read_text()
        assert not [secret for secret in secrets_of(stack) if secret in shown]

    def test_services_get_them(self, stack: RunningStack) -> None:
        environment = Path(f"/proc/{stack.pid_of('envs')}/environ").read_text()
        assert all(secret in environment for secret in secrets_of(stack))

    async def test_nats_refuses_strangers(self, stack: RunningStack) -> None:
        port = statuses(stack.data_dir)["nats"]["port"]
        with pytest.raises((NatsError, OSError)):
            await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False, connect_timeout=30)
        known = await nats.connect(stack.stack.environment["NATS_URL"], allow_reconnect=False, connect_timeout=30)
        await known.close()

    def test_redis_refuses_strangers(self, stack: RunningStack) -> None:
        with pytest.raises(AuthenticationError):
            Redis(port=statuses(stack.data_dir)["redis"]["port"]).ping()
        assert Redis.from_url(stack.stack.environment["REDIS_URL"]).ping()

    def test_the_database_refuses_strangers(self, stack: RunningStack) -> None:
        port = statuses(stack.data_dir)["mongodb"]["port"]
        stranger: MongoClient[dict[str, Any]] = MongoClient("127.0.0.1", port, directConnection=True)
        with pytest.raises(OperationFailure, match="authentication"):
            stranger["any"]["thing"].insert_one({"a": 1})
        with pytest.raises(OperationFailure, match="authentication"):
            stranger.admin.command("createUser", "intruder", pwd="x", roles=["root"])


class TestRestart:
    @pytest.mark.parametrize("name", ["envs", "gateway", "nats", "redis"])
    def test_a_killed_process_is_back(self, stack: RunningStack, name: str) -> None:
        killed = stack.stack.state
        identity = next(item.identity for item in killed.processes if item.name == name)
        assert identity is not None
        os.kill(identity.pid, signal.SIGKILL)
        eventually(lambda: self._is_back(stack, name, identity.pid))
        assert httpx.get(f"{stack.url}/health/ready", timeout=30).status_code == 200

    def test_a_killed_database_has_lost_nothing_it_acknowledged(self, stack: RunningStack) -> None:
        url = stack.stack.environment["MONGODB_URL"]
        with MongoClient[dict[str, Any]](url) as client:
            things = client["crash"]["things"]
            for number in range(300):
                things.insert_one({"_id": number})
            killed = stack.pid_of("mongodb")
            os.kill(killed, signal.SIGKILL)
        eventually(lambda: self._is_back(stack, "mongodb", killed))
        with MongoClient[dict[str, Any]](url) as client:
            assert client["crash"]["things"].count_documents({}) == 300

    @staticmethod
    def _is_back(stack: RunningStack, name: str, old_pid: int) -> bool:
        row = next(item for item in status_of(stack.stack) if item.name == name)
        return row.pid not in {None, old_pid} and row.state is State.RUNNING
