"""Every secret that was seen, every answer that came, and the search for the ones in the others."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import httpx

_TIMEOUT_S = 60.0
_KEY_SECRET_CHARS = 43


class Ledger:
    """`secrets` are names by value. What was planted to be found is in `markers`, by name."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.markers: dict[str, str] = {}
        self.answers: list[str] = []
        self.links: set[str] = set()
        self._givers: defaultdict[str, set[int]] = defaultdict(set)

    def client(self, url: str, token: str | None = None) -> httpx.AsyncClient:
        """One whose answers are all written down."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        hooks: dict[str, Any] = {"response": [self._note]}
        return httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, headers=headers, event_hooks=hooks)

    async def _note(self, answer: httpx.Response) -> None:
        await answer.aread()
        asked = f"{answer.request.method} {answer.request.url.path} {answer.status_code}"
        self.answers.append(f"{asked}\n{dict(answer.headers)}\n{answer.text}")

    def learn(self, name: str, value: str) -> str:
        """A secret that nothing is meant to show."""
        assert len(value) >= 8, name
        self.secrets[value] = name
        return value

    def given(self, name: str, value: str) -> str:
        """A secret that the last answer is meant to hold, and no other one."""
        giver = len(self.answers) - 1
        assert value in self.answers[giver], name
        for part in (value, *_parts(name, value)):
            # Two tokens of one session and one second are the same.
            self._givers[self.learn(name, part)].add(giver)
        return value

    def mailed(self, token: str) -> str:
        """The token of a link in a mail."""
        self.links.add(self.learn("mailed link token", token))
        return token

    def leaks_in(self, places: Mapping[str, str]) -> list[str]:
        """What must not be there."""
        return leaks(self.secrets, places)

    def leaks_in_answers(self) -> list[str]:
        """The same for the answers, where each secret may be in the one that gave it."""
        found = []
        for number, answer in enumerate(self.answers):
            foreign = {value: name for value, name in self.secrets.items() if number not in self._givers[value]}
            found += leaks(foreign, {answer.partition("\n")[0]: answer})
        return found


def leaks(secrets: Mapping[str, str], places: Mapping[str, str]) -> list[str]:
    """Which of the values are in which of the texts, without the values themselves."""
    return sorted(
        {f"{name} in {place}" for place, text in places.items() for value, name in secrets.items() if value in text}
    )


def _parts(name: str, value: str) -> list[str]:
    """What is as good as the whole, or gives it away."""
    if name == "access token":
        return [value.rpartition(".")[2]]
    if name == "API key":
        return [value[-_KEY_SECRET_CHARS:]]
    if name == "refresh token":
        raw = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        halves = (raw[: len(raw) // 2], raw[len(raw) // 2 :])
        return [text for half in halves for text in (half.hex(), base64.urlsafe_b64encode(half).decode().rstrip("="))]
    return []
