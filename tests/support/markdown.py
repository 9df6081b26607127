"""Documentation as something to run: its fenced blocks, and whether what came back looks as the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

ANSWERS = frozenset({"json", "text"})
"""Languages of blocks that show what the block before them prints."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_ID = re.compile(r"[0-9a-f]{32}")
_ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `line` is where its text begins, from 1; `answer` the block that shows its output."""

    language: str
    text: str
    line: int
    answer: Block | None = None

    def read_as(self, change: Callable[[str], str]) -> Block:
        """With `change` made to its text and to that of its answer."""
        answer = self.answer and self.answer.read_as(change)
        return Block(self.language, change(self.text), self.line, answer)


def blocks(page: str) -> list[Block]:
    """What a page has one do, in order; answers hang on what they answer."""
    found: list[Block] = []
    for fence in _FENCE.finditer(page):
        block = Block(fence[1], fence[2], page.count("\n", 0, fence.start(2)) + 1)
        if block.language in ANSWERS and found:
            last = found.pop()
            if last.answer is not None:
                raise ValueError(f"line {block.line}: the block before has an answer already")
            block = Block(last.language, last.text, last.line, block)
        found.append(block)
    return found


def differences(answer: Block, output: str) -> list[str]:
    """Where `output` is not what the page shows; empty when it is.

    In JSON ids, times and texts with an ellipsis are compared by their form, fractions and milliseconds (`…_ms`) by
    being numbers, everything else by its value; objects must have the same fields, and a list that ends with an
    ellipsis may go on. In text an ellipsis stands for anything.
    """
    if answer.language == "text":
        return _text_differences(answer.text, output)
    try:
        return list(_json_differences("$", json.loads(answer.text), json.loads(output)))
    except ValueError as error:
        return [f"not JSON: {error}: {output[:300]!r}"]


def _text_differences(shown: str, output: str) -> list[str]:
    pattern = re.escape(shown.strip()).replace(re.escape(_ELLIPSIS), ".*?")
    if re.fullmatch(pattern, output.strip(), re.DOTALL):
        return []
    return [f"shown:\n{shown.strip()}\ncame:\n{output.strip()}"]


def _json_differences(where: str, shown: Any, got: Any) -> Iterator[str]:
    if isinstance(shown, dict) and isinstance(got, dict):
        if shown.keys() != got.keys():
            only_shown, only_got = sorted(shown.keys() - got.keys()), sorted(got.keys() - shown.keys())
            yield f"{where}: only on the page {only_shown}, only in the answer {only_got}"
        for name in shown.keys() & got.keys():
            yield from _json_differences(f"{where}.{name}", shown[name], got[name])
    elif isinstance(shown, list) and isinstance(got, list):
        goes_on = shown[-1:] == [_ELLIPSIS]
        expected = shown[:-1] if goes_on else shown
        if len(got) < len(expected) or (len(got) > len(expected) and not goes_on):
            yield f"{where}: {len(expected)} on the page, {len(got)} in the answer"
        for index, (one, other) in enumerate(zip(expected, got, strict=False)):
            yield from _json_differences(f"{where}[{index}]", one, other)
    elif not (where.endswith("_ms") and type(shown) is type(got)) and not _alike(shown, got):
        yield f"{where}: {shown!r} on the page, {got!r} in the answer"


def _alike(shown: Any, got: Any) -> bool:
    if type(shown) is not type(got):
        return False
    if isinstance(shown, float):
        return True
    if not isinstance(shown, str):
        return bool(shown == got)
    for form in (_TIME, _ID):
        if form.fullmatch(shown):
            return form.fullmatch(got) is not None
    return not _text_differences(shown, got)
