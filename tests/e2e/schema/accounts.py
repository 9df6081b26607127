"""Users who may be thrown away: a generated request may sign one out or delete the account."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import requests

PASSWORD = "Passw0rd-of-a-test"
_TIMEOUT_S = 60.0

Headers = dict[str, str]


class Api:
    """JSON to and from the gateway; what is not 2xx is an error."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def __call__(self, method: str, path: str, headers: Headers | None = None, body: Any = None) -> Any:
        """The answer, None without one. Raises requests.HTTPError."""
        answer = self.session.request(
            method, f"{self.url}/api/v1{path}", headers=headers, json=body, timeout=_TIMEOUT_S
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def sign_in(self, name: str, password: str = PASSWORD) -> dict[str, Any]:
        """The tokens."""
        tokens: dict[str, Any] = self("POST", "/auth/login", body={"username_or_email": name, "password": password})
        return tokens

    def sign_up(self) -> dict[str, Any]:
        """A new user."""
        name = f"user-{secrets.token_hex(5)}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        user: dict[str, Any] = self("POST", "/auth/register", body=body)
        return user


class Account:
    """A user with a plan, signed in. Made when first asked for, and anew after it was spoiled."""

    def __init__(self, api: Api, promote: Callable[[str], None]) -> None:
        self._api = api
        self._promote = promote
        self._user: dict[str, Any] | None = None
        self._tokens: dict[str, Any] = {}

    @property
    def user(self) -> dict[str, Any]:
        """Who it is."""
        if self._user is None:
            self._user = self._api.sign_up()
            self._promote(self._user["id"])
            self._tokens = self._api.sign_in(self._user["username"])
        return self._user

    @property
    def headers(self) -> Headers:
        """Signs requests."""
        assert self.user
        return {"Authorization": f"Bearer {self._tokens['access_token']}"}

    @property
    def refresh_token(self) -> str:
        """Works once."""
        token: str = self._api.sign_in(self.user["username"])["refresh_token"]
        return token

    def spoil(self) -> None:
        """It may be signed out or gone: the next one asked for is another."""
        self._user = None
