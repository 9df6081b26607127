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
# [HOST[:PORT]/]PATH[:TAG][@DIGEST], as https://github.com/distribution/reference has it and nodes take it.
_HOST_PART = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE_NAME = re.compile(rf"(?:{_HOST}/)?{_PATH_PART}(?:/{_PATH_PART})*")
_IMAGE_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IMAGE_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[+._-][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}")
MAX_IMAGE_CHARS = 512
MAX_IMAGE_NAME_CHARS = 255
MAX_REGION_CHARS = 50
_IMAGE_FORM = "[HOST[:PORT]/]NAME[:TAG][@DIGEST], e.g. registry.example.org/team/python:3.12"
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


def normalize_region(raw: str) -> str:
    """The region in lower case, if it is a DNS label of 1 to 50 characters."""
    region = raw.strip().lower()
    if not 1 <= len(region) <= MAX_REGION_CHARS or not _NAME.fullmatch(region):
        raise ValueError(
            f"A region has 1 to {MAX_REGION_CHARS} letters a-z, digits and hyphens, no hyphen first or last, "
            "e.g. 'eu-west'; leave it out for any region"
        )
    return region


def check_image(raw: str) -> str:
    """A reference that a node can try to fetch, judged by its form alone."""
    image = raw.strip()
    if len(image) > MAX_IMAGE_CHARS:
        raise ValueError(f"An image reference must not be longer than {MAX_IMAGE_CHARS} characters")
    rest, has_digest, digest = image.partition("@")
    name, colon, tag = rest.rpartition(":")
    # A colon before the last slash is that of a port.
    has_tag = bool(colon) and "/" not in tag
    if not has_tag:
        name = rest
    if len(name) > MAX_IMAGE_NAME_CHARS:
        raise ValueError(f"An image's name, without tag and digest, has at most {MAX_IMAGE_NAME_CHARS} characters")
    if not _IMAGE_NAME.fullmatch(name):
        hint = "; names are in lower case" if _IMAGE_NAME.fullmatch(name.lower()) else ""
        raise ValueError(f"{image[:80]!r} is no image reference{hint}: write {_IMAGE_FORM}")
    if has_tag and not _IMAGE_TAG.fullmatch(tag):
        raise ValueError(f"{tag[:80]!r} is no tag of an image: it has 1 to 128 letters, digits, '_', '.' and '-'")
    if has_digest and not _IMAGE_DIGEST.fullmatch(digest):
        raise ValueError(f"{digest[:80]!r} is no digest of an image: write sha256: and 64 hexadecimal digits")
    return image


def check_variables(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Environment variables that a user may set. The message never holds a value."""
    if len(variables) > MAX_VARIABLES:
        raise ValueError(f"At most {MAX_VARIABLES} environment variables are allowed")
    total = 0
    for name, value in variables.items():
        # Half a surrogate pair, which JSON can name, fits into no answer.
        shown = name[:40].encode(errors="replace").decode()
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
