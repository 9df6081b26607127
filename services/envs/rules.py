"""What names, variables and texts must look like. Pure; every check raises ValueError with a sentence that helps."""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_NAME_CHARS = 50
MAX_DESCRIPTION_CHARS = 500
MAX_STARTUP_COMMAND_CHARS = 4096
MAX_VARIABLES = 100
MAX_VARIABLE_NAME_CHARS = 256
MAX_VARIABLE_BYTES = 32 * 1024
# All of them travel in one event, which must stay well below the broker's largest message of 1 MiB.
MAX_VARIABLES_BYTES = 128 * 1024

# A DNS label, RFC 1123 section 2.1: the name may become part of a host name.
_NAME = re.compile(r"^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$")
# POSIX.1-2017, base definitions 8.1: what a shell can assign.
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
# An image by name, tag or digest: https://github.com/distribution/reference, loosely.
IMAGE = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}$"
_RESERVED_PREFIXES = ("LD_", "DEVPOCKET_")
# Below these not even a shell starts.
MIN_CPU_MILLIS = 10
MIN_MEMORY_BYTES = 16 << 20
MIN_STORAGE_BYTES = 1 << 20


def normalize_name(raw: str) -> str:
    """The name in lower case, if it is a DNS label of 1 to 50 characters."""
    name = raw.strip().lower()
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise ValueError(f"Name must have 1 to {MAX_NAME_CHARS} characters")
    if name.startswith("-") or name.endswith("-"):
        raise ValueError("Name cannot start or end with a hyphen")
    if "_" in name:
        raise ValueError(f"Name must not contain underscores; try '{name.replace('_', '-').strip('-') or 'my-env'}'")
    if not _NAME.fullmatch(name):
        raise ValueError("Name may contain only letters a-z, digits and hyphens")
    return name


def check_variables(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Environment variables that a user may set. The message never holds a value."""
    if len(variables) > MAX_VARIABLES:
        raise ValueError(f"At most {MAX_VARIABLES} environment variables are allowed")
    total = 0
    for name, value in variables.items():
        shown = name[:40]
        if len(name) > MAX_VARIABLE_NAME_CHARS or not _VARIABLE.fullmatch(name):
            raise ValueError(f"'{shown}' is no variable name: use letters, digits and underscores, no digit first")
        if name.startswith(_RESERVED_PREFIXES):
            raise ValueError(f"'{shown}' is reserved: names must not begin with LD_ or DEVPOCKET_")
        if "\0" in value:
            raise ValueError(f"The value of '{shown}' must not contain a zero byte")
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise ValueError(f"The value of '{shown}' is not valid Unicode text") from error
        if size > MAX_VARIABLE_BYTES:
            raise ValueError(f"The value of '{shown}' is larger than {MAX_VARIABLE_BYTES} bytes")
        total += len(name) + size
    if total > MAX_VARIABLES_BYTES:
        raise ValueError(f"All environment variables together are larger than {MAX_VARIABLES_BYTES} bytes")
    return variables


def check_text(text: str) -> str:
    """Text that can be stored, sent and handed to a shell."""
    if "\0" in text:
        raise ValueError("Text must not contain a zero byte")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("Text is not valid Unicode") from error
    return text
