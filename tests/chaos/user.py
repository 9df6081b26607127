"""One user: signs in, creates environments, makes them walk through their states, works in them, deletes them."""

from __future__ import annotations

import random
from typing import Any

from services.envs.domain import TRANSITIONS
from services.envs.entities import Command
from tests.chaos.client import Answer, Client, Pauses
from tests.chaos.ledger import ANSWER, CREATE, DELETE, STUCK, UPDATE, Accepted, Ledger, Life
from tests.chaos.terminal import Terminal

_PASSWORD = "Passw0rd-of-chaos"
_ENVIRONMENTS = "/api/v1/environments"
_TEMPLATES = ("python", "nodejs", "golang", "rust", "ubuntu")
_SETTLED = {"running", "stopped", "error"}
# One that is not settled by then is stuck. An event that was with a process when it was killed comes again after 30 s,
# perhaps several times in a row, and one that failed after up to 60 s.
_SETTLE_S = 240.0


class User:
    """A user whose choices depend on `choose` and on what the API answers. The free plan allows one environment."""

    def __init__(self, url: str, name: str, choose: random.Random, ledger: Ledger) -> None:
        self.name = name
        self.id = ""
        self._choose = choose
        self._ledger = ledger
        self._client = Client(url, name, self._count)
        self._terminal = Terminal(url, ledger)
        self._token = ""

    def _count(self, what: str) -> None:
        self._ledger.counts[what] += 1

    async def close(self) -> None:
        """Nothing more will be asked."""
        await self._client.close()

    async def register(self) -> None:
        """Make the account and sign in. Raises AssertionError."""
        email = f"{self.name}@example.com"
        body = {"username": self.name, "email": email, "password": _PASSWORD}
        answer = await self._client.call("POST", "/api/v1/auth/register", body)
        assert answer.status == 201, answer
        self.id = answer.body["id"]
        self._ledger.user_ids.append(self.id)
        await self._sign_in()

    async def _sign_in(self) -> None:
        body = {"username_or_email": self.name, "password": _PASSWORD}
        answer = await self._client.call("POST", "/api/v1/auth/login", body)
        assert answer.status == 200, answer
        self._token = answer.body["access_token"]
        self._client.authorize(self._token)
        self._ledger.sign_ins.append(answer.attempts[-1])

    async def _change_session(self) -> None:
        token = self._token
        answer = await self._client.call("POST", "/api/v1/auth/logout")
        # One that was not answered may have worked: then the next one finds a dead token.
        if answer.ok or (answer.status == 401 and len(answer.attempts) > 1):
            self._ledger.dead_tokens.append(token)
        else:
            self._surprise(self.name, "logout", answer)
        await self._sign_in()

    async def live(self, number: int, *, keep: bool) -> None:
        """One lifecycle. `keep`: leave the environment as it is in the end instead of deleting it."""
        if self._choose.random() < 0.2:
            await self._change_session()
        life = await self._create(f"life-{number}")
        if life is None:
            return
        status = "creating"
        for _ in range(self._choose.randint(1, 4)):
            if self._choose.random() < 0.8:
                status = await self._settle(life)
            status = await self._step(life, status)
        if keep:
            await self._settle(life)
        else:
            await self._delete(life)
        life.finished = True
        self._ledger.counts["finished"] += 1

    async def _create(self, name: str) -> Life | None:
        body = {"name": name, "template": self._choose.choice(_TEMPLATES), "description": "as created"}
        attempts: list[str] = []
        pauses = Pauses()
        while True:
            result = await self._client.once("POST", _ENVIRONMENTS, body)
            attempts += result.attempts if isinstance(result, Answer) else [result]
            if isinstance(result, Answer) and result.ok:
                return self._begin(result.body["id"], name, attempts)
            # Perhaps one of ours that was not answered has worked; it cannot be on its way any more.
            unclear = len(attempts) > 1 or not isinstance(result, Answer)
            found = await self._find(name) if unclear else None
            if found is not None:
                return self._begin(found, name, attempts)
            if isinstance(result, Answer):
                self._surprise(name, CREATE, result)
                return None
            await pauses.next("create")

    async def _find(self, name: str) -> str | None:
        answer = await self._client.call("GET", _ENVIRONMENTS)
        if not answer.ok:
            self._surprise(self.name, "list", answer)
            return None
        return next((item["id"] for item in answer.body if item["name"] == name), None)

    def _begin(self, environment_id: str, name: str, attempts: list[str]) -> Life:
        life = Life(environment_id, self.id, name)
        life.accepted.append(Accepted(CREATE, environment_id, tuple(attempts), "as created"))
        self._ledger.begin(life)
        return life

    async def _step(self, life: Life, status: str) -> str:
        """Something that is legal now; the status after it."""
        choice = self._choose.random()
        if choice < 0.2:
            await self._update(life)
            return status
        if choice < 0.4 and status == "running":
            await self._terminal.work_in(self._client.http, self._token, life.environment_id)
            return status
        legal = [command for command in Command if (status, command) in TRANSITIONS and command is not Command.DELETE]
        if not legal:
            return status
        return await self._command(life, self._choose.choice(legal))

    async def _command(self, life: Life, command: Command) -> str:
        path = f"{_ENVIRONMENTS}/{life.environment_id}"
        if command is Command.DELETE:
            answer = await self._client.call("DELETE", path)
        else:
            answer = await self._client.call("POST", f"{path}/{command.value}")
        gone = command is Command.DELETE and answer.status == 404 and len(answer.attempts) > 1
        if answer.ok or gone:
            life.accepted.append(Accepted(command.value, life.environment_id, answer.attempts))
            return "terminating" if gone else str(answer.body["status"])
        self._surprise(life.environment_id, command.value, answer)
        return await self._settle(life)

    async def _update(self, life: Life) -> None:
        description = f"change {len(life.accepted)}"
        path = f"{_ENVIRONMENTS}/{life.environment_id}"
        answer = await self._client.call("PATCH", path, {"description": description})
        if answer.ok:
            life.accepted.append(Accepted(UPDATE, life.environment_id, answer.attempts, description))
        else:
            self._surprise(life.environment_id, UPDATE, answer)

    async def _delete(self, life: Life) -> None:
        await self._command(life, Command.DELETE)
        if not life.accepted or life.accepted[-1].kind != DELETE:
            return
        pauses = Pauses(_SETTLE_S)
        while (environment := await self._get(life)) is not None:
            await self._wait(pauses, life, environment)

    async def _settle(self, life: Life) -> str:
        """Until its status is one that stays; that status."""
        pauses = Pauses(_SETTLE_S)
        while True:
            environment = await self._get(life)
            status = environment["status"] if environment is not None else "terminated"
            if status == "error":
                self._ledger.notice(STUCK, life.environment_id, f"error: {environment}")
            if status in _SETTLED or environment is None:
                return status
            await self._wait(pauses, life, environment)

    async def _get(self, life: Life) -> dict[str, Any] | None:
        answer = await self._client.call("GET", f"{_ENVIRONMENTS}/{life.environment_id}")
        if answer.status == 404 and life.accepted[-1].kind == DELETE:
            return None
        if not answer.ok:
            self._surprise(life.environment_id, "get", answer)
            return None
        environment: dict[str, Any] = answer.body
        return environment

    async def _wait(self, pauses: Pauses, life: Life, environment: dict[str, Any]) -> None:
        await pauses.next(f"its own question, {life.environment_id} is still {environment['status']}")

    def _surprise(self, about: str, request: str, answer: Answer) -> None:
        """An answer that no fault explains."""
        self._ledger.notice(ANSWER, about, f"{request}: {answer.status} {answer.body} after {answer.attempts}")
