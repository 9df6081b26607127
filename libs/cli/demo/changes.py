"""What becomes of an environment, by live events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx

from libs.cli.demo.shell import DemoError, RefusedError, is_over_for_a_moment

_CONNECT_TIMEOUT_S = 15.0
_LIMIT_S = 60.0
_PAUSE_S = 0.2


class Changes:
    """Listens from when it is made, before the call whose effect is awaited, until `close`."""

    def __init__(self, http: httpx.Client) -> None:
        """Raises RefusedError, and what httpx raises."""
        self._http = http
        self._response = ExitStack()
        self._lines = self._listen()

    def close(self) -> None:
        """Listen no more."""
        self._response.close()

    def wait(self, environment: str, wanted: str) -> None:
        """Until it has that status. Raises DemoError when it fails, or after a minute."""
        deadline = time.monotonic() + _LIMIT_S
        for status, reason in self._statuses(environment, deadline):
            if status == wanted:
                return
            if status == "error":
                raise DemoError(f"the environment has failed: {reason}")
        raise DemoError(f"not {wanted} within {_LIMIT_S:.0f} s")

    def _statuses(self, environment: str, deadline: float) -> Iterator[tuple[str, str | None]]:
        while time.monotonic() < deadline:
            try:
                for line in self._lines:
                    if line.startswith("data:"):
                        data = json.loads(line.removeprefix("data:"))["data"]
                        if data.get("environment_id") == environment and "status" in data:
                            yield data["status"], data.get("status_reason")
                    if time.monotonic() > deadline:
                        return
            except httpx.TransportError:
                pass
            # The stream ends when a service does; what was said meanwhile shows in the environment.
            if found := self._listen_again(environment):
                yield found

    def _listen_again(self, environment: str) -> tuple[str, str | None] | None:
        time.sleep(_PAUSE_S)
        try:
            self._lines = self._listen()
            return self._look(environment)
        except (httpx.TransportError, RefusedError) as error:
            if isinstance(error, RefusedError) and not is_over_for_a_moment(error):
                raise
            self._lines = iter(())
            return None

    def _listen(self) -> Iterator[str]:
        self._response.close()
        timeout = httpx.Timeout(_CONNECT_TIMEOUT_S, read=_LIMIT_S)
        response = self._response.enter_context(self._http.stream("GET", "/events", timeout=timeout))
        if response.status_code != 200:
            raise RefusedError(f"GET /events answered {response.status_code}", response.status_code)
        return response.iter_lines()

    def _look(self, environment: str) -> tuple[str, str | None]:
        answer = self._http.get(f"/environments/{environment}")
        if answer.status_code == 404:
            return "terminated", None
        if answer.status_code != 200:
            raise RefusedError(f"GET /environments/{environment} answered {answer.status_code}", answer.status_code)
        body = answer.json()
        return body["status"], body["status_reason"]
