"""Lists in pages: what the document says about the header that leads on."""

from __future__ import annotations

from typing import Any

LINK_TO_NEXT: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"Link": {"description": 'The next page, rel="next"', "schema": {"type": "string"}}}}
}
"""For the `responses=` of a route whose answer has `Link: <…>; rel="next"` when there is more."""
