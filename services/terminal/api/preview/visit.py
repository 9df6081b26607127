"""One request of somebody who may."""

from __future__ import annotations

from dataclasses import dataclass

from services.terminal.domain import Caller, Environment
from services.terminal.preview.address import PreviewAddress
from services.terminal.preview.headers import Asker


@dataclass(frozen=True, slots=True)
class Visit:
    """`query` is what the application gets of it; `with_authorization`: that header is the application's own."""

    address: PreviewAddress
    caller: Caller
    environment: Environment
    asker: Asker
    query: bytes
    with_authorization: bool

    @property
    def target(self) -> bytes:
        """What the application is asked for."""
        path = self.address.target or b"/"
        return path + b"?" + self.query if self.query else path
