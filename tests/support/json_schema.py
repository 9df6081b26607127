"""As much of JSON Schema as our contracts use; an unknown keyword is an error, so that nothing passes unseen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
_SAYS_NOTHING = frozenset({"title", "description", "default", "format"})


def resolve(document: dict[str, Any], reference: str) -> Any:
    """What a reference within the document means. Raises KeyError."""
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def complaints(value: Any, schema: dict[str, Any], document: dict[str, Any], where: str = "$") -> Iterator[str]:
    """What of `value` the schema does not allow. References are looked up in `document`."""
    for keyword, wanted in schema.items():
        match keyword:
            case "$ref":
                yield from complaints(value, resolve(document, wanted), document, where)
            case "allOf":
                for part in wanted:
                    yield from complaints(value, part, document, where)
            case "anyOf":
                if all(any(complaints(value, part, document)) for part in wanted):
                    yield f"{where}: {value!r} fits none of {wanted}"
            case "properties":
                for name in wanted.keys() & (value if isinstance(value, dict) else {}):
                    yield from complaints(value[name], wanted[name], document, f"{where}.{name}")
            case "items":
                for index, item in enumerate(value if isinstance(value, list) else []):
                    yield from complaints(item, wanted, document, f"{where}[{index}]")
            case _ if keyword not in _SAYS_NOTHING and not _holds(keyword, wanted, value):
                yield f"{where}: {value!r} against {keyword} {wanted!r}"


def _holds(keyword: str, wanted: Any, value: Any) -> bool:
    match keyword:
        case "type":
            return _TYPES[wanted](value)
        case "const":
            return bool(value == wanted)
        case "enum":
            return value in wanted
        case "required":
            return not isinstance(value, dict) or set(wanted) <= value.keys()
        case "pattern":
            return not isinstance(value, str) or re.search(wanted, value) is not None
        case "minLength":
            return not isinstance(value, str) or len(value) >= wanted
        case "additionalProperties" if wanted is True or not isinstance(value, dict):
            return True
    raise NotImplementedError(f"JSON Schema keyword {keyword}: {wanted!r}")
