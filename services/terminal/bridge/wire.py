"""What crosses between the two ends of a bridge, as pure functions.

Each message begins with its kind and its number; the numbers of each direction count from 0 without holes, so that a
message that the bus has lost is noticed with the next one.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from libs.common.contracts.identity import Plan
from libs.runtime.port import TerminalSize
from services.terminal.domain import Caller, Mode

_HEADER = struct.Struct(">BQ")
_CREDIT = struct.Struct(">Q")
HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    """What a message is. PART: the beginning of a frame too large for one message. TEXT and BINARY end a frame.

    CREDIT: so many bytes were dealt with. BEAT: only a sign of life. DROPPED: a frame that was not relayed.
    """

    TEXT = 1
    BINARY = 2
    PART = 3
    DROPPED = 4
    CREDIT = 5
    BEAT = 6
    CLOSE = 7


# What its sender needs credit for; the others must get through when there is none.
COUNTED = frozenset({Kind.TEXT, Kind.BINARY, Kind.PART, Kind.DROPPED})


@dataclass(frozen=True, slots=True)
class Dropped:
    """A client's frame that its replica did not relay, and why."""

    is_text: bool
    code: str
    why: str

    def pack(self) -> bytes:
        """As a message's payload."""
        return json.dumps([self.is_text, self.code, self.why]).encode()

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From `pack`."""
        return cls(*json.loads(payload))


@dataclass(frozen=True, slots=True)
class Closed:
    """The other end is done; towards the client, how its WebSocket is to be closed."""

    socket_code: int
    reason: str

    def pack(self) -> bytes:
        """As a message's payload."""
        return json.dumps([self.socket_code, self.reason]).encode()

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From `pack`."""
        return cls(*json.loads(payload))


# When nothing else was said: the client comes back, and is told what there is to tell.
BROKEN_OFF = Closed(1001, "bridge_lost")


def pack(kind: Kind, number: int, payload: bytes = b"") -> bytes:
    """A whole message."""
    return _HEADER.pack(kind, number) + payload


def unpack(message: bytes) -> tuple[Kind, int, bytes]:
    """Kind, number and payload. Raises ValueError."""
    if len(message) < HEADER_BYTES:
        raise ValueError("a bridged message without its header")
    kind, number = _HEADER.unpack_from(message)
    return Kind(kind), number, message[HEADER_BYTES:]


def pack_credit(count: int) -> bytes:
    """As a message's payload."""
    return _CREDIT.pack(count)


def unpack_credit(payload: bytes) -> int:
    """From `pack_credit`."""
    count: int = _CREDIT.unpack(payload)[0]
    return count


@dataclass(frozen=True, slots=True)
class Wish:
    """What a connection asks its session for; `size` is None for one that has said none."""

    caller: Caller
    environment_id: str
    mode: Mode
    is_binary: bool
    offset: int | None
    client: str | None
    size: TerminalSize | None

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "user_id": self.caller.user_id,
            "login_id": self.caller.login_id,
            "plan": self.caller.plan.value,
            "environment_id": self.environment_id,
            "mode": self.mode.value,
            "binary": self.is_binary,
            "offset": self.offset,
            "client": self.client,
            "size": None if self.size is None else [self.size.cols, self.size.rows],
        }

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """From `fields`."""
        return cls(
            caller=Caller(fields["user_id"], fields["login_id"], Plan(fields["plan"])),
            environment_id=fields["environment_id"],
            mode=Mode(fields["mode"]),
            is_binary=fields["binary"],
            offset=fields["offset"],
            client=fields["client"],
            size=None if fields["size"] is None else TerminalSize(*fields["size"]),
        )


def out_subject(session_id: str, attachment_id: str) -> str:
    """From the owner of the session to the replica with the socket."""
    return f"term.{session_id}.out.{attachment_id}"


def in_subject(session_id: str, attachment_id: str) -> str:
    """From the replica with the socket to the owner of the session."""
    return f"term.{session_id}.in.{attachment_id}"
