"""Paths below /workspace, as clients name them."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

from services.terminal.workspace.errors import BadPathError

# Uploads wait here until they are complete. Below the workspace, so that a rename is all it takes to put them in place.
STAGE = ".devpocket-uploads"

_LONGEST_NAME = 255
_LONGEST_PATH = 4000
_PLAIN = frozenset((string.ascii_letters + string.digits + "/._-").encode())


@dataclass(frozen=True, slots=True)
class WorkspacePath:
    """Names from /workspace down, none of them empty, `.` or `..`; bytes, because file names need not be UTF-8."""

    names: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, path: bytes) -> Self:
        """Of a path as it was sent; one `/` at its end is ignored. Raises BadPathError."""
        path = path.removesuffix(b"/")
        if not path:
            return cls()
        if len(path) > _LONGEST_PATH:
            raise BadPathError(f"The path is longer than {_LONGEST_PATH} bytes")
        if b"\0" in path:
            raise BadPathError("A path cannot hold a NUL")
        if path.startswith(b"/"):
            raise BadPathError("The path must be relative to /workspace")
        names = tuple(path.split(b"/"))
        for name in names:
            if name in {b"", b".", b".."}:
                raise BadPathError("The names in a path cannot be empty, '.' or '..'")
            if len(name) > _LONGEST_NAME:
                raise BadPathError(f"A name in the path is longer than {_LONGEST_NAME} bytes")
        return cls(names)

    @property
    def is_root(self) -> bool:
        """Whether this is /workspace itself."""
        return not self.names

    @property
    def is_reserved(self) -> bool:
        """Whether it is where uploads wait."""
        return self.names[:1] == (STAGE.encode(),)

    @property
    def raw(self) -> bytes:
        """With slashes between; empty for /workspace."""
        return b"/".join(self.names)

    @property
    def text(self) -> str:
        """For people; what is no UTF-8 becomes U+FFFD."""
        return self.raw.decode("utf-8", "replace")

    @property
    def url(self) -> str:
        """As it stands in a URL after `files/`."""
        return quote(self.raw)

    @property
    def argument(self) -> str:
        """For a script: what `printf %b` turns into `raw`, and ASCII on the way, whatever the names hold."""
        return "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in self.raw)

    def child(self, name: bytes) -> WorkspacePath:
        """Something in this directory."""
        return WorkspacePath((*self.names, name))
