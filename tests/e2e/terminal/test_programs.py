"""vim, htop and tmux, on the screen of a person who works with them. `make test` installs them where it can."""

from __future__ import annotations

import hashlib
import os

import pytest

from tests.support.phone import Phone
from tests.support.screen import ScreenTerminal, screen

pytestmark = pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])

_ESCAPE = "\x1b"
_PREFIX = "\x02"


def needs(program: str) -> pytest.MarkDecorator:
    """An environment of the local runtime sees this machine's /usr."""
    missing = not os.path.exists(f"/usr/bin/{program}")
    return pytest.mark.skipif(missing, reason=f"{program} is not installed: make test needs root and apt for it")


async def at_prompt(terminal: ScreenTerminal) -> None:
    """A prompt that cannot be taken for anything else."""
    await terminal.type("PS1='go''ahead> '; clear\n")
    await terminal.until("^goahead>$")


@needs("vim")
async def test_vim_edits_and_saves(alice: Phone, environment_id: str, binary: bool) -> None:
    async with screen(alice, environment_id, binary=binary) as terminal:
        await at_prompt(terminal)
        await terminal.type("vim -u DEFAULTS -i NONE note.txt\n")
        await terminal.until(r'"note\.txt" \[New')
        await terminal.type("i")
        await terminal.until("-- INSERT --")
        await terminal.type("straße 😀\rsecond line")
        await terminal.until("^second line$")
        assert terminal.lines[0].startswith("straße")
        await terminal.type(_ESCAPE)
        await terminal.until_so(lambda: not terminal.shows("INSERT"), "back in normal mode")
        await terminal.type(":wq\r")
        await terminal.until("^goahead>")
    assert await alice.run(environment_id, "cat note.txt") == "0|straße 😀\nsecond line"


@needs("vim")
async def test_vim_takes_a_paste_as_it_is(alice: Phone, environment_id: str, binary: bool) -> None:
    """In bracketed paste, which vim switches on: nothing of it is a command, and nothing is indented."""
    lines = [f"    line {number:06d} :q! \tof what is pasted {'x' * (number % 50)}" for number in range(500)]
    pasted = "\r".join(lines)
    async with screen(alice, environment_id, binary=binary) as terminal:
        await at_prompt(terminal)
        await terminal.type("vim -u DEFAULTS -i NONE paste.txt\n")
        await terminal.until(r'"paste\.txt" \[New')
        assert "\x1b[?2004h" in terminal.output
        await terminal.type("i")
        await terminal.until("-- INSERT --")
        whole = f"{_ESCAPE}[200~{pasted}{_ESCAPE}[201~"
        await terminal.type(whole)
        await terminal.until("line 000499 :q!")
        await terminal.type(_ESCAPE)
        await terminal.until_so(lambda: not terminal.shows("INSERT"), "back in normal mode")
        await terminal.type(":wq\r")
        await terminal.until("^goahead>")
    digest = hashlib.sha256(("\n".join(lines) + "\n").encode()).hexdigest()
    assert await alice.run(environment_id, "sha256sum < paste.txt") == f"0|{digest}  -"


@needs("htop")
async def test_htop_fits_its_window_and_quits(alice: Phone, environment_id: str, binary: bool) -> None:
    async with screen(alice, environment_id, binary=binary, cols=100, rows=30) as terminal:
        await at_prompt(terminal)
        await terminal.type("htop\n")
        await terminal.until("Tasks:.*running")
        await terminal.until("PID.*USER")
        await terminal.until_so(lambda: "F10" in terminal.lines[-1], "keys in the last line")
        await terminal.resize(120, 40)
        with_keys = [False] * 39 + [True]
        await terminal.until_so(lambda: ["F10" in line for line in terminal.lines] == with_keys, "keys in line 40 only")
        await terminal.type("q")
        await terminal.until_so(lambda: terminal.shows("^goahead>") and not terminal.shows("F10"), "htop gone")


@needs("tmux")
async def test_tmux_splits_detaches_and_attaches(alice: Phone, environment_id: str, binary: bool) -> None:
    async with screen(alice, environment_id, binary=binary) as terminal:
        await at_prompt(terminal)
        await terminal.type("tmux -f /dev/null new -s work\n")
        await terminal.until(r"^\[work\]")
        await terminal.type(_PREFIX + "%")
        await terminal.until_so(lambda: all(line[40:41] == "│" for line in terminal.lines[:-1]), "two panes")
        await terminal.type("echo in-$((40+2))\n")
        await terminal.until("│in-42")
        await terminal.type(_PREFIX + "d")
        await terminal.until(r"^\[detached \(from session work\)\]")
    async with screen(alice, environment_id, binary=binary) as again:
        await at_prompt(again)
        await again.type("tmux attach -t work\n")
        await again.until("│in-42")
        await again.type(_PREFIX + "o")
        await again.type("echo left-$((40+2))\n")
        await again.until("^left-42 +│")
        await again.type("tmux kill-server\n")
        await again.until(r"^\[(server )?exited\]")
