"""Where previews are: /preview/{environment_id}/{port}/…, on this origin or on one of their own. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

ROOT = "/preview"
_PATH = re.compile(rb"/preview/([A-Za-z0-9_-]{1,64})/([1-9][0-9]{0,4})(/.*)?", re.DOTALL)
_LARGEST_PORT = 65535
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "0.0.0.0", "::1", "::"})  # noqa: S104 - names, nothing binds


@dataclass(frozen=True, slots=True)
class PreviewAddress:
    """A port of an environment, and what is asked for there: `target` is the path as it came, empty without a slash."""

    environment_id: str
    port: int
    target: bytes

    @classmethod
    def parse(cls, raw_path: bytes) -> Self | None:
        """From the path of a URL; None when it is no preview's."""
        match = _PATH.fullmatch(raw_path)
        if match is None or int(match[2]) > _LARGEST_PORT:
            return None
        return cls(match[1].decode(), int(match[2]), match[3] or b"")

    @property
    def prefix(self) -> str:
        """What comes before the application's own paths, without a slash at the end."""
        return f"{ROOT}/{self.environment_id}/{self.port}"

    def at(self, port: int) -> str:
        """The prefix of another port of the same environment."""
        return f"{ROOT}/{self.environment_id}/{port}"


@dataclass(frozen=True, slots=True)
class Venue:
    """Where previews live: an origin for each environment, with `*` for its id, and also where the API is.

    There, what an application sends is a foreign site at our address, so it is shown in a sandbox. Without `pattern`
    there is no other place.
    """

    pattern: str = ""

    def url(self, environment_id: str, port: int) -> str:
        """Where to open a port; a path where there is no origin for it."""
        return f"{self.pattern.replace('*', environment_id)}{ROOT}/{environment_id}/{port}/"

    def admits(self, host: str, environment_id: str) -> bool:
        """Whether a preview of this environment may be shown at the host that was asked: not at another one's."""
        return not self._belongs_to_some(host) or self._is_own(host, environment_id)

    def in_sandbox(self, host: str, environment_id: str) -> bool:
        """Whether pages shown there have to be kept from the rest of the origin."""
        return not self._is_own(host, environment_id)

    def _is_own(self, host: str, environment_id: str) -> bool:
        return bool(self.pattern) and host.lower() == _host_of(self.pattern.replace("*", environment_id))

    def _belongs_to_some(self, host: str) -> bool:
        return bool(self.pattern) and host.lower().endswith(_host_of(self.pattern).removeprefix("*"))


def _host_of(origin: str) -> str:
    return origin.partition("://")[2].lower()


def own_place(location: str, address: PreviewAddress, host: str) -> str:
    """Where an application's redirect leads, as the browser has to be told it.

    Paths get the prefix, unless the application knows of it, and so do absolute addresses of this host. What the
    application takes for its own address, or for that of a neighbour in the workspace, becomes a preview's.
    """
    try:
        parts = urlsplit(location)
        port = parts.port
    except ValueError:
        return location
    if parts.netloc and parts.scheme in {"", "http", "https"}:
        if parts.hostname in _LOCAL_HOSTS:
            prefix = address.at(port or 80)
        elif parts.netloc.lower() == host.lower():
            prefix = address.prefix
        else:
            return location
        tail = f"{f'?{parts.query}' if parts.query else ''}{f'#{parts.fragment}' if parts.fragment else ''}"
        return f"{_below(prefix, parts.path or '/')}{tail}"
    if location.startswith("/") and not parts.netloc:
        return _below(address.prefix, location)
    return location


def _below(prefix: str, path: str) -> str:
    return path if path == prefix or path.startswith(f"{prefix}/") else f"{prefix}{path}"
