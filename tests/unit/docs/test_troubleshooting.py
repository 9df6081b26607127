"""The troubleshooting page has every code that the code has, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.guides import section
from tests.unit.docs import vocabulary

PAGE = vocabulary.ROOT / "docs" / "operations" / "troubleshooting.md"

PROBLEMS = section(PAGE, "Problem codes")
CLOSES = section(PAGE, "Close codes of WebSockets")
REASONS = section(PAGE, "Reasons of environments")


def first_cells(text: str) -> set[str]:
    """The words in code type of each row's first cell."""
    rows = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    ("what", "written", "find"),
    [
        ("problem codes", first_cells(PROBLEMS), vocabulary.problem_codes),
        ("reasons", first_cells(REASONS), vocabulary.reasons),
        ("terminal errors", first_cells(CLOSES.partition("### Terminal errors")[2]), vocabulary.frame_errors),
    ],
)
def test_all_are_explained(what: str, written: set[str], find: Callable[[], set[str]]) -> None:
    real = find()
    assert len(real) > 5, f"no {what} were found: the code looks different now, teach vocabulary.py"
    assert real - written == set(), f"{what} without an explanation in troubleshooting.md"
    assert written - real == set(), f"{what} that the code does not have"


def test_the_status_is_the_one_that_is_answered() -> None:
    written = {
        (code, status)
        for codes, statuses in re.findall(r"^\| (`.*?) \| ([\d, /]+) \|", PROBLEMS, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
        for status in re.findall(r"\d{3}", statuses)
    }
    assert vocabulary.statuses() - written == set()


def test_every_close_of_a_websocket_is_explained() -> None:
    written = set(re.findall(r"^\| (\d{4}) \| `(\w+)` \|", CLOSES, re.MULTILINE))
    assert written == vocabulary.closings()


def test_the_guide_for_apps_has_every_close_code() -> None:
    guide = section(vocabulary.ROOT / "docs" / "api" / "terminal.md", "How it ends")
    numbers = {int(text) for row in re.findall(r"^\| ([\d, ]+) \|", guide, re.MULTILINE) for text in row.split(",")}
    assert {int(number) for number, _ in vocabulary.closings()} <= numbers
