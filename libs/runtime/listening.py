"""Who listens, as the kernel tells it in /proc/net/tcp and tcp6 (proc(5)). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from libs.runtime.port import ListeningPort

_LISTEN = "0A"
_WORD = 8


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket."""

    address: IPv4Address | IPv6Address
    port: int
    inode: int

    @property
    def is_reachable(self) -> bool:
        """Whether a connection to 127.0.0.1 or ::1 arrives at it."""
        address = self.address
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address.is_unspecified or address in _REACHABLE


_REACHABLE = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


def listeners(*tables: str) -> list[Listener]:
    """From the text of one or both files; lines that are none of theirs are passed over."""
    found = []
    for line in (line for table in tables for line in table.splitlines()):
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            address, _, port = fields[1].partition(":")
            found.append(Listener(_address(address), int(port, 16), int(fields[9])))
    return found


def reachable_ports(found: Iterable[Listener]) -> list[ListeningPort]:
    """Each port once, with the widest address that it is listened at."""
    widest: dict[int, Listener] = {}
    for listener in found:
        known = widest.get(listener.port)
        if listener.is_reachable and (known is None or not known.address.is_unspecified):
            widest[listener.port] = listener
    return [ListeningPort(port, str(widest[port].address)) for port in sorted(widest)]


def _address(text: str) -> IPv4Address | IPv6Address:
    # Words of 32 bits, each in the machine's byte order; every machine we run on is little-endian.
    raw = b"".join(bytes.fromhex(text[at : at + _WORD])[::-1] for at in range(0, len(text), _WORD))
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
