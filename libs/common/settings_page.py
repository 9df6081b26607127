"""The configuration reference as Markdown, made from the settings classes so that it cannot say anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

_UNITS = ("bytes_per_second", "per_second", "milliseconds", "seconds", "minutes", "hours", "days", "bytes")
_BOUNDS: tuple[tuple[type, str, str], ...] = ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))

_INTRODUCTION = """# Configuration

Generated from the settings classes by `make contracts`; do not edit. Settings come from the environment, or from a
`.env` file in the working directory; the environment wins. A value that does not fit stops the start and says why.
**secret**: never in logs, answers or events; keep it in a Secret, not in `settings.env`. *tuning*: not in
[.env.example](../../.env.example), because the default was measured and few have a reason to change it.
`devpocket up` makes a SECRET_KEY and the three URLs by itself, and has defaults of its own for what depends on its
folder and port; .env.example says which."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of the reference. `readers` are who reads it, `kind` its type with the unit that its name carries."""

    name: str
    kind: str
    default: str
    readers: tuple[str, ...]
    description: str
    bounds: str = ""
    is_secret: bool = False


def settings_of(classes: Mapping[str, type[BaseSettings]]) -> list[Setting]:
    """All fields, once each, with the services that have them. Raises ValueError for one that says nothing."""
    readers: dict[str, list[str]] = {}
    fields: dict[str, FieldInfo] = {}
    for service, settings in classes.items():
        for name, field in settings.model_fields.items():
            readers.setdefault(name, []).append(service)
            fields.setdefault(name, field)
    return [_setting(name, field, tuple(readers[name])) for name, field in fields.items()]


def settings_page(settings: Sequence[Setting], *, explained: frozenset[str]) -> str:
    """The page. `explained` are the names that `.env.example` has; the others are marked as for tuning."""
    groups: dict[tuple[str, ...], list[Setting]] = {}
    for setting in settings:
        groups.setdefault(setting.readers, []).append(setting)
    return "\n".join(_lines(groups, explained))


def _lines(groups: Mapping[tuple[str, ...], list[Setting]], explained: frozenset[str]) -> Iterator[str]:
    yield _INTRODUCTION
    for readers, settings in groups.items():
        yield ""
        yield f"## Read by {_enumeration(readers)}"
        yield ""
        yield "| setting | type | default | range | what it is |"
        yield "| --- | --- | --- | --- | --- |"
        for setting in settings:
            marks = [
                *(["**secret**"] if setting.is_secret else []),
                *([] if setting.name in explained else ["*tuning*"]),
            ]
            what = " · ".join([setting.description, *marks])
            yield f"| `{setting.name}` | {setting.kind} | {setting.default} | {setting.bounds} | {what} |"
    yield ""


def _enumeration(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _setting(name: str, field: FieldInfo, readers: tuple[str, ...]) -> Setting:
    if not field.description:
        raise ValueError(f"the setting {name.upper()} has no description: Field(description=…) says what it is")
    return Setting(
        name=name.upper(),
        kind=_kind(name, field.annotation),
        default=_default(field),
        readers=readers,
        description=_prose(field.description),
        bounds=_cell(_bounds(field)),
        is_secret=SecretStr in _members(field.annotation),
    )


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union without None; else the one type."""
    if get_origin(annotation) in {Union, UnionType}:
        return tuple(member for member in get_args(annotation) if member is not NoneType)
    return (annotation,)


def _kind(name: str, annotation: Any) -> str:
    (member, *_) = _members(annotation)
    unit = next((unit.replace("_", " ") for unit in _UNITS if name.endswith(unit)), "")
    if member is bool:
        return "true or false"
    if member in {int, float}:
        number = "whole number" if member is int else "number"
        return f"{number} ({unit})" if unit else number
    if get_origin(member) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(member))
    if isinstance(member, type) and issubclass(member, Enum):
        return ", ".join(f"`{value.value}`" for value in member)
    if member is Path:
        return "path"
    return {list: "list, commas between", tuple: "list, commas between", dict: "pairs, commas between"}.get(
        get_origin(member) or member, "text"
    )


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        # Lists and mappings begin empty; anything else is computed on the machine, as the description says.
        return "empty" if field.default_factory in {list, dict} else "computed"
    if field.default is PydanticUndefined:
        return "none: must be set"
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return "unset"
    if value in {"", ()}:
        return "empty"
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`"


def _bounds(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(constraint, attribute)}"
        for constraint in field.metadata
        for kind, attribute, sign in _BOUNDS
        if isinstance(constraint, kind)
    ]
    patterns = [f"`{pattern}`" for item in field.metadata if (pattern := getattr(item, "pattern", None))]
    return ", ".join(found + patterns)


def _prose(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"[<*|]", r"\\\g<0>", text)


def _cell(code: str) -> str:
    return code.replace("|", "\\|")
