"""How far the numbered input of each client was taken, so that what is sent again is typed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum, auto

# More phones, tablets and browser tabs than anybody goes back and forth between; each costs about 130 bytes.
_REMEMBERED = 16


class Place(Enum):
    """Where a number stands beside the highest one taken."""

    NEXT = auto()
    TAKEN = auto()
    GAP = auto()


class InputLedger:
    """Remembers 16 clients, those that typed last; connected ones are never forgotten, however many they are.

    Input is taken when it waits for the shell, and confirmed when it would outlive this process. Clients are told of
    the latter; between the two, what they send again is known.
    """

    def __init__(
        self,
        is_connected: Callable[[str], bool],
        taken: Mapping[str, int] | None = None,
        *,
        has_forgotten: bool = False,
    ) -> None:
        self._is_connected = is_connected
        self._taken: OrderedDict[str, int] = OrderedDict(taken or {})
        self._confirmed: dict[str, int] = dict(self._taken)
        self._has_forgotten = has_forgotten

    def __len__(self) -> int:
        return len(self._taken)

    def confirmed(self, client: str) -> int:
        """The highest number confirmed; 0 when there is none, or none that is remembered."""
        return self._confirmed.get(client, 0)

    def may_have_forgotten(self, client: str) -> bool:
        """Whether more may have been taken from this client than is remembered."""
        return self._has_forgotten and client not in self._taken

    def place(self, client: str, seq: int) -> Place:
        """Whether input of this number is to be typed, was typed before, or lacks what comes before it."""
        taken = self._taken.get(client, 0)
        if seq <= taken:
            return Place.TAKEN
        return Place.NEXT if seq == taken + 1 else Place.GAP

    def take(self, client: str, seq: int) -> None:
        """Input of this number waits for the shell now."""
        self._taken[client] = seq
        self._taken.move_to_end(client)
        if len(self._taken) > _REMEMBERED:
            self._forget()

    def confirm(self, client: str, seq: int) -> None:
        """Input up to this number is the shell's now."""
        if client in self._taken:
            self._confirmed[client] = max(seq, self._confirmed.get(client, 0))

    def _forget(self) -> None:
        away = [client for client in self._taken if not self._is_connected(client)]
        for client in away[: len(self._taken) - _REMEMBERED]:
            del self._taken[client]
            self._confirmed.pop(client, None)
            self._has_forgotten = True
