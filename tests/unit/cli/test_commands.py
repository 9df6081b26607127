"""The command line itself, and the commands that services contribute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from libs.cli.events.listing import as_line
from libs.cli.events.options import parse_since
from libs.cli.main import app
from libs.cli.plugins import add_plugin, take_data_dir
from libs.cli.stack.paths import StackPaths, write_private
from libs.cli.stack.processes import identify
from libs.cli.stack.state import StackState, State, save_state

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def a_running_stack(data_dir: Path) -> None:
    me = identify(os.getpid())
    assert me is not None
    paths = StackPaths.of(data_dir)
    paths.create()
    save_state(paths.state, StackState("http://x", 1, State.RUNNING, me))
    write_private(paths.environment, json.dumps({"MONGODB_URL": "mongodb://stack", "DATABASE_NAME": "stack"}))


class TestHelp:
    def test_commands_are_listed(self) -> None:
        result = CliRunner().invoke(app, ["--help"])
        assert result.exit_code == 0
        for name in ("up", "down", "status", "events"):
            assert f"\n  {name} " in result.output

    def test_help_loads_no_server_library(self) -> None:
        heavy = ("fastapi", "nats", "pymongo", "rich", "jinja2")
        code = f"import sys, libs.cli.main; print([name for name in {heavy} if name in sys.modules])"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.strip() == "[]"


class TestSince:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("30s", NOW - timedelta(seconds=30)),
            ("10m", NOW - timedelta(minutes=10)),
            ("2h", NOW - timedelta(hours=2)),
            ("7d", NOW - timedelta(days=7)),
            ("2026-11-01T10:00:00Z", datetime(2026, 11, 1, 10, tzinfo=UTC)),
            ("2026-11-01T10:00:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ],
    )
    def test_forms(self, text: str, expected: datetime) -> None:
        assert parse_since(text, NOW) == expected

    def test_nonsense_ends_with_2(self) -> None:
        with pytest.raises(typer.Exit) as raised:
            parse_since("yesterday")
        assert raised.value.exit_code == 2


def test_an_event_as_a_line() -> None:
    line = as_line({"sequence": 7, "time": "T", "type": "devpocket.env.created.v1", "subject": "e1", "actor": "u1"})
    assert line.split() == ["7", "T", "devpocket.env.created.v1", "e1", "by", "u1"]


class TestPlugins:
    """The plug-in of these tests is this module's `plugin`."""

    def host(self, value: str) -> typer.Typer:
        host = typer.Typer(rich_markup_mode=None)
        host.callback()(lambda: None)
        add_plugin(host, EntryPoint("things", value, "devpocket.commands"))
        return host

    def run(self, value: str, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(self.host(value), ["things", *arguments])
        return result.exit_code, result.output

    def test_it_gets_its_arguments_and_the_stacks_settings(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MONGODB_URL", raising=False)
        monkeypatch.setenv("DATABASE_NAME", "mine")
        a_running_stack(tmp_path)
        code, output = self.run(f"{__name__}:plugin", "show", "--json", "--data-dir", str(tmp_path), "word")
        assert (code, output) == (0, "word True mongodb://stack mine\n")

    def test_settings_that_say_where_to_go_are_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MONGODB_URL", "mongodb://mine")
        monkeypatch.setenv("NATS_URL", "nats://mine")
        a_running_stack(tmp_path)
        _, output = self.run(f"{__name__}:plugin", "show", "word", f"--data-dir={tmp_path}")
        assert "mongodb://mine" in output

    def test_without_a_stack_it_says_so_and_goes_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MONGODB_URL", "mongodb://mine")
        monkeypatch.delenv("NATS_URL", raising=False)
        code, output = self.run(f"{__name__}:plugin", "show", "word", "--data-dir", str(tmp_path))
        assert code == 0
        assert "no stack runs" in output

    def test_its_help_is_its_own(self) -> None:
        code, output = self.run(f"{__name__}:plugin", "--help")
        assert code == 0
        assert "Shows what it was given." in output

    @pytest.mark.parametrize("value", ["no.such.module:app", f"{__name__}:nothing", f"{__name__}:NOW"])
    def test_a_broken_one_says_so_when_used_and_breaks_nothing_else(self, value: str) -> None:
        assert CliRunner().invoke(self.host(value), ["--help"]).exit_code == 0
        code, output = self.run(value, "show")
        assert code == 1
        assert "'things'" in output

    def test_an_option_without_its_folder_is_refused(self) -> None:
        with pytest.raises(typer.Exit):
            take_data_dir(["list", "--data-dir"])


plugin = typer.Typer(rich_markup_mode=None)


@plugin.callback()
def _plugin() -> None:
    """A plug-in."""


@plugin.command()
def show(word: str, as_json: bool = typer.Option(False, "--json")) -> None:
    """Shows what it was given."""
    typer.echo(f"{word} {as_json} {os.environ.get('MONGODB_URL')} {os.environ.get('DATABASE_NAME')}")
