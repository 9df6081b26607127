"""Runs a script of deploy/scripts against the stand-in of a cluster, or gives it as a module."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from tests.unit.deploy import kubectl
from tests.unit.deploy.manifests import ROOT, builder

_EMPTY: dict[str, Any] = {
    **{"calls": [], "restarted": [], "statefulsets": [], "deployments": {}, "broken": []},
    **{"namespace": False, "secret": None, "refuses": False, "mongodb": ""},
}


def loaded(name: str) -> ModuleType:
    """A Python script of deploy/scripts as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Cluster:
    """A stand-in of its own, and what was done to it."""

    def __init__(self, folder: Path) -> None:
        self._place = folder / "state.json"
        self._programs = folder / "bin"
        self._programs.mkdir()
        program = self._programs / "kubectl"
        # Without `site` it starts in half the time.
        python, packages = shlex.quote(sys.executable), shlex.quote(str(Path(yaml.__file__).parents[1]))
        script = shlex.quote(kubectl.__file__)
        program.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {python} -S {script} "$@"\n')
        program.chmod(0o755)
        self._place.write_text(json.dumps(_EMPTY))

    def change(self, **values: Any) -> None:
        """Make it as it has to be for a test."""
        self._place.write_text(json.dumps({**self.state, **values}))

    @property
    def state(self) -> dict[str, Any]:
        """See the stand-in."""
        return dict(json.loads(self._place.read_text()))

    @property
    def secret(self) -> dict[str, str]:
        """What is in the Secret."""
        return kubectl.decoded(self.state)

    @property
    def images(self) -> dict[str, str]:
        """What each Deployment runs."""
        return {name: deployment["templates"][-1] for name, deployment in self.state["deployments"].items()}

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The script, ended."""
        if script == "deploy.sh":
            self.change(kustomize=builder())
        path = f"{self._programs}:{os.environ['PATH']}"
        return subprocess.run(
            [str(ROOT / "deploy" / "scripts" / script), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": path, "KUBECTL_STATE": str(self._place), **environment},
        )
