"""Links between pages lead somewhere, to the heading as well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub makes links of them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    words = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title).lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in words}


def broken(page: Path) -> list[str]:
    """Its links that lead nowhere."""
    found = []
    for link in _LINK.findall(re.sub(r"`[^`\n]*`", "", page.read_text())):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def test_pages_are_found() -> None:
    assert {ROOT / "README.md", ROOT / "docs" / "operations" / "runbooks.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_every_page_of_operations_is_in_the_index() -> None:
    folder = ROOT / "docs" / "operations"
    listed = set(re.findall(r"\]\((\w+\.md)\)", (folder / "README.md").read_text()))
    assert {page.name for page in folder.glob("*.md")} - listed == {"README.md"}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `page`, *here*\n[a](page.md#a-page-here) [b](#nowhere) [c](missing.md) `[d](no)` [e](https://x)\n"
    )
    assert broken(page) == ["#nowhere", "missing.md"]
