"""What one user, or the shell in one sandbox, can see of others and of the stack: nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.phone import Phone
from tests.support.stack import LocalStack


@pytest.fixture
async def environment_id(alice: Phone) -> AsyncIterator[str]:
    created = await alice.create(environment_variables={"TOKEN_OF_ALICE": "hunter2"})
    yield created
    await alice.http.delete(f"/api/v1/environments/{created}")
    await alice.until(created, "terminated")


class TestOtherUsers:
    async def test_cannot_see_or_touch_an_environment(self, bob: Phone, alice: Phone, environment_id: str) -> None:
        path = f"/api/v1/environments/{environment_id}"
        calls = [
            ("GET", path, None),
            ("PATCH", path, {"description": "mine"}),
            ("PUT", path, {"description": "mine"}),
            ("DELETE", path, None),
            ("POST", f"{path}/start", None),
            ("POST", f"{path}/stop", None),
            ("POST", f"{path}/restart", None),
            ("GET", f"{path}/metrics", None),
            ("GET", f"{path}/events", None),
            ("POST", "/api/v1/ws/tickets", {"environment_id": environment_id, "kind": "terminal"}),
        ]
        for method, url, body in calls:
            answer = await bob.http.request(method, url, json=body)
            assert answer.status_code == 404, (method, url, answer.text)
        assert (await bob.http.get("/api/v1/environments")).json() == []
        assert (await alice.http.get(path)).json()["status"] == "running"

    @pytest.mark.parametrize("kind", ["terminal", "logs"])
    async def test_cannot_open_its_sockets(self, bob: Phone, environment_id: str, kind: str) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with bob.socket(environment_id, kind=kind):
                pass
        assert refused.value.response.status_code == 404

    async def test_hear_nothing_of_it_live(self, bob: Phone, alice: Phone, environment_id: str) -> None:
        async with bob.http.stream("GET", "/api/v1/events") as changes:
            lines = changes.aiter_lines()
            await anext(lines)
            await alice.http.post(f"/api/v1/environments/{environment_id}/restart")
            own = await bob.create("own")
            async for line in lines:
                if line.startswith("data:"):
                    data = json.loads(line.removeprefix("data:"))["data"]
                    assert data["environment_id"] == own
                    if data.get("status") == "running":
                        break


class TestSandbox:
    async def test_runs_as_nobody_special(self, alice: Phone, environment_id: str) -> None:
        assert await alice.run(environment_id, "id -u") != "0|0"
        capabilities = await alice.run(environment_id, "grep -h ^Cap /proc/self/status | awk '{print $2}' | sort -u")
        assert capabilities == "0|0000000000000000"

    async def test_sees_only_its_own_processes(self, alice: Phone, environment_id: str) -> None:
        seen = await alice.run(environment_id, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        for word in ("uvicorn", "nats-server", "redis", "nginx", "secantus", "mongod", "devpocket up", "SECRET"):
            assert word not in seen

    async def test_has_no_secret_of_the_stack_in_its_environment(
        self, stack: LocalStack, alice: Phone, environment_id: str
    ) -> None:
        seen = await alice.run(environment_id, "env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
        secrets = json.loads((stack.data_dir / "secrets.json").read_text())
        assert secrets
        for name, secret in secrets.items():
            assert str(secret) not in seen, name
        assert "TOKEN_OF_ALICE=hunter2" in seen
        for name in ("MONGODB_URL", "NATS_URL", "REDIS_URL", "SECRET_KEY"):
            assert name not in seen

    async def test_cannot_read_the_data_of_the_stack(
        self, stack: LocalStack, alice: Phone, environment_id: str
    ) -> None:
        assert (await alice.run(environment_id, f"ls {stack.data_dir}")).startswith("2|")
        assert (await alice.run(environment_id, "cat /etc/shadow")).startswith("1|")
        assert (await alice.run(environment_id, "ls /root /home")).startswith("2|")

    async def test_cannot_reach_the_stack_over_the_network(
        self, stack: LocalStack, alice: Phone, environment_id: str
    ) -> None:
        ports = {row["name"]: row["port"] for row in stack.status() if row["port"]}
        assert {"nats", "redis", "mongodb", "auth", "gateway"} <= set(ports)
        tries = [
            f"timeout 2 bash -c '</dev/tcp/{host}/{port}' 2>/dev/null && echo {name} at {host}:{port} was reached"
            for host in ("127.0.0.1", "10.0.2.2")
            for name, port in ports.items()
        ]
        assert await alice.run(environment_id, f"{'; '.join(tries)}; echo tried") == "0|tried"

    async def test_cannot_write_outside_its_workspace(self, alice: Phone, environment_id: str) -> None:
        for place in ("/usr/bin/x", "/etc/x", "/x"):
            assert (await alice.run(environment_id, f"touch {place}")).startswith("1|")
        assert (await alice.run(environment_id, "pwd; echo $HOME; touch x && rm x")) == "0|/workspace\n/workspace"
