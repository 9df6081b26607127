"""What the code may answer: problem codes, reasons and close codes, read from the code itself."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from libs.common.errors import DevPocketError
from libs.common.http.problems import STATUS_OF

ROOT = Path(__file__).parents[3]

_REASON = re.compile(r"[A-Z][a-z]+[A-Z]\w*|OOMKilled|Evicted|Preempting|Terminated|Shutdown|Unschedulable|Abandoned")
# CamelCase in the same places that is no reason of ours: kinds, conditions and events of Kubernetes.
_NOT_REASONS = frozenset(
    {
        *("EvictionByEvictionAPI", "TerminationByKubelet", "PreemptionByScheduler", "DeletionByTaintManager"),
        *("DeletionByPodGC", "FailedMount", "FailedAttachVolume", "FailedBinding", "ProvisioningFailed"),
        *("VolumeResizeFailed", "FailedMapVolume", "ContainerCannotRun"),
    }
)
_CARRIERS = frozenset({"Trouble", "ObservedWorkspace", "CheckResult", "RuntimeUnavailableError"})


def problem_codes() -> set[str]:
    """Every `code` of a problem: of error classes, of answers made in place, and of the gateway."""
    found = {value for tree in _trees("libs", "services") for value in _class_values(tree, "code")}
    for tree in _trees("libs/common/http", "services"):
        for call in _calls(tree, {"problem_response", "_answer"}):
            found |= {text for text in _texts(call) if re.fullmatch(r"[a-z]+(_[a-z]+)+|unavailable", text)}
    found |= {"not_found", "method_not_allowed"}  # what routing says, by HTTPStatus
    assert all(HTTPStatus[code.upper()] for code in ("not_found", "method_not_allowed"))
    template = (ROOT / "deploy" / "gateway" / "nginx.conf.j2").read_text()
    found.discard("request_id")  # a field, not a code
    found |= set(re.findall(r'"code":"(\w+)"', template))
    return found | set(re.findall(r'^    \(\d{3}, "[^"]+", "(\w+)",', template, re.MULTILINE))


def statuses() -> set[tuple[str, str]]:
    """Each code of an error class with the HTTP status that it is answered with."""
    for service in ("auth", "envs", "orchestrator", "terminal"):
        importlib.import_module(f"services.{service}.main")
    errors = [error for error in _below(DevPocketError) if error.__module__.partition(".")[0] != "tests"]
    return {(error.code, str(_status_of(error))) for error in errors if "code" in vars(error)}


def _status_of(error: type[DevPocketError]) -> int:
    files = importlib.import_module("services.terminal.api.files")
    own: int | None = files._STATUSES.get(error, getattr(error, "status", None))
    return STATUS_OF[error.kind] if own is None else own


def _below(error: type[DevPocketError]) -> Iterator[type[DevPocketError]]:
    yield error
    for inner in error.__subclasses__():
        yield from _below(inner)


def reasons() -> set[str]:
    """Every CamelCase `reason` of a report about an environment or of a driver's error."""
    found: set[str] = set()
    for tree in _trees("libs/runtime", "services/orchestrator"):
        found |= set(_class_values(tree, "reason"))
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "reason":
                found |= set(_texts(node.value))
            elif isinstance(node, ast.Call) and _name(node.func) in _CARRIERS:
                found |= {text for argument in node.args for text in _texts(argument)}
            elif isinstance(node, ast.Return | ast.Assign) and isinstance(node.value, ast.Tuple | ast.BoolOp):
                found |= set(_texts(node.value))
            elif isinstance(node, ast.Dict):
                found |= {text for key in node.keys if key is not None for text in _texts(key)}
    return {text for text in found if _REASON.fullmatch(text)} - _NOT_REASONS - _kinds()


def closings() -> set[tuple[str, str]]:
    """Every close of a WebSocket from our side: its number, and the code in the `error` frame before it."""
    found = set()
    for tree in _trees("services/terminal"):
        for call in _calls(tree, {"Closing"}):
            number, *rest = call.args
            if isinstance(number, ast.Constant) and isinstance(number.value, int):
                code = rest[0]
                word = code.value if isinstance(code, ast.Constant) else "unavailable"
                found.add((str(number.value), str(word)))
    return found


def frame_errors() -> set[str]:
    """Every `code` of an `error` frame after which the connection goes on."""
    found: set[str] = set()
    for tree in _trees("services/terminal"):
        for call in _calls(tree, {"FrameError", "error", "drop", "_whole"}):
            found |= set(_texts(call))
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
                found |= set(_texts(node.value))
    return {text for text in found if text.startswith(("invalid_", "input_", "unknown_", "rate_"))} - {"input_seq"}


def _kinds() -> set[str]:
    """Keys of manifests, which are CamelCase too."""
    trees = _trees("libs/runtime/kubernetes/manifests")
    return {text for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Dict) for text in _texts(node)}


def _trees(*folders: str) -> Iterator[ast.Module]:
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield _parsed(file)


@functools.cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _calls(tree: ast.AST, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in names:
            yield node


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _class_values(tree: ast.AST, name: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else ()
            annotated = [statement.target] if isinstance(statement, ast.AnnAssign) else []
            if any(isinstance(target, ast.Name) and target.id == name for target in (*targets, *annotated)):
                yield from _texts(statement)


def _texts(node: ast.AST) -> list[str]:
    constants = (found for found in ast.walk(node) if isinstance(found, ast.Constant))
    return [found.value for found in constants if isinstance(found.value, str)]
