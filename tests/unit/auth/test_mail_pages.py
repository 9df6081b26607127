"""The pages that links in mails lead to: what a browser lets them do."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from services.auth.pages import Page, confirm_email_page, new_password_page

PAGES = [confirm_email_page, new_password_page]
each_page = pytest.mark.parametrize("make", PAGES)


class Elements(HTMLParser):
    """All elements of a page, as (tag, attributes)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.all if tag in tags]


def directives(page: Page) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in page.csp.split(";"))
    return {name: value for name, _, value in parts}


@each_page
class TestPolicy:
    def test_allows_its_own_script_and_style_and_calls_home_only(self, make: Callable[[], Page]) -> None:
        page = make()
        (nonce,) = {attributes["nonce"] for attributes in Elements(page.html).of("script", "style")}
        assert nonce
        assert len(nonce) >= 22
        assert directives(page) == {
            "default-src": "'none'",
            "script-src": f"'nonce-{nonce}'",
            "style-src": f"'nonce-{nonce}'",
            "connect-src": "'self'",
            "frame-ancestors": "'none'",
            "base-uri": "'none'",
            "form-action": "'none'",
        }
        assert page.headers["Content-Security-Policy"] == page.csp
        assert (page.headers["Referrer-Policy"], page.headers["Cache-Control"]) == ("no-referrer", "no-store")

    def test_every_answer_has_a_nonce_of_its_own(self, make: Callable[[], Page]) -> None:
        assert make().csp != make().csp

    def test_has_nothing_that_the_policy_blocks(self, make: Callable[[], Page]) -> None:
        page = make()
        for tag, attributes in Elements(page.html).all:
            assert not {"src", "href", "style", "action"} & set(attributes), tag
            assert not [name for name in attributes if name.startswith("on")], tag
        assert "://" not in page.html

    def test_answers_are_shown_as_text(self, make: Callable[[], Page]) -> None:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\$", make().html)


@each_page
class TestReadable:
    def test_on_a_phone_in_the_dark_and_aloud(self, make: Callable[[], Page]) -> None:
        html = make().html
        elements = Elements(html)
        assert elements.of("html") == [{"lang": "en"}]
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in elements.of("meta")
        assert "prefers-color-scheme: dark" in html
        assert [a["role"] for a in elements.of("p") if a.get("id") == "status"] == ["status"]
        assert len(elements.of("h1")) == len(elements.of("title")) == len(elements.of("button")) == 1


def test_confirming_posts_the_token_alone() -> None:
    elements = Elements(confirm_email_page().html)
    assert elements.of("form") == [{"method": "post", "data-post": "/api/v1/auth/verify-email"}]
    assert elements.of("input") == []


def test_the_new_password_has_a_label_and_its_rules() -> None:
    page = new_password_page()
    elements = Elements(page.html)
    assert elements.of("form") == [{"method": "post", "data-post": "/api/v1/auth/reset-password"}]
    (field,) = [a for a in elements.of("input") if "name" in a]
    assert (field["name"], field["type"], field["autocomplete"]) == ("new_password", "password", "new-password")
    # Longer ones are refused, never cut.
    assert (field["minlength"], "maxlength" in field) == ("8", False)
    assert field["id"] in {a.get("for") for a in elements.of("label")}
    assert field["aria-describedby"] in {a.get("id") for a in elements.of("ul")}
    assert "8 to 100 characters" in page.html
