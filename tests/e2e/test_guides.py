"""The examples of README and of the API guide do what the pages say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.guides import Guide, has_dart, node_options, section, wrong
from tests.support.stack import LocalStack

ROOT = Path(__file__).parents[2]
API = ROOT / "docs" / "api"
PAGES = ("README", "accounts", "environments", "terminal")


def guide(page: str, stack: LocalStack, folder: Path) -> Guide:
    """A page of the API guide, behind the client that all of them go on from."""
    file = API / f"{page}.md"
    return Guide(file, stack.url, folder, "" if page == "README" else section(API / "README.md", "A client"))


async def test_first_session_of_readme(stack: LocalStack, tmp_path: Path) -> None:
    page = Guide(ROOT / "README.md", stack.url, tmp_path)
    answer = page.of("bash")[-1].answer
    assert answer is not None
    shown = [(line[0], line[2:]) for line in answer.text.splitlines()]
    async with page.talking() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        seen = Seen()
        for who, text in shown:
            if who == ">":
                process.stdin.write(f"{text}\n".encode())
            else:
                frame = json.loads(text)
                while seen.offset < frame["offset"] or not seen.is_ready:
                    seen.line((await process.stdout.readline()).decode())
        process.stdin.close()
    frames = [json.loads(text) for who, text in shown if who == "<"]
    assert seen.text == "".join(frame["data"] for frame in frames if frame["type"] == "output")
    assert seen.fields == set(frames[0])


class Seen:
    """What a terminal has said, as the program `websockets` shows it."""

    def __init__(self) -> None:
        self.fields: set[str] = set()
        self.text = ""
        self.offset = 0

    @property
    def is_ready(self) -> bool:
        """Whether the first frame is there."""
        return bool(self.fields)

    def line(self, line: str) -> None:
        """One line of the program's output; not all are frames."""
        assert line, f"the program has ended after {self.text!r}"
        _, mark, frame = line.partition("< {")
        if not mark:
            return
        fields = json.loads("{" + frame)
        if fields["type"] == "ready":
            self.fields = set(fields)
        else:
            self.text += fields["data"]
            self.offset = fields["offset"]


@pytest.mark.parametrize("page", PAGES)
async def test_curl(page: str, stack: LocalStack, tmp_path: Path) -> None:
    shown = guide(page, stack, tmp_path)
    assert wrong(*await shown.bash()) == []


async def test_security_checklist(stack: LocalStack, tmp_path: Path) -> None:
    page = Guide(ROOT / "docs" / "operations" / "security.md", stack.url, tmp_path)
    assert wrong(*await page.bash()) == []


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.skipif(node_options() is None, reason="no node that knows WebSocket")
async def test_javascript(page: str, stack: LocalStack, tmp_path: Path) -> None:
    shown = guide(page, stack, tmp_path)
    assert wrong(*await shown.javascript()) == []


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.skipif(not has_dart(), reason="no Dart SDK; tests/unit/docs checks the syntax")
async def test_dart(page: str, stack: LocalStack, tmp_path: Path) -> None:
    shown = guide(page, stack, tmp_path)
    assert wrong(*await shown.dart()) == []
