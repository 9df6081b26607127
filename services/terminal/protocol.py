"""The terminal protocol (docs: DESIGN section 7): frames in both directions, as pure functions and two codecs.

`offset` in `output` is the offset of the first byte after its data, and in `ready` and `gap.to` that of the byte that
comes next: whatever number a client saw last is what it resumes with.

Input may be numbered, so that what is sent again after a reconnect is typed once (ADR 11): `seq` counts a client's own
messages from 1. `ready.seq` and `ack` tell the highest that was taken.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any, Protocol

from libs.runtime.port import LogLine, TerminalSize

BINARY_SUBPROTOCOL = "devpocket.terminal.v1+binary"

# The range of an unsigned short, which is what the kernel's winsize holds (ioctl_tty(2)).
_MAX_SIDE = 65535
_MAX_UTF8_TAIL = 3
# What every client's numbers can hold.
_LARGEST_SEQ = 2**53 - 1

Frame = str | bytes


class FrameError(Exception):
    """A client frame that cannot be understood; answered with an `error` frame, the connection stays."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes for the shell; `seq` numbers the client's messages from 1, None is not numbered."""

    data: bytes
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class InputSeq:
    """The binary frames that follow on this connection are numbered from `seq` on."""

    seq: int


@dataclass(frozen=True, slots=True)
class Resize:
    """A new window size."""

    size: TerminalSize


@dataclass(frozen=True, slots=True)
class Ping:
    """Answered with `pong`."""


ClientFrame = Input | InputSeq | Resize | Ping


def parse(frame: Frame) -> ClientFrame:
    """A frame as the client sent it. Binary frames, and text that is no JSON object, are input. Raises FrameError."""
    if isinstance(frame, bytes):
        return Input(frame)
    fields = _json_object(frame)
    if fields is None:
        return Input(_utf8(frame))
    kind = fields.get("type")
    if kind == "input":
        data = fields.get("data")
        if not isinstance(data, str):
            raise FrameError("invalid_frame", "input needs data, a string")
        return Input(_utf8(data), None if fields.get("seq") is None else _seq(fields))
    if kind == "input_seq":
        return InputSeq(_seq(fields))
    if kind == "resize":
        return Resize(TerminalSize(_side(fields, "cols"), _side(fields, "rows")))
    if kind == "ping":
        return Ping()
    raise FrameError("unknown_type", "The frame's type must be input, input_seq, resize or ping")


def _json_object(text: str) -> dict[str, Any] | None:
    if not text.lstrip(" \t\r\n").startswith("{"):
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _utf8(text: str) -> bytes:
    # JSON can name half a surrogate pair, which has no UTF-8.
    return text.encode("utf-8", "replace")


def _side(fields: dict[str, Any], name: str) -> int:
    return _whole(fields.get(name), _MAX_SIDE, "invalid_size", name)


def _seq(fields: dict[str, Any]) -> int:
    return _whole(fields.get("seq"), _LARGEST_SEQ, "invalid_frame", "seq")


def _whole(value: object, largest: int, code: str, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise FrameError(code, f"{name} must be a whole number from 1 to {largest}")
    return value


def ready(session_id: str, offset: int, client: str, seq: int | None) -> str:
    """The first frame: which session this is, and the offset its output goes on from.

    `client` is what numbered input is counted for, `seq` the highest number taken from it; None: that is not known any
    more, so nothing may be sent again.
    """
    return _dump({"type": "ready", "session_id": session_id, "offset": offset, "client": client, "seq": seq})


def ack(seq: int) -> str:
    """The shell's input has taken all numbered input up to `seq`, which is 0 when there was none yet."""
    return f'{{"type":"ack","seq":{seq}}}'


def exited(code: int) -> str:
    """The last frame: the shell has ended."""
    return _dump({"type": "exit", "code": code})


def pong() -> str:
    """The answer to a ping."""
    return '{"type":"pong"}'


def error(code: str, message: str) -> str:
    """Something went wrong. `code` is stable, `message` for people."""
    return _dump({"type": "error", "code": code, "message": message})


def gap(start: int, end: int) -> str:
    """The bytes from `start` up to but not including `end` are no longer held; output goes on at `end`."""
    return _dump({"type": "gap", "from": start, "to": end})


def log_line(line: LogLine, offset: str) -> str:
    """A line of the workspace's log. The runtime knows no levels: standard error counts as error.

    `offset` is the line's position, which a client resumes behind.
    """
    timestamp = line.timestamp.isoformat().replace("+00:00", "Z")
    level = "error" if line.stream == "stderr" else "info"
    return (
        f'{{"type":"log","timestamp":"{timestamp}","level":"{level}","message":{encode_basestring(line.message)},'
        f'"stream":"{line.stream}","offset":"{offset}"}}'
    )


def _dump(fields: dict[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"))


class Codec(Protocol):
    """How output bytes become frames."""

    def output(self, data: bytes, offset: int, *, final: bool) -> tuple[Frame | None, int]:
        """A frame for `data`, which begins at `offset`, and how many bytes of it are in the frame.

        Unless `final`, bytes at the end may be left for the next frame; None when nothing can be sent yet.
        """
        ...

    def resume_at(self, head: bytes) -> int:
        """How many bytes at the head of what follows a gap cannot be shown."""
        ...


class BinaryCodec:
    """Bytes as they are; the client counts offsets from `ready` and `gap`."""

    def output(self, data: bytes, offset: int, *, final: bool) -> tuple[Frame | None, int]:
        """All of `data`."""
        return data, len(data)

    def resume_at(self, head: bytes) -> int:
        """Any byte will do."""
        return 0


class JsonCodec:
    """UTF-8 text in `output` frames. A character is never split; bytes that are no UTF-8 become U+FFFD."""

    def output(self, data: bytes, offset: int, *, final: bool) -> tuple[Frame | None, int]:
        """All of `data` but a character that is not complete yet."""
        text, used = codecs.utf_8_decode(data, "replace", final)
        if not used:
            return None, 0
        return f'{{"type":"output","data":{encode_basestring(text)},"offset":{offset + used}}}', used

    def resume_at(self, head: bytes) -> int:
        """Skip the rest of a character whose first byte is lost."""
        skipped = 0
        while skipped < min(_MAX_UTF8_TAIL, len(head)) and head[skipped] & 0xC0 == 0x80:
            skipped += 1
        return skipped
