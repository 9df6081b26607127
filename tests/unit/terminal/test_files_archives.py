"""Archives as they pass: what is let through, and what is refused, wherever pieces begin and end."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.terminal.workspace.archives import Gunzip, TarCheck
from services.terminal.workspace.errors import BadArchiveError, FileTooLargeError
from services.terminal.workspace.paths import STAGE, WorkspacePath

_LIMIT = 1_000_000
_FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar(*members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
    return packed.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def check(data: bytes, *, target: bytes = b"", step: int = 1 << 20) -> bytes:
    """What is let through."""
    checked = TarCheck(WorkspacePath.parse(target), _LIMIT)
    passed = b""
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        passed += piece[: checked.feed(piece)]
    checked.finish()
    return passed


@pytest.mark.parametrize("form", _FORMATS.values(), ids=_FORMATS)
@pytest.mark.parametrize("step", [1, 7, 512, 1 << 20])
def test_good_ones_pass(form: int, step: int) -> None:
    long = "/".join(["d" * 40] * 5)
    members = [
        member("./", tarfile.DIRTYPE),
        member("./a", size=1000),
        member(f"{long}/file", size=512),
        member("b/link", tarfile.SYMTYPE, "../a"),
        member("hard", tarfile.LNKTYPE, "./a"),
    ]
    if form != tarfile.USTAR_FORMAT:
        members.append(member("l", tarfile.SYMTYPE, long))
        members.append(member("ü" * 60, size=3))
    data = tar(*members, form=form)
    passed = check(data + b"what follows the end", step=step)
    with tarfile.open(fileobj=io.BytesIO(passed)) as archive:
        assert len(archive.getnames()) == len(members)
    assert data.startswith(passed)


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/x"),
        member("../x"),
        member("a/../../x"),
        member("a/.."),
        member("x" * 150 + "/../../y"),
        member("l", tarfile.SYMTYPE, "/etc"),
        member("l", tarfile.SYMTYPE, "/workspace/../etc"),
        member("l", tarfile.SYMTYPE, "/workspacex"),
        member("d/l", tarfile.SYMTYPE, "../../../x"),
        member("l", tarfile.SYMTYPE, "a/../../.." + "/x" * 60),
        member("l", tarfile.LNKTYPE, "/etc/passwd"),
        member("l", tarfile.LNKTYPE, "../x"),
        member("p", tarfile.FIFOTYPE),
        member("c", tarfile.CHRTYPE),
        member("b", tarfile.BLKTYPE),
        member("s", b"S"),
        member(f"../{STAGE}/x"),
    ],
    ids=lambda info: f"{info.name[:12]}-{info.type.decode()}-{info.linkname[:18]}",
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_bad_ones_do_not(bad: tarfile.TarInfo, form: int) -> None:
    with pytest.raises(BadArchiveError):
        check(tar(member("a", size=700), bad, member("z"), form=form), target=b"dir")


def test_nothing_is_unpacked_through_a_link() -> None:
    for members in (
        [member("l", tarfile.SYMTYPE, "."), member("l/x")],
        [member("l", tarfile.SYMTYPE, "."), member("h", tarfile.LNKTYPE, "l/x")],
        [member("l", tarfile.SYMTYPE, "d"), member("h", tarfile.LNKTYPE, "l"), member("h/x")],
        [member("d/l", tarfile.SYMTYPE, ".."), member("./d//l/e/x")],
    ):
        with pytest.raises(BadArchiveError):
            check(tar(*members), target=b"dir")


def test_a_link_may_lead_wherever_the_workspace_is() -> None:
    check(tar(member("l", tarfile.SYMTYPE, "../x"), member("m", tarfile.SYMTYPE, "/workspace/x")), target=b"dir")
    with pytest.raises(BadArchiveError):
        check(tar(member("l", tarfile.SYMTYPE, "../x")))


def test_where_uploads_wait_is_reserved() -> None:
    check(tar(member(f"{STAGE}/x")), target=b"dir")
    with pytest.raises(BadArchiveError):
        check(tar(member(f"{STAGE}/x")))


@pytest.mark.parametrize("key", ["path", "linkpath", "size"])
def test_no_name_for_all_members(key: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", pax_headers={key: "1"}) as archive:
        archive.addfile(member("a"))
    with pytest.raises(BadArchiveError):
        check(packed.getvalue())


def test_no_sparse_files() -> None:
    info = member("a")
    info.pax_headers = {"GNU.sparse.name": "../x"}
    with pytest.raises(BadArchiveError):
        check(tar(info))


def test_too_much_is_refused() -> None:
    for members in ([member("a", size=_LIMIT + 1)], [member(str(n), size=_LIMIT // 2) for n in range(3)]):
        with pytest.raises(FileTooLargeError):
            check(tar(*members))


@given(st.data())
def test_a_damaged_one_is_refused_or_still_an_archive(data: st.DataObject) -> None:
    """Whatever the bytes: no other error, and all names that tarfile finds in what passed are within."""
    original = bytearray(tar(member("a", size=600), member("d/l", tarfile.SYMTYPE, "../a"), member("d" * 120 + "/x")))
    for _ in range(data.draw(st.integers(1, 4))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    try:
        passed = check(bytes(original))
    except (BadArchiveError, FileTooLargeError):
        return
    with tarfile.open(fileobj=io.BytesIO(passed)) as archive:
        for name in archive.getnames():
            assert not name.startswith("/")
            assert ".." not in name.split("/")


class TestGunzip:
    @pytest.mark.parametrize("step", [1, 100, 1 << 20])
    def test_several_members_and_bounded_pieces(self, step: int) -> None:
        data = gzip.compress(b"one") + gzip.compress(bytes(3_000_000)) + gzip.compress(b"two")
        assert self._unpacked(data, step) == b"one" + bytes(3_000_000) + b"two"

    @pytest.mark.parametrize(
        "spoil", [lambda data: data[:-1], lambda data: data + b"more", lambda data: b"x" + data, lambda data: b""]
    )
    def test_what_is_damaged(self, spoil: Callable[[bytes], bytes]) -> None:
        with pytest.raises(BadArchiveError):
            self._unpacked(spoil(gzip.compress(b"data")), 1000)

    def _unpacked(self, data: bytes, step: int) -> bytes:
        gunzip, out = Gunzip(), bytearray()
        for at in range(0, len(data), step):
            for piece in gunzip.feed(data[at : at + step]):
                assert 0 < len(piece) <= 256 * 1024
                out += piece
        gunzip.finish()
        return bytes(out)
