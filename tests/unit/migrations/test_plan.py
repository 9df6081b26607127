"""What migrations are declared, and that those which are out there stay as they are."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points

import pytest

from libs.common.migrations.plan import Backfill, level, ordered

# A migration that has run somewhere does not run there again: never edit one, add another.
_USERS = {
    "0001-users-say-whether-deleted": "393929c404740b2c",
    "0002-users-have-a-session-epoch": "9d2fb265fd8e4a31",
}
RELEASED = {
    "envs": _USERS,
    "orchestrator": {
        **_USERS,
        "0003-workspaces-name-their-cluster": "de771fda96d3ce84",
        "0004-workspaces-say-what-delays-them": "65e4734dd41c725b",
    },
    "terminal": {**_USERS, "0003-sessions-say-how-they-are-held": "676509bdc9bd4d6d"},
}
_ONE = Backfill(1, "one", "things", {"a": 1}, {"$set": {"a": 2}})


def declared() -> dict[str, list[Backfill]]:
    return {entry.name: ordered(entry.load()) for entry in entry_points(group="devpocket.migrations")}


def test_every_service_declares_its_migrations() -> None:
    assert declared().keys() == {"auth", "envs", "orchestrator", "terminal"}


def test_what_was_released_is_as_it_was() -> None:
    now = {service: {item.id: item.checksum for item in migrations} for service, migrations in declared().items()}
    assert {service: known for service, known in now.items() if known} == RELEASED


def test_the_checksum_is_of_what_it_does() -> None:
    assert replace(_ONE, change={"$set": {"a": 3}}).checksum != _ONE.checksum
    assert replace(_ONE, batch=7, pause_s=1).checksum == _ONE.checksum


def test_numbers_are_unique_and_nothing_needs_what_comes_later() -> None:
    with pytest.raises(ValueError, match="same number"):
        ordered([_ONE, replace(_ONE, name="other")])
    with pytest.raises(ValueError, match="comes after"):
        ordered([_ONE, replace(_ONE, number=2, needs=3)])


def test_code_knows_its_last_migration() -> None:
    assert (level([]), level([replace(_ONE, number=3), _ONE])) == (0, 3)
