"""Frames in both directions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.runtime.port import TerminalSize
from services.terminal import protocol
from services.terminal.protocol import BinaryCodec, FrameError, Input, InputSeq, JsonCodec, Ping, Resize


class TestParse:
    @pytest.mark.parametrize(
        ("frame", "parsed"),
        [
            ('{"type":"input","data":"ls\\n"}', Input(b"ls\n")),
            (' \n{"type":"input","data":"é"}', Input("é".encode())),
            ('{"type":"input","data":"\\ud83d"}', Input(b"?")),
            ('{"type":"input","data":"x","seq":1}', Input(b"x", 1)),
            ('{"type":"input","data":"x","seq":null}', Input(b"x")),
            ('{"type":"input_seq","seq":9007199254740991}', InputSeq(2**53 - 1)),
            ('{"type":"resize","cols":80,"rows":24}', Resize(TerminalSize(80, 24))),
            ('{"type":"resize","cols":65535,"rows":1}', Resize(TerminalSize(65535, 1))),
            ('{"type":"ping"}', Ping()),
            ("ls -l\n", Input(b"ls -l\n")),
            ("", Input(b"")),
            ("42", Input(b"42")),
            ('"ping"', Input(b'"ping"')),
            ('["ping"]', Input(b'["ping"]')),
            ("{broken", Input(b"{broken")),
            ("{" * 5000, Input(b"{" * 5000)),
            ('{"a":' * 5000, Input(b'{"a":' * 5000)),
            (b"\x00\xff", Input(b"\x00\xff")),
            (b'{"type":"ping"}', Input(b'{"type":"ping"}')),
        ],
        ids=range(19),
    )
    def test_what_a_client_may_send(self, frame: str | bytes, parsed: object) -> None:
        assert protocol.parse(frame) == parsed

    @pytest.mark.parametrize("seq", [0, -1, 2**53, 1.0, "1", True, [1]])
    @pytest.mark.parametrize("kind", ["input", "input_seq"])
    def test_a_number_that_counts_no_messages_is_refused(self, kind: str, seq: object) -> None:
        with pytest.raises(FrameError) as refused:
            protocol.parse(json.dumps({"type": kind, "data": "x", "seq": seq}))
        assert refused.value.code == "invalid_frame"

    @given(st.text())
    def test_any_text_is_input_or_a_frame_error(self, text: str) -> None:
        try:
            parsed = protocol.parse(text)
        except FrameError:
            assert isinstance(json.loads(text), dict)
        else:
            assert isinstance(parsed, Input | InputSeq | Resize | Ping)

    @given(
        st.dictionaries(st.sampled_from(["type", "data", "seq", "cols", "rows"]), st.none() | st.integers() | st.text())
    )
    def test_any_object_is_understood_or_refused(self, fields: dict[str, Any]) -> None:
        code = None
        try:
            protocol.parse(json.dumps(fields))
        except FrameError as error:
            code = error.code
        assert code in {None, "unknown_type", "invalid_frame", "invalid_size"}


def decode_in_pieces(data: bytes, cuts: list[int]) -> tuple[str, list[int]]:
    """What a JSON client puts together when output comes in these pieces; and the offsets it saw."""
    codec, text, sent, offsets = JsonCodec(), "", 0, [0]
    for cut in [*sorted(cuts), len(data)]:
        final = cut == len(data)
        frame, used = codec.output(data[sent:cut], sent, final=final)
        sent += used
        if frame is not None:
            fields = json.loads(frame)
            text += fields["data"]
            assert fields["offset"] == sent
            offsets.append(sent)
    assert sent == len(data)
    return text, offsets


class TestJsonCodec:
    def test_every_split_of_every_length_of_character(self) -> None:
        text = "aé€🦀ÿ\U0010ffff\x00\x1b[0m"
        data = text.encode()
        for cut in range(len(data) + 1):
            for second in range(cut, len(data) + 1):
                assert decode_in_pieces(data, [cut, second])[0] == text

    @given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
    def test_garbage_reads_the_same_however_it_is_cut_and_offsets_count_bytes(
        self, data: bytes, cuts: list[int]
    ) -> None:
        cuts = [min(cut, len(data)) for cut in cuts]
        text, offsets = decode_in_pieces(data, cuts)
        assert text == data.decode("utf-8", "replace")
        assert offsets == sorted(offsets)

    @given(st.text(min_size=1), st.data())
    def test_a_client_that_resumes_at_an_offset_it_saw_has_the_whole_text(self, text: str, data: st.DataObject) -> None:
        output = text.encode("utf-8", "replace")
        cuts = data.draw(st.lists(st.integers(0, len(output)), max_size=5))
        offset = data.draw(st.sampled_from(decode_in_pieces(output, cuts)[1]))
        before, after = output[:offset].decode(), decode_in_pieces(output[offset:], [])[0]
        assert before + after == output.decode()

    def test_a_character_that_never_ends_is_shown_at_the_end(self) -> None:
        assert JsonCodec().output(b"\xf0\x9f", 0, final=False) == (None, 0)
        frame, used = JsonCodec().output(b"\xf0\x9f", 10, final=True)
        assert frame is not None
        assert (json.loads(frame), used) == ({"type": "output", "data": "\ufffd", "offset": 12}, 2)

    @pytest.mark.parametrize(("head", "skipped"), [(b"", 0), (b"abc", 0), ("🦀".encode()[1:], 3), (b"\x80" * 9, 3)])
    def test_after_a_gap_half_a_character_is_skipped(self, head: bytes, skipped: int) -> None:
        assert JsonCodec().resume_at(head) == skipped


def test_binary_frames_are_the_bytes_themselves() -> None:
    data = b"\xff\x00\x80"
    assert BinaryCodec().output(data, 7, final=False) == (data, 3)
    assert BinaryCodec().resume_at(b"\x80\x80") == 0
