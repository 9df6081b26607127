"""Work in a terminal: every word that was confirmed there must be found again, whatever happens to the services."""

from __future__ import annotations

import itertools
import re

import httpx

from tests.chaos.client import GaveUpError, Pauses
from tests.chaos.ledger import LOST, Ledger
from tests.support.phone import Phone

# A session may be cut at any time; one that never comes about within this time is not worth waiting for.
_PATIENCE_S = 45.0


class Terminal:
    """One user's terminals, each for one command."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self._url = url
        self._ledger = ledger
        self._numbers = itertools.count(1)
        self._confirmed: dict[str, set[str]] = {}

    async def work_in(self, http: httpx.AsyncClient, token: str, environment_id: str) -> None:
        """Append a word to a file in the workspace, and see that those of before are there."""
        phone = Phone(self._url, http, token, {})
        word = f"w{next(self._numbers)}"
        pauses = Pauses(_PATIENCE_S)
        while True:
            try:
                output = await phone.run(environment_id, f"echo {word} >> words; cat words")
                break
            except Exception as error:
                # Cut off, refused, or silent: with services being killed that is how it should be.
                self._ledger.counts[f"terminal: {type(error).__name__}"] += 1
            try:
                await pauses.next("a terminal")
            except GaveUpError:
                self._ledger.counts["terminals given up"] += 1
                return
        self._ledger.counts["terminals used"] += 1
        confirmed = self._confirmed.setdefault(environment_id, set())
        confirmed.add(word)
        missing = confirmed - set(re.findall(r"w\d+", output))
        if missing:
            self._ledger.notice(LOST, environment_id, f"words {missing} are not in the workspace any more: {output!r}")
