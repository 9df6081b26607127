from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from libs.runtime.local.records import ExitRecord, RunRecord, load_exit, load_run, load_spec, save_spec
from tests.runtime_contract.workspaces import make_spec

RUN = RunRecord(
    generation=3,
    boot_id="b",
    isolation="root",
    uid=5,
    storage_bytes=1,
    memory_bytes=2,
    cgroups=["/x"],
    network=True,
    shim_pid=10,
    init_pid=11,
    init_start=12,
    main_pid=13,
    started_at=14.5,
)


def test_a_spec_survives_and_is_private(tmp_path: Path) -> None:
    spec = make_spec(variables={"A": "ünï\n'"}, startup_command="echo hi")
    save_spec(tmp_path, spec)
    assert load_spec(tmp_path) == spec
    assert (tmp_path / "spec.json").stat().st_mode & 0o777 == 0o600


def test_a_run_survives_and_unknown_fields_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(asdict(RUN) | {"of_a_later_release": 1}))
    assert load_run(tmp_path) == RUN


def test_an_exit_survives(tmp_path: Path) -> None:
    record = ExitRecord(code=137, reason="OOMKilled", message="m", at=1.0)
    (tmp_path / "exit.json").write_text(json.dumps(asdict(record)))
    assert load_exit(tmp_path) == record


def test_what_is_missing_or_partial_is_nothing(tmp_path: Path) -> None:
    assert (load_spec(tmp_path), load_run(tmp_path), load_exit(tmp_path)) == (None, None, None)
    for name in ("spec", "run", "exit"):
        (tmp_path / f"{name}.json").write_text('{"generation": 1}')
    assert (load_spec(tmp_path), load_run(tmp_path), load_exit(tmp_path)) == (None, None, None)
