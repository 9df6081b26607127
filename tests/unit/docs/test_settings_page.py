"""The configuration reference says of a settings class what it is."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode

from libs.common.settings_page import Setting, settings_of, settings_page


class Shared(BaseSettings):
    """Two services have it."""

    level: Literal["low", "high"] = Field(default="low", description="How much")
    db_url: SecretStr = Field(default=SecretStr("db://here"), description="Where")


class One(Shared):
    """What only one has."""

    wait_seconds: float = Field(default=1.5, gt=0, le=9, description="How long")
    most: int | None = Field(default=None, ge=1, description="How many of <these>")
    names: Annotated[list[str], NoDecode] = Field(default_factory=list, description="Which | ones")
    code: str = Field(default="a", pattern="^(a|b)$", description="What")
    on: bool = Field(default=True, description="Whether")


def lines() -> dict[str, str]:
    """The page's lines, by setting."""
    page = settings_page(settings_of({"one": One, "two": Shared}), explained=frozenset({"LEVEL", "WAIT_SECONDS"}))
    return {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}


def test_a_line_has_type_default_range_and_what_it_is() -> None:
    assert lines()["WAIT_SECONDS"] == "| `WAIT_SECONDS` | number (seconds) | `1.5` | > 0, ≤ 9 | How long |"
    assert lines()["LEVEL"] == "| `LEVEL` | `low`, `high` | `low` |  | How much |"
    assert lines()["ON"] == "| `ON` | true or false | `true` |  | Whether · *tuning* |"
    assert lines()["MOST"] == "| `MOST` | whole number | unset | ≥ 1 | How many of \\<these> · *tuning* |"


def test_what_would_break_a_table_is_escaped() -> None:
    assert lines()["NAMES"] == "| `NAMES` | list, commas between | empty |  | Which \\| ones · *tuning* |"
    assert lines()["CODE"] == "| `CODE` | text | `a` | `^(a\\|b)$` | What · *tuning* |"


def test_secrets_are_marked() -> None:
    assert "**secret**" in lines()["DB_URL"]
    assert "**secret**" not in lines()["LEVEL"]


def test_settings_are_grouped_by_who_reads_them() -> None:
    page = settings_page(settings_of({"one": One, "two": Shared}), explained=frozenset())
    shared, own = page.split("## Read by one and two\n")[1].split("## Read by one\n")
    assert "`LEVEL`" in shared
    assert "`WAIT_SECONDS`" in own


def test_a_setting_without_a_description_is_refused() -> None:
    class Silent(BaseSettings):
        nothing: int = 1

    with pytest.raises(ValueError, match="NOTHING has no description"):
        settings_of({"one": Silent})


def test_what_has_no_class_is_a_line_too() -> None:
    other = Setting("PORT", "whole number", "`1`", ("somebody",), "Where", is_secret=True)
    assert "| `PORT` | whole number | `1` |  | Where · **secret** |" in settings_page(
        [other], explained=frozenset({"PORT"})
    )
