"""What a backup says of itself: `manifest.json`, written last, so that a folder without one is no backup."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.common.backup.errors import BadBackupError
from libs.common.security.sealing import derived_key

FORMAT = 1
MANIFEST = "manifest.json"
_KIND = "devpocket-backup"
_FINGERPRINT_PURPOSE = "backup-fingerprint"
_BLOCK_BYTES = 1 << 20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredFile(_Part):
    """Size in bytes, SHA-256 in hex."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class StoredDatabase(_Part):
    """A service's database: its name where it was, and documents by collection."""

    name: str
    documents: dict[str, int]


class StoredStream(_Part):
    """`last_sequence`: of the last message that belongs to the backup, which the snapshot and its tail end with."""

    first_sequence: int
    last_sequence: int
    tail: int = Field(description="Messages that came after the snapshot was begun and before the databases' moment")


class Manifest(_Part):
    """All there is to know before anything is restored. `moment`: when the databases were as they are here."""

    kind: Literal["devpocket-backup"] = "devpocket-backup"
    format: int = FORMAT
    version: str
    moment: datetime
    key_fingerprint: str
    databases: dict[str, StoredDatabase]
    streams: dict[str, StoredStream]
    workspaces: int | None = Field(default=None, description="How many are included; None: they were left out")
    files: dict[str, StoredFile]

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(file.size for file in self.files.values())


Progress = Callable[[int, int], None]
"""Called with how many bytes were handled, and how many there are."""


def fingerprint(secret_key: str) -> str:
    """Tells whether two SECRET_KEYs are the same, and nothing else about them."""
    return derived_key(secret_key, _FINGERPRINT_PURPOSE).hex()[:32]


def described(folder: Path) -> dict[str, StoredFile]:
    """Each file in `folder` by its name there."""
    return {
        path.relative_to(folder).as_posix(): StoredFile(size=path.stat().st_size, sha256=_sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def to_text(manifest: Manifest) -> str:
    """As it is stored, with a checksum of its own."""
    content = manifest.model_dump(mode="json")
    return json.dumps({**content, "sha256": _checksum(content)}, indent=2) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Of a complete backup. Raises BadBackupError."""
    path = folder / MANIFEST
    try:
        content: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BadBackupError(
            f"{folder} is no complete backup: it holds no {MANIFEST}, which is written when all else is there"
        ) from error
    except (OSError, ValueError) as error:
        raise BadBackupError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise BadBackupError(f"{path} describes no backup of DevPocket")
    if content.get("format") != FORMAT:
        raise BadBackupError(
            f"{folder} was written in format {content.get('format')!r} by DevPocket {content.get('version')!r}; "
            f"this version reads format {FORMAT}: restore it with the version that wrote it, then upgrade"
        )
    stated = content.pop("sha256", None)
    if stated != _checksum(content):
        raise BadBackupError(f"{path} is damaged: it does not match its own checksum")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise BadBackupError(f"{path} is damaged: {error.errors()[0]['msg']}") from error


def verify(folder: Path, manifest: Manifest, progress: Progress | None = None) -> None:
    """Every file is there and as it was written. Raises BadBackupError naming the first that is not."""
    done = 0
    for name, stored in manifest.files.items():
        path = folder / _inside(name)
        if path.is_symlink() or not path.is_file():
            raise BadBackupError(f"{folder} is incomplete: {name} is missing")
        size = path.stat().st_size
        if size != stored.size:
            raise BadBackupError(f"{path} is damaged: it has {size} bytes instead of {stored.size}")
        if _sha256(path) != stored.sha256:
            raise BadBackupError(f"{path} is damaged: its content is not what was written")
        done += size
        if progress is not None:
            progress(done, manifest.size)


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise BadBackupError(f"the manifest names a file outside of the backup: {name}")
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
