"""Takes the holder's program into a workspace: a command that reads it, and the text it reads."""

from __future__ import annotations

import binascii
import json
import marshal
import zlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

_PACKAGE = "libs.runtime.holder.inside"
_MODULES = (
    *("ring", "wire", "loop", "numbers", "background"),
    *("processes", "attachment", "shell", "daemon", "client"),
)
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
# Modules are compiled when they are imported: most of the time a holder is there, and only `client` is needed.
_UNPACK = """
import binascii, marshal, sys, zlib
from _frozen_importlib import ModuleSpec
class Texts:
    texts = marshal.loads(zlib.decompress(binascii.a2b_base64({packed!r})))
    def find_spec(self, name, path=None, target=None):
        if name in self.texts:
            return ModuleSpec(name, self, is_package=not self.texts[name])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        exec(compile(self.texts[module.__name__], module.__name__, "exec"), module.__dict__)
sys.meta_path.insert(0, Texts())
from {package} import client
client.main({workspace!r}, {do!r}, {request!r})
"""

COMMAND = ("/bin/sh", "-c", _LOCATE, "devpocket-holder", _READ)
"""What to execute in a workspace, without a terminal, to reach its holder."""


def introduction(workspace: str, do: str, request: Mapping[str, Any]) -> bytes:
    """The first input of `COMMAND`, about 12 KiB: to `open` or `attach` to a shell. Frames follow it."""
    text = _UNPACK.format(
        packed=packed(),
        package=_PACKAGE,
        workspace=workspace,
        do=do,
        request=json.dumps({"do": do, **request}),
    ).encode()
    return b"%08d" % len(text) + text


@cache
def packed() -> str:
    """The modules that run inside, by name."""
    texts = {}
    words = _PACKAGE.split(".")
    for count in range(1, len(words) + 1):
        texts[".".join(words[:count])] = ""
    for name in _MODULES:
        texts[f"{_PACKAGE}.{name}"] = (files(_PACKAGE) / f"{name}.py").read_text()
    # Version 2 is read by every Python 3.
    return binascii.b2a_base64(zlib.compress(marshal.dumps(texts, 2), 9), newline=False).decode()
