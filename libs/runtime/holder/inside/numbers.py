"""How far the numbered input of each client was typed."""

from __future__ import annotations

from collections import OrderedDict

_CLIENTS = 64


class Numbers:
    """Of the 64 clients that typed last."""

    def __init__(self) -> None:
        self.taken: OrderedDict[str, int] = OrderedDict()
        self.has_forgotten = False

    def take(self, client: str, seq: int) -> bool:
        """Whether input of this number is to be typed; it is not if one as high was before."""
        if seq <= self.taken.get(client, 0):
            return False
        self.taken[client] = seq
        self.taken.move_to_end(client)
        if len(self.taken) > _CLIENTS:
            self.taken.popitem(last=False)
            self.has_forgotten = True
        return True
