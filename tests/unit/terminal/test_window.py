"""The window has the size of the writer who was active last."""

from __future__ import annotations

import pytest

from libs.runtime.port import TerminalSize
from services.terminal.sessions.window import Window

PHONE, LAPTOP = TerminalSize(40, 20), TerminalSize(200, 60)


class Shell:
    """What the shell was told."""

    def __init__(self) -> None:
        self.sizes: list[TerminalSize] = []
        self.window = Window(TerminalSize(), self.resize)

    async def resize(self, size: TerminalSize) -> None:
        self.sizes.append(size)


@pytest.fixture
def shell() -> Shell:
    return Shell()


async def test_it_follows_who_types(shell: Shell) -> None:
    await shell.window.active("laptop", LAPTOP)
    await shell.window.active("phone", PHONE)
    assert shell.window.size == PHONE
    await shell.window.active("laptop")
    await shell.window.active("laptop")
    assert shell.window.size == LAPTOP
    await shell.window.active("phone")
    assert shell.sizes == [LAPTOP, PHONE, LAPTOP, PHONE]


async def test_the_same_size_is_not_told_again(shell: Shell) -> None:
    await shell.window.active("laptop", LAPTOP)
    await shell.window.active("laptop", LAPTOP)
    await shell.window.active("another", LAPTOP)
    assert shell.sizes == [LAPTOP]


async def test_when_the_active_one_leaves_the_one_before_counts(shell: Shell) -> None:
    await shell.window.active("tablet", TerminalSize(100, 40))
    await shell.window.active("laptop", LAPTOP)
    await shell.window.active("phone", PHONE)
    assert not shell.window.left("tablet")
    assert shell.window.left("phone")
    await shell.window.fit()
    assert shell.window.size == LAPTOP
    assert not shell.window.left("laptop")
    await shell.window.fit()
    assert shell.sizes[-1] == LAPTOP


async def test_a_writer_without_a_size_changes_nothing(shell: Shell) -> None:
    await shell.window.active("laptop", LAPTOP)
    await shell.window.active("script")
    assert shell.sizes == [LAPTOP]
    assert not shell.window.left("script")
