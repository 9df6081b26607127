"""A client as a mobile app is one: it speaks to the gateway and to nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from services.terminal.protocol import BINARY_SUBPROTOCOL

_TIMEOUT_S = 60.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


class Phone:
    """One signed-in user."""

    def __init__(
        self, url: str, http: httpx.AsyncClient, token: str, account: dict[str, Any], refresh_token: str = ""
    ) -> None:
        self.url = url
        self.http = http
        self.token = token
        self.account = account
        self.refresh_token = refresh_token

    async def make_key(self, *scopes: str) -> tuple[str, str]:
        """A new API key: its id, and the key."""
        body = {"name": "+".join(scopes), "scopes": scopes}
        answer = await self.http.post("/api/v1/auth/api-keys", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"], answer.json()["key"]

    async def create(self, name: str = "box", **changes: Any) -> str:
        """A new environment that runs; its id."""
        body = {"name": name, "template": "python", **changes}
        answer = await self.http.post("/api/v1/environments", json=body)
        assert answer.status_code == 201, answer.text
        environment_id: str = answer.json()["id"]
        await self.until(environment_id, "running")
        return environment_id

    async def until(self, environment_id: str, status: str) -> dict[str, Any]:
        """Wait for a status; the environment then."""
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                answer = await self.http.get(f"/api/v1/environments/{environment_id}")
                if answer.status_code == 404 and status == "terminated":
                    return {}
                environment: dict[str, Any] = answer.json()
                if environment.get("status") == status:
                    return environment
                if environment.get("status") == "error":
                    raise AssertionError(f"failed: {environment}")
                await asyncio.sleep(0.05)

    def socket(self, environment_id: str, query: str = "", kind: str = "terminal", *, binary: bool = False) -> connect:
        """A WebSocket, not yet open. `binary`: terminal bytes as they are."""
        protocols = [Subprotocol(BINARY_SUBPROTOCOL)] if binary else None
        return connect(self.address(environment_id, kind) + query, max_size=None, subprotocols=protocols)

    def address(self, environment_id: str, kind: str = "terminal") -> str:
        """Of a WebSocket; a query goes on with `&`."""
        return f"{self.url.replace('http', 'ws', 1)}/api/v1/ws/{kind}/{environment_id}?token={self.token}"

    async def run(self, environment_id: str, command: str) -> str:
        """What `command` prints in a terminal; its exit code is in front, as `0|output`."""
        begin, end = secrets.token_hex(4), secrets.token_hex(4)
        # Halves in quotes: the shell joins them, so the marks show only in the output.
        line = f'stty -echo; echo {begin[:4]}\'\'{begin[4:]}; {{ {command} ; }} 2>&1; echo "{end[:4]}""{end[4:]}=$?"\n'
        async with self.socket(environment_id) as socket:
            await socket.send(json.dumps({"type": "input", "data": line}))
            text = await read_until(socket, rf"{end}=(\d+)")
        found = re.search(rf"{begin}\r?\n(.*?){end}=(\d+)", text, re.DOTALL)
        assert found is not None, text
        return f"{found[2]}|{found[1].replace(chr(13), '').strip()}"


async def read_until(socket: ClientConnection, pattern: str) -> str:
    """Terminal output until `pattern` shows, without escape sequences."""
    text = ""
    async with asyncio.timeout(_TIMEOUT_S):
        while re.search(pattern, text) is None:
            frame = json.loads(await socket.recv())
            if frame["type"] == "output":
                text = _ESCAPES.sub("", text + frame["data"])
            elif frame["type"] in {"exit", "error"}:
                raise AssertionError(f"{frame} after {text!r}")
    return text


@asynccontextmanager
async def signed_in(url: str, **account: Any) -> AsyncIterator[Phone]:
    """A new user, registered and signed in through the gateway."""
    name = f"user-{secrets.token_hex(5)}"
    body = {"username": name, "email": f"{name}@example.com", "password": "Passw0rd-of-a-test", **account}
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S) as http:
        registered = await http.post("/api/v1/auth/register", json=body)
        assert registered.status_code == 201, registered.text
        async with log_in(url, body["username"], body["password"]) as phone:
            yield phone


@asynccontextmanager
async def log_in(url: str, name: str, password: str) -> AsyncIterator[Phone]:
    """An existing user."""
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S) as http:
        answer = await http.post("/api/v1/auth/login", json={"username_or_email": name, "password": password})
        assert answer.status_code == 200, answer.text
        token = answer.json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        account = (await http.get("/api/v1/auth/me")).json()
        yield Phone(url, http, token, account, answer.json()["refresh_token"])
