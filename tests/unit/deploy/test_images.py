"""The images, without an engine: their files build with any builder, and hold what their service imports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.unit.deploy.manifests import ROOT

DOCKERFILES = (ROOT / "deploy" / "Dockerfile", ROOT / "deploy" / "gateway" / "Dockerfile")
SCRIPTS = ROOT / "deploy" / "scripts"
SERVICES = ("auth", "envs", "orchestrator", "terminal")
# What each of them runs, and for the command what it loads when it is asked to.
PROGRAMS = {
    **{service: f"import services.{service}.main" for service in SERVICES},
    "cli": "import libs.cli.main, services.auth.commands, services.envs.commands, services.orchestrator.commands",
}
KUBERNETES = "import kubernetes, libs.runtime.kubernetes.runtime; print(kubernetes.__file__)"


def instructions(dockerfile: Path) -> list[str]:
    """Each on one line, without comments."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    return [text for text in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines() if text]


def assembled(service: str, target: Path) -> Path:
    subprocess.run([SCRIPTS / "assemble.sh", service, ROOT, target], check=True)
    return target


def start(program: str, *places: Path) -> subprocess.Popen[str]:
    """Python that finds the code in `places` before the working copy."""
    environment = {**os.environ, "PYTHONPATH": ":".join(map(str, places)), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program],
        cwd="/",
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_any_builder_can_build_it(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    assert not text.startswith("# syntax"), "an engine without a registry cannot fetch another front end"
    for instruction in instructions(dockerfile):
        assert not re.search(
            r"--(mount|chmod|link|network|security|exclude|parents)\b|<<-?['\"]?[A-Z]+", instruction
        ), instruction
        if instruction.startswith("RUN "):
            checked = subprocess.run(["sh", "-n", "-c", instruction[4:]], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_it_runs_as_a_numbered_user_and_can_be_probed(dockerfile: Path) -> None:
    last = instructions(dockerfile)
    assert [text for text in last if re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", text)]
    assert [text for text in last if text.startswith("HEALTHCHECK ")]
    for label in ("source", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{label}=" in "".join(last)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_pip_is_told_stays_in_the_build(dockerfile: Path) -> None:
    stages = re.split(r"^FROM .*$", dockerfile.read_text(), flags=re.MULTILINE)[1:]
    assert "ARG PIP_INDEX_URL" in stages[0]
    assert not any("PIP_" in stage for stage in stages[1:])


def test_everything_that_is_copied_is_in_the_context() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    taken = {rule[1:] for rule in rules if rule.startswith("!")}
    for dockerfile in DOCKERFILES:
        for instruction in instructions(dockerfile):
            if instruction.startswith("COPY ") and "--from=" not in instruction:
                for source in instruction.split()[1:-1]:
                    assert (ROOT / source).exists(), source
                    assert any(source == place or source.startswith(f"{place}/") for place in taken), source
    assert not taken & {"tests", ".env", ".git", ".venv", ".devpocket"}


@pytest.mark.timeout(300)
def test_an_image_holds_the_code_of_its_service_and_starts_with_it(tmp_path: Path) -> None:
    runs = {}
    for name, program in PROGRAMS.items():
        folder = assembled(name, tmp_path / name)
        code = {path.name for path in (folder / "services").iterdir() if path.is_dir()}
        assert code == ({name} if name in SERVICES else set(SERVICES))
        assert (folder / "libs" / "cli").exists() == (name == "cli")
        assert (folder / "libs" / "runtime").exists() == (name in ("orchestrator", "terminal", "cli"))
        runs[name] = start(f"{program}, libs.common; print(libs.common.__file__)", folder)
    for name, run in runs.items():
        output, _ = run.communicate(timeout=240)
        assert run.returncode == 0, f"{name}: {output}"
        assert output.splitlines()[-1].startswith(str(tmp_path / name)), "it ran with the code of the working copy"


def test_an_unknown_service_is_refused_with_the_names_that_are_known(tmp_path: Path) -> None:
    refused = subprocess.run(
        [SCRIPTS / "assemble.sh", "billing", ROOT, tmp_path], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "auth|envs|orchestrator|terminal|cli" in refused.stderr


def test_the_driver_works_with_what_is_left_of_the_kubernetes_client(tmp_path: Path) -> None:
    spec = find_spec("kubernetes")
    assert spec is not None
    assert spec.origin is not None
    copy = tmp_path / "kubernetes"
    shutil.copytree(Path(spec.origin).parent, copy, copy_function=os.link, ignore=shutil.ignore_patterns("__pycache__"))
    before = sum(file.stat().st_size for file in copy.rglob("*.py"))
    subprocess.run([SCRIPTS / "trim_packages.sh", tmp_path], check=True)
    assert sum(file.stat().st_size for file in copy.rglob("*.py")) < before / 10
    run = start(KUBERNETES, tmp_path)
    output, _ = run.communicate(timeout=60)
    assert (run.returncode, output.splitlines()[-1]) == (0, str(copy / "__init__.py")), output
