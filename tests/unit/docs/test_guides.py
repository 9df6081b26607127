"""Running documentation: what counts as the same answer, and that the Dart of the API guide can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_dart
from tree_sitter import Language, Node, Parser

from tests.support.guides import Guide, dart_program, section
from tests.support.markdown import Block, blocks, differences

API = Path(__file__).parents[3] / "docs" / "api"

PAGE = """
# A page

```bash
echo 1
```

Some words.

```json
{"n": 1}
```

```js
two();
```

    not a block
"""


def json_differences(shown: str, came: str) -> list[str]:
    return differences(Block("json", shown, 1), came)


def test_blocks_have_the_answer_that_follows_them() -> None:
    first, second = blocks(PAGE)
    assert (first.language, first.text, first.line) == ("bash", "echo 1\n", 5)
    assert first.answer == Block("json", '{"n": 1}\n', 11)
    assert (second.language, second.answer) == ("js", None)


def test_a_second_answer_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="has an answer already"):
        blocks(PAGE.replace("```js\n", "```text\n"))


@pytest.mark.parametrize(
    ("shown", "came"),
    [
        ('{"a": 1, "b": [true, null]}', '{"b": [true, null], "a": 1}'),
        ('{"at": "2026-11-29T19:41:49.776000Z"}', '{"at": "2031-01-01T00:00:00Z"}'),
        ('{"id": "01a228d3f75074ef82b8abc3eb9f4cd1"}', '{"id": "ffffffffffffffffffffffffffffffff"}'),
        ('{"token": "eyJ…", "usage": 0.5, "duration_ms": 8}', '{"token": "eyJabc", "usage": 99.0, "duration_ms": 9}'),
        ('[1, "…"]', "[1, 2, 3]"),
    ],
)
def test_the_same_answer(shown: str, came: str) -> None:
    assert json_differences(shown, came) == []


@pytest.mark.parametrize(
    ("shown", "came"),
    [
        ('{"a": 1}', '{"a": 2}'),
        ('{"a": 1}', '{"a": 1, "b": 2}'),
        ('{"a": 1, "b": 2}', '{"a": 1}'),
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": 1}', '{"a": true}'),
        ('{"a": null}', '{"a": ""}'),
        ('{"status": "creating"}', '{"status": "running"}'),
        ('{"at": "2026-11-29T19:41:49.776000Z"}', '{"at": "yesterday"}'),
        ('{"token": "eyJ…"}', '{"token": "abc"}'),
        ("[1]", "[1, 2]"),
        ("[1, 2]", "[1]"),
        ("{}", "not JSON"),
    ],
)
def test_another_answer(shown: str, came: str) -> None:
    assert len(json_differences(shown, came)) == 1


def test_an_ellipsis_in_text_stands_for_anything() -> None:
    shown = Block("text", "link: <…>; rel\nend\n", 1)
    assert differences(shown, "link: </x?y>; rel\nend") == []
    assert differences(shown, "link: </x?y>; rel\n") != []


@pytest.mark.parametrize("page", ["README", "accounts", "environments", "terminal"])
def test_dart_can_be_read(page: str, tmp_path: Path) -> None:
    prelude = "" if page == "README" else section(API / "README.md", "A client")
    source = dart_program(Guide(API / f"{page}.md", "http://127.0.0.1:1", tmp_path, prelude).of("dart"))
    assert "class Api {" in source
    tree = Parser(Language(tree_sitter_dart.language())).parse(source.encode())
    lines = source.splitlines()
    assert [lines[node.start_point.row] for node in _mistakes(tree.root_node)] == []


def test_dart_that_cannot_be_read_is_found() -> None:
    tree = Parser(Language(tree_sitter_dart.language())).parse(b"void main() { final x = ; }")
    assert list(_mistakes(tree.root_node))


def _mistakes(node: Node) -> Iterator[Node]:
    if node.type == "ERROR" or node.is_missing:
        yield node
    for child in node.children:
        yield from _mistakes(child)
