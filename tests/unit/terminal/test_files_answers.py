"""Ranges, conditions and pages: the pure part of the routes for files."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.terminal.api.conditions import check_target, is_known, wanted_part
from services.terminal.api.file_models import decode_cursor, encode_cursor
from services.terminal.workspace.entries import Attributes, Listing
from services.terminal.workspace.errors import CutShortError, FileChangedError, InvalidCursorError, RangeError

_FILE = Attributes(1000, datetime(2026, 11, 29, tzinfo=UTC), 0o100644, '"e"')


class TestParts:
    @pytest.mark.parametrize(
        ("asked", "start", "end"),
        [
            ("0-", 0, 1000),
            ("0-0", 0, 1),
            ("999-", 999, 1000),
            ("10-5000", 10, 1000),
            ("-1", 999, 1000),
            ("-5000", 0, 1000),
        ],
    )
    def test_one_that_is_there(self, asked: str, start: int, end: int) -> None:
        part = wanted_part({"range": f"bytes={asked}"}, _FILE)
        assert part is not None
        assert (part.start, part.end, part.length) == (start, end, end - start)
        assert part.content_range == f"bytes {start}-{end - 1}/1000"

    @pytest.mark.parametrize("asked", ["1000-", "1000-2000", "-0"])
    def test_one_beyond_the_end(self, asked: str) -> None:
        with pytest.raises(RangeError):
            wanted_part({"range": f"bytes={asked}"}, _FILE)

    @pytest.mark.parametrize("asked", ["", "bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,5-6", "lines=0-1", "bytes=a-"])
    def test_what_is_no_single_range_means_all(self, asked: str) -> None:
        assert wanted_part({"range": asked}, _FILE) is None

    def test_another_file_than_before_comes_whole(self) -> None:
        assert wanted_part({"range": "bytes=0-1", "if-range": '"x"'}, _FILE) is None
        assert wanted_part({"range": "bytes=0-1", "if-range": '"e"'}, _FILE) is not None


class TestConditions:
    @pytest.mark.parametrize("tags", ['"e"', '"x", "e"', 'W/"e"', "*"])
    def test_known(self, tags: str) -> None:
        assert is_known({"if-none-match": tags}, _FILE)

    def test_not_known(self) -> None:
        assert not is_known({}, _FILE)
        assert not is_known({"if-none-match": '"x"'}, _FILE)

    @pytest.mark.parametrize(
        ("headers", "found"),
        [
            ({"if-match": "*"}, None),
            ({"if-match": '"x"'}, _FILE),
            ({"if-match": 'W/"e"'}, _FILE),
            ({"if-none-match": "*"}, _FILE),
            ({"if-none-match": '"e"'}, _FILE),
        ],
    )
    def test_not_what_the_client_expects(self, headers: dict[str, str], found: Attributes | None) -> None:
        with pytest.raises(FileChangedError):
            check_target(headers, found)

    def test_as_expected(self) -> None:
        check_target({"if-match": '"e"'}, _FILE)
        check_target({"if-match": "*"}, _FILE)
        check_target({"if-none-match": "*"}, None)
        check_target({"if-none-match": '"x"'}, _FILE)


_NAMES = st.lists(st.binary(min_size=1, max_size=8).filter(lambda name: not {0, ord("/")} & set(name)), unique=True)


class TestPages:
    @given(_NAMES, st.integers(1, 5), st.integers(1, 60))
    def test_pages_hold_every_name_once_in_order(self, names: list[bytes], limit: int, step: int) -> None:
        output = b"".join(b"mark|81a4|7|1|./%s|\n" % name for name in names)
        seen: list[bytes] = []
        after: bytes | None = None
        while True:
            listing = Listing("mark", after, limit)
            for at in range(0, len(output), step):
                listing.feed(output[at : at + step])
            entries, has_more = listing.finish()
            assert len(entries) <= limit
            seen += [entry.name for entry in entries]
            if not has_more:
                break
            after = decode_cursor(encode_cursor(entries[-1].name))
        assert seen == sorted(names)

    @pytest.mark.parametrize("output", [b"nonsense", b"mark|81a4|7|1|./a", b"mark|x|7|1|./a|\n", b"mark|1|1|./a|\n"])
    def test_a_list_that_breaks_off_is_none(self, output: bytes) -> None:
        listing = Listing("mark", None, 10)

        def read() -> None:
            listing.feed(output)
            listing.finish()

        with pytest.raises(CutShortError):
            read()

    @pytest.mark.parametrize("cursor", ["", "?", "YS9i", "AA", "a" * 1000, "ü"])
    def test_cursors_that_no_page_gave(self, cursor: str) -> None:
        with pytest.raises(InvalidCursorError):
            decode_cursor(cursor)
