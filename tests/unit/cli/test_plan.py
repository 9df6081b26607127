"""From options and settings to processes."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from libs.cli.stack.credentials import Credentials
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.plan import OptionError, StackOptions, make_plan, parse_scale, without_login
from libs.cli.stack.ports import PortPicker, is_free
from libs.cli.stack.programs import find_program
from libs.cli.stack.settings import SettingError, gateway_limits, operator_settings
from libs.common.settings import CommonSettings


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    made = StackPaths.of(tmp_path / "data")
    made.create()
    return made


class TestScale:
    def test_services_and_numbers(self) -> None:
        assert parse_scale([]) == {}
        assert parse_scale(["terminal=2", "envs=3"]) == {"terminal": 2, "envs": 3}

    @pytest.mark.parametrize(
        "value", ["terminal", "terminal=", "terminal=0", "terminal=17", "terminal=-1", "terminal=x"]
    )
    def test_a_bad_number_is_refused(self, value: str) -> None:
        with pytest.raises(OptionError, match="--scale"):
            parse_scale([value])

    def test_an_unknown_service_is_told_the_known_ones(self) -> None:
        with pytest.raises(OptionError, match="auth, envs, orchestrator, terminal"):
            parse_scale(["gateway=2"])


class TestPorts:
    def test_a_taken_port_is_not_free(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert not is_free(port)
            assert PortPicker().pick(preferred=port) != port
        assert is_free(port)

    def test_each_is_given_once_and_a_former_one_again(self) -> None:
        with closing(PortPicker()) as picker:
            first = picker.pick()
            assert picker.pick(preferred=first) != first
        with closing(PortPicker()) as again:
            assert again.pick(preferred=first) == first
        assert PortPicker(reserved=[first]).pick(preferred=first) != first

    def test_what_one_has_chosen_no_other_chooses_before_it_listens(self) -> None:
        with closing(PortPicker()) as one, closing(PortPicker()) as other:
            assert other.pick(preferred=(port := one.pick())) != port


class TestSettings:
    def test_the_environment_overrules_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text("LOG_LEVEL=DEBUG\nDATABASE_NAME=from_file\nCUSTOM='a b'\n")
        found = operator_settings({"DATABASE_NAME": "from_env", "HOME": "/root", "DEBUG": ""}, file)
        assert found == {"LOG_LEVEL": "DEBUG", "DATABASE_NAME": "from_env", "CUSTOM": "a b", "DEBUG": ""}

    def test_no_file_is_fine(self, tmp_path: Path) -> None:
        assert operator_settings({}, tmp_path / ".env") == {}

    @pytest.mark.parametrize(
        ("operator", "expected"),
        [
            ({}, (100, 1000)),
            ({"GATEWAY_RATE_LIMIT": "7"}, (7, 1000)),
            ({"GATEWAY_RATE_LIMIT": "0", "GATEWAY_CONNECTION_LIMIT": ""}, (0, 1000)),
            ({"GATEWAY_CONNECTION_LIMIT": "0"}, (100, 0)),
            ({"RATE_LIMIT_GLOBAL": ""}, (0, 0)),
            ({"RATE_LIMIT_GLOBAL": "", "GATEWAY_CONNECTION_LIMIT": "50"}, (0, 50)),
        ],
    )
    def test_limits_of_the_gateway(self, operator: dict[str, str], expected: tuple[int, int]) -> None:
        assert gateway_limits(operator, 100, 1000) == expected

    @pytest.mark.parametrize("name", ["GATEWAY_RATE_LIMIT", "GATEWAY_CONNECTION_LIMIT"])
    def test_a_limit_that_is_no_number_is_refused(self, name: str) -> None:
        with pytest.raises(SettingError, match=name):
            gateway_limits({name: "100/minute"}, 100, 1000)


class TestPlan:
    def test_everything_is_planned_with_urls_that_hold_the_credentials(self, paths: StackPaths) -> None:
        credentials = Credentials()
        plan = make_plan(StackOptions(paths, 8123, {"envs": 2}), {}, credentials, {})
        names = [[spec.name for spec in stage.specs] for stage in plan.stages]
        assert names == [
            ["nats", "redis", "mongodb"],
            ["auth", "envs-1", "envs-2", "orchestrator", "terminal"],
            ["gateway"],
        ]
        assert credentials.nats_password in plan.settings["NATS_URL"]
        assert credentials.redis_password in plan.settings["REDIS_URL"]
        assert credentials.mongo_password in plan.settings["MONGODB_URL"]
        is_embedded = find_program("mongod") is None
        assert ("retryWrites=false" in plan.settings["MONGODB_URL"]) is is_embedded
        assert plan.settings["SECRET_KEY"] == credentials.secret_key
        assert plan.settings["LOCAL_RUNTIME_DIR"] == str(paths.runtime)
        auth = plan.stages[1].specs[0]
        assert plan.settings["JWKS_URL"] == f"http://127.0.0.1:{auth.port}/api/v1/auth/.well-known/jwks.json"
        assert auth.environment["MONGODB_URL"] == plan.settings["MONGODB_URL"]
        shown = (
            repr(plan) + str(plan.connections) + " ".join(part for s in plan.stages for p in s.specs for part in p.argv)
        )
        for secret in (credentials.nats_password, credentials.redis_password, credentials.mongo_password):
            assert secret not in shown

    def test_keys_are_asked_of_every_replica_of_auth(self, paths: StackPaths) -> None:
        plan = make_plan(StackOptions(paths, 8123, {"auth": 2}), {}, Credentials(), {})
        ports = [spec.port for spec in plan.stages[1].specs if spec.name.startswith("auth")]
        urls = [f"http://127.0.0.1:{port}/api/v1/auth/.well-known/jwks.json" for port in ports]
        assert plan.settings["JWKS_URL"].split(",") == urls
        assert len(urls) == 2

    def test_what_the_operator_brings_is_not_started(self, paths: StackPaths) -> None:
        brought = {"MONGODB_URL": "mongodb://me:pw@db1,db2/?tls=true", "NATS_URL": "nats://a:b@n1,nats://a:b@n2"}
        plan = make_plan(StackOptions(paths), brought, Credentials(), {})
        assert [spec.name for spec in plan.stages[0].specs] == ["redis"]
        assert plan.settings["MONGODB_URL"] == brought["MONGODB_URL"]
        assert plan.connections["MONGODB_URL"] == "mongodb://db1,db2/?tls=true"
        assert plan.connections["NATS_URL"] == "nats://n1,nats://n2"

    def test_operators_settings_win_over_the_stacks_defaults(self, paths: StackPaths) -> None:
        plan = make_plan(StackOptions(paths), {"LOG_FORMAT": "json", "SECRET_KEY": "mine"}, Credentials(), {})
        assert (plan.settings["LOG_FORMAT"], plan.settings["SECRET_KEY"]) == ("json", "mine")

    def test_an_empty_setting_is_no_choice_except_where_it_means_off(self, paths: StackPaths) -> None:
        credentials = Credentials()
        empty = {"SECRET_KEY": "", "MONGODB_URL": "", "RATE_LIMIT_GLOBAL": ""}
        plan = make_plan(StackOptions(paths), empty, credentials, {})
        assert plan.settings["SECRET_KEY"] == credentials.secret_key
        assert credentials.mongo_password in plan.settings["MONGODB_URL"]
        assert plan.settings["RATE_LIMIT_GLOBAL"] == ""

    def test_with_tls_everything_that_is_a_link_is_https(self, paths: StackPaths) -> None:
        plan = make_plan(StackOptions(paths, 8123, tls=True), {}, Credentials(), {})
        assert plan.certificate is not None
        assert plan.url == plan.settings["PUBLIC_URL"] == "https://127.0.0.1:8123"
        origin = plan.settings["PREVIEW_ORIGIN"]
        assert origin == "https://*.preview.localhost:8123"
        assert urlsplit(origin).hostname in plan.certificate.names
        assert make_plan(StackOptions(paths, 8123), {}, Credentials(), {}).url == "http://127.0.0.1:8123"

    def test_four_services_do_not_fight_for_one_port_of_metrics(self, paths: StackPaths) -> None:
        plan = make_plan(StackOptions(paths), {"METRICS_PORT": "9090"}, Credentials(), {})
        assert plan.settings["METRICS_PORT"] == ""
        assert CommonSettings(_env_file=None, metrics_port=plan.settings["METRICS_PORT"]).metrics_port is None

    def test_ports_of_the_last_start_are_kept(self, paths: StackPaths) -> None:
        first = make_plan(StackOptions(paths), {}, Credentials(), {})
        first.ports.close()
        ports = {spec.name: spec.port for stage in first.stages for spec in stage.specs}
        second = make_plan(StackOptions(paths), {}, Credentials(), ports)
        assert {spec.name: spec.port for stage in second.stages for spec in stage.specs} == ports


def test_a_url_is_shown_without_its_login() -> None:
    assert without_login("redis://:pw@127.0.0.1:1/0") == "redis://127.0.0.1:1/0"
    assert without_login("redis://127.0.0.1:1/0") == "redis://127.0.0.1:1/0"
