"""Takes the holder's program into a workspace: a command that reads it, and the text it reads."""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache
from importlib.resources import files
from typing import Any

_PACKAGE = "libs.runtime.holder.inside"
_MODULES = ("ring", "wire", "loop", "processes", "attachment", "shell", "daemon", "client")
# The program comes as input: as an argument it would be too long for some of the proxies in front of clusters. The
# user's own Python comes last: it may be broken.
_LOCATE = """
for python in /usr/bin/python3 /usr/local/bin/python3 "$(command -v python3)"; do
    [ -x "$python" ] && exec "$python" -I -S -c "$1" devpocket-holder
done
echo '{"refused":"no_python"}' >&2
"""
_READ = """import os
def read(count):
    text = b""
    while len(text) < count:
        part = os.read(0, count - len(text))
        if not part:
            os._exit(0)
        text += part
    return text
exec(read(int(read(8))))"""
_UNPACK = """
import base64, json, sys, types, zlib
for name, text in json.loads(zlib.decompress(base64.b64decode({packed!r}))).items():
    module = sys.modules[name] = types.ModuleType(name)
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, module)
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules[{package!r}].client.main(json.loads({request!r}))
"""

COMMAND = ("/bin/sh", "-c", _LOCATE, "devpocket-holder", _READ)
"""What to execute in a workspace, without a terminal, to reach its holder."""


def introduction(request: dict[str, Any]) -> bytes:
    """The first input of `COMMAND`, about 12 KiB. Frames follow it."""
    text = _UNPACK.format(packed=_packed(), package=_PACKAGE, request=json.dumps(request)).encode()
    return b"%08d" % len(text) + text


@cache
def _packed() -> str:
    texts = {}
    words = _PACKAGE.split(".")
    for count in range(1, len(words) + 1):
        texts[".".join(words[:count])] = ""
    for name in _MODULES:
        texts[f"{_PACKAGE}.{name}"] = (files(_PACKAGE) / f"{name}.py").read_text()
    return base64.b64encode(zlib.compress(json.dumps(texts).encode(), 9)).decode()
