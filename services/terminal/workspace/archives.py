"""A tar.gz that somebody uploads, checked while it passes through: whatever it would do beyond the directory that it is
unpacked into is refused before the archive is complete, and so before anything of it is in place. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from services.terminal.workspace.errors import BadArchiveError, FileTooLargeError
from services.terminal.workspace.paths import WorkspacePath

_BLOCK = 512
_PIECE_BYTES = 256 * 1024
# Names and attributes of one member.
_MOST_HEADER_BYTES = 1024 * 1024
_MOST_DIGITS = 20
_MOST_MEMBERS = 500_000
_MOST_LINKS = 50_000
_GZIP = 16 + zlib.MAX_WBITS
_EMPTY = bytes(_BLOCK)

_FILES, _HARD_LINK, _SYMBOLIC_LINK, _DIRECTORY = {b"0", b"\0", b"7"}, b"1", b"2", b"5"
_LONG_LINK, _LONG_NAME, _PAX, _PAX_FOR_ALL = b"K", b"L", b"x", b"g"
_HEADERS = {_LONG_LINK, _LONG_NAME, _PAX, _PAX_FOR_ALL}
_TOLD_BY_PAX = {b"path", b"linkpath", b"size"}

Names = tuple[bytes, ...]


class Gunzip:
    """Unpacks in pieces of bounded size."""

    def __init__(self) -> None:
        self._unpacker = zlib.decompressobj(_GZIP)
        self._touched = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes out for this. Raises BadArchiveError."""
        while data:
            if self._unpacker.eof:
                self._unpacker = zlib.decompressobj(_GZIP)
            self._touched = True
            try:
                piece = self._unpacker.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise BadArchiveError("The archive is no gzip file, or it is damaged") from error
            data = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            if piece:
                yield piece

    def finish(self) -> None:
        """Raises BadArchiveError when there should be more."""
        if not self._touched or not self._unpacker.eof:
            raise BadArchiveError("The archive ends too early")


class TarCheck:
    """Reads the members of a tar as they pass. `target`: the directory it is for; `limit`: bytes it may hold."""

    def __init__(self, target: WorkspacePath, limit: int) -> None:
        self._target = target
        self._limit = limit
        self._passed = 0
        self._members = 0
        self._links: set[Names] = set()
        self._block = b""
        self._skip = 0
        self._wanted = 0
        self._header_type = b""
        self._header = b""
        self._told: dict[bytes, bytes] = {}
        self._empty_blocks = 0

    @property
    def is_complete(self) -> bool:
        """Whether the archive's end was there."""
        return self._empty_blocks > 1

    def feed(self, data: bytes) -> int:
        """How many of these bytes belong to the archive: what follows its end does not.

        Raises BadArchiveError, FileTooLargeError.
        """
        at = 0
        while at < len(data) and not self.is_complete:
            at += self._step(data, at)
        self._passed += at
        if self._passed > self._limit:
            raise FileTooLargeError(self._limit)
        return at

    def finish(self) -> None:
        """Raises BadArchiveError when there should be more."""
        if not self.is_complete:
            raise BadArchiveError("The archive ends too early")

    def _step(self, data: bytes, at: int) -> int:
        if self._wanted:
            taken = data[at : at + self._wanted]
            self._header += taken
            self._wanted -= len(taken)
            if not self._wanted:
                self._take_header()
            return len(taken)
        if self._skip:
            skipped = min(self._skip, len(data) - at)
            self._skip -= skipped
            return skipped
        taken = data[at : at + _BLOCK - len(self._block)]
        self._block += taken
        if len(self._block) == _BLOCK:
            block, self._block = self._block, b""
            self._take_block(block)
        return len(taken)

    def _take_block(self, block: bytes) -> None:
        if block == _EMPTY:
            self._empty_blocks += 1
            return
        if self._empty_blocks:
            raise BadArchiveError("The archive goes on after its end")
        _check_sum(block)
        kind = block[156:157]
        size = _number(block[124:136])
        if kind in _HEADERS:
            if not 0 < size <= _MOST_HEADER_BYTES:
                raise BadArchiveError("The archive describes a member with nothing, or at too great a length")
            self._header_type, self._header, self._wanted = kind, b"", size
            self._skip = -size % _BLOCK
            return
        told, self._told = self._told, {}
        name = told.get(b"path") or _name(block)
        link = told.get(b"linkpath") or _text(block[157:257])
        size = _decimal(told[b"size"]) if b"size" in told else size
        self._take_member(kind, name, link)
        if kind in _FILES:
            if size > self._limit:
                raise FileTooLargeError(self._limit)
            self._skip = size + -size % _BLOCK
        elif size and kind != _HARD_LINK:
            raise BadArchiveError(f"The archive has a member with content that cannot have any: {_shown(name)}")

    def _take_header(self) -> None:
        kind, content, self._header = self._header_type, self._header, b""
        if kind == _LONG_NAME:
            self._told[b"path"] = _text(content)
        elif kind == _LONG_LINK:
            self._told[b"linkpath"] = _text(content)
        else:
            told = _records(content)
            if any(key.startswith(b"GNU.sparse") for key in told):
                raise BadArchiveError("The archive holds sparse files, which are not supported")
            if kind == _PAX:
                self._told |= {key: value for key, value in told.items() if key in _TOLD_BY_PAX}
            elif told.keys() & _TOLD_BY_PAX:
                raise BadArchiveError("The archive gives one name to all of its members")

    def _take_member(self, kind: bytes, name: bytes, link: bytes) -> None:
        names = _names(name)
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise BadArchiveError(f"The archive has more than {_MOST_MEMBERS} members")
        if kind not in _FILES | {_HARD_LINK, _SYMBOLIC_LINK, _DIRECTORY}:
            raise BadArchiveError(f"The archive has something other than files, directories and links: {_shown(name)}")
        if not names and kind != _DIRECTORY:
            raise BadArchiveError("The archive has a member without a name")
        if WorkspacePath((*self._target.names, *names)).is_reserved:
            raise BadArchiveError(f"The archive has a member of a name that is reserved: {_shown(name)}")
        self._check_way(names, name)
        if kind == _HARD_LINK:
            target = _names(link)
            self._check_way(target, name)
            if not target or target in self._links:
                raise BadArchiveError(f"The archive has a link to a link: {_shown(name)}")
        elif kind == _SYMBOLIC_LINK:
            self._check_link(names, link)
            self._links.add(names)
            if len(self._links) > _MOST_LINKS:
                raise BadArchiveError(f"The archive has more than {_MOST_LINKS} links")

    def _check_way(self, names: Names, name: bytes) -> None:
        """What is unpacked through a link lands where nobody looked."""
        if self._links and any(names[:depth] in self._links for depth in range(1, len(names))):
            raise BadArchiveError(f"The archive has a member below a link: {_shown(name)}")

    def _check_link(self, names: Names, link: bytes) -> None:
        place = [*self._target.names, *names[:-1]]
        if link.startswith(b"/"):
            place = []
            if not f"{link.decode('latin-1')}/".startswith("/workspace/"):
                raise _leads_out(names)
            link = link.removeprefix(b"/workspace")
        for step in link.split(b"/"):
            if step == b"..":
                if not place:
                    raise _leads_out(names)
                place.pop()
            elif step not in {b"", b"."}:
                place.append(step)


def _leads_out(names: Names) -> BadArchiveError:
    return BadArchiveError(f"The archive has a link that leads out of the workspace: {_shown(b'/'.join(names))}")


def _names(name: bytes) -> Names:
    if name.startswith(b"/"):
        raise BadArchiveError(f"The archive has an absolute path: {_shown(name)}")
    names = tuple(part for part in name.split(b"/") if part not in {b"", b"."})
    if b".." in names:
        raise BadArchiveError(f"The archive has a path with '..': {_shown(name)}")
    return names


def _shown(name: bytes) -> str:
    return ascii(name[:200].decode("utf-8", "replace"))


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _name(block: bytes) -> bytes:
    name, prefix = _text(block[:100]), _text(block[345:500])
    # GNU tar keeps other things there, and says so.
    return prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:])
    digits = _text(field).strip(b" ")
    if digits.strip(b"01234567"):
        raise BadArchiveError("The file is no tar archive, or it is damaged")
    return int(digits or b"0", 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > _MOST_DIGITS:
        raise BadArchiveError("The file is no tar archive, or it is damaged")
    return int(text)


def _check_sum(block: bytes) -> None:
    if sum(block[:148]) + sum(block[156:]) + 8 * ord(" ") != _number(block[148:156]):
        raise BadArchiveError("The file is no tar archive, or it is damaged")


def _records(content: bytes) -> dict[bytes, bytes]:
    """`<length> <key>=<value>\\n`, as pax has them."""
    found: dict[bytes, bytes] = {}
    while content:
        length, _, _ = content.partition(b" ")
        end = _decimal(length)
        key, equals, value = content[len(length) + 1 : end - 1].partition(b"=")
        if not equals or end > len(content) or content[end - 1 : end] != b"\n" or b"\0" in key:
            raise BadArchiveError("The file is no tar archive, or it is damaged")
        if key in _TOLD_BY_PAX and b"\0" in value:
            raise BadArchiveError("The archive has a name with a NUL")
        found[key] = value
        content = content[end:]
    return found
