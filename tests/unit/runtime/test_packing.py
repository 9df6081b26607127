"""What travels into a workspace stands on its own there."""

from __future__ import annotations

import ast
import binascii
import marshal
import sys
import zlib

import pytest

from libs.runtime.holder import packing

_TEXTS: dict[str, str] = marshal.loads(zlib.decompress(binascii.a2b_base64(packing.packed())))


@pytest.mark.parametrize("name", sorted(name for name, text in _TEXTS.items() if text))
def test_each_module_needs_an_old_python_and_nothing_that_is_not_there(name: str) -> None:
    tree = ast.parse(_TEXTS[name], feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            wanted = [f"{module}.{alias.name}" for alias in node.names] if module in _TEXTS else [module]
        elif isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        else:
            continue
        for module in wanted:
            is_carried = module in _TEXTS or module.rpartition(".")[0] in _TEXTS
            assert is_carried or module.partition(".")[0] in sys.stdlib_module_names, module


def test_it_is_small_enough_for_the_first_input_of_a_process() -> None:
    assert len(packing.introduction("e", "open", {})) < 32 * 1024
