"""deploy/scripts/update-secrets.sh: what it makes, keeps, refuses, and never shows."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.unit.deploy.manifests import Release
from tests.unit.deploy.scripts import Cluster

SERVICES = [f"deployment/{name}" for name in ("auth", "envs", "orchestrator", "terminal")]


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """Where an operator writes secrets down."""
    return tmp_path / "secrets.env"


def with_workloads(cluster: Cluster) -> None:
    """As after a deployment."""
    cluster.change(
        deployments={name.partition("/")[2]: {"templates": ["image"]} for name in SERVICES},
        statefulsets=["mongodb", "nats", "redis"],
    )


def test_without_a_file_everything_that_is_needed_is_made(cluster: Cluster) -> None:
    done = cluster.run("update-secrets.sh")
    assert done.returncode == 0, done.stderr
    assert len(cluster.secret["SECRET_KEY"]) >= 32
    assert len({cluster.secret[f"{name}_PASSWORD"] for name in ("MONGODB", "NATS", "REDIS")}) == 3
    assert cluster.state["namespace"]


def test_urls_lead_to_the_servers_in_the_cluster(cluster: Cluster, production: Release) -> None:
    cluster.run("update-secrets.sh")
    for name in ("MONGODB", "NATS", "REDIS"):
        url = urlsplit(cluster.secret[f"{name}_URL"])
        service = production.one("Service", str(url.hostname).rpartition(".")[2])
        assert [port["port"] for port in service["spec"]["ports"]] == [url.port]
        assert url.password == cluster.secret[f"{name}_PASSWORD"]


def test_a_second_run_changes_and_restarts_nothing(cluster: Cluster) -> None:
    cluster.run("update-secrets.sh")
    before = cluster.secret
    with_workloads(cluster)
    done = cluster.run("update-secrets.sh")
    assert (cluster.secret, cluster.state["restarted"]) == (before, [])
    assert "nothing has changed" in done.stdout


def test_values_come_from_the_file_as_env_files_have_them(cluster: Cluster, env_file: Path) -> None:
    env_file.write_text(
        "# comment\n"
        'SMTP_URL="smtps://me:pass#word@smtp.example.com"\n'
        "ADMIN_EMAIL=admin@example.com  # the first one\n"
        "export ADMIN_PASSWORD='with $signs and spaces'\n"
        "NATS_URL=nats://a:b@one:4222,nats://a:b@two:4222\n"
        "LOG_LEVEL=DEBUG"
    )
    done = cluster.run("update-secrets.sh", str(env_file))
    assert done.returncode == 0, done.stderr
    given = {
        "SMTP_URL": "smtps://me:pass#word@smtp.example.com",
        "ADMIN_EMAIL": "admin@example.com",
        "ADMIN_PASSWORD": "with $signs and spaces",
        "NATS_URL": "nats://a:b@one:4222,nats://a:b@two:4222",
    }
    assert given.items() <= cluster.secret.items()
    assert "LOG_LEVEL" not in cluster.secret
    assert "LOG_LEVEL is no secret" in done.stdout


def test_no_value_is_shown_or_in_a_command_line(cluster: Cluster, env_file: Path) -> None:
    env_file.write_text("ADMIN_PASSWORD=Analytical1843\n")
    with_workloads(cluster)
    done = cluster.run("update-secrets.sh", str(env_file))
    told = done.stdout + done.stderr + str(cluster.state["calls"])
    assert done.returncode == 0
    assert "ADMIN_PASSWORD" in told
    assert not [name for name, value in cluster.secret.items() if value in told]


def test_a_new_password_reaches_its_server_first_and_then_the_services(cluster: Cluster, env_file: Path) -> None:
    cluster.run("update-secrets.sh")
    with_workloads(cluster)
    env_file.write_text("REDIS_PASSWORD=another-one\n")
    done = cluster.run("update-secrets.sh", str(env_file))
    assert done.returncode == 0, done.stderr
    assert cluster.secret["REDIS_URL"] == "redis://:another-one@redis:6379/0"
    assert cluster.state["restarted"] == ["statefulset/redis", *SERVICES]


def test_mongodb_is_told_its_new_password(cluster: Cluster, env_file: Path) -> None:
    cluster.run("update-secrets.sh")
    with_workloads(cluster)
    cluster.change(mongodb=cluster.secret["MONGODB_PASSWORD"])
    env_file.write_text("MONGODB_PASSWORD=another-one\n")
    done = cluster.run("update-secrets.sh", str(env_file))
    assert done.returncode == 0, done.stderr
    assert cluster.state["mongodb"] == cluster.secret["MONGODB_PASSWORD"] == "another-one"
    assert cluster.state["restarted"] == ["statefulset/mongodb", *SERVICES]
    assert "another-one" not in str(cluster.state["calls"]) + done.stdout + done.stderr


def test_a_server_elsewhere_stays_when_a_password_changes(cluster: Cluster, env_file: Path) -> None:
    env_file.write_text("REDIS_URL=rediss://:x@cache.example.com:6380/0\n")
    cluster.run("update-secrets.sh", str(env_file))
    env_file.write_text("REDIS_PASSWORD=another-one\n")
    cluster.run("update-secrets.sh", str(env_file))
    assert cluster.secret["REDIS_URL"] == "rediss://:x@cache.example.com:6380/0"


def test_an_optional_one_is_removed_by_an_empty_value(cluster: Cluster, env_file: Path) -> None:
    env_file.write_text("SMTP_URL=smtps://smtp.example.com\n")
    cluster.run("update-secrets.sh", str(env_file))
    env_file.write_text("SMTP_URL=\n")
    done = cluster.run("update-secrets.sh", str(env_file))
    assert "SMTP_URL: removed" in done.stdout
    assert "SMTP_URL" not in cluster.secret


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("SECRET_KEY=" + "k" * 40, "could not be read any more"),
        ("SECRET_KEY=short", "at least 32"),
        ("NATS_PASSWORD=1234", "begin with a letter"),
        ("REDIS_PASSWORD=with@sign", "begin with a letter"),
        ("MONGODB_PASSWORD=another-one", "MongoDB did not take its new password"),
    ],
)
def test_what_would_break_the_installation_is_refused(cluster: Cluster, env_file: Path, line: str, words: str) -> None:
    cluster.run("update-secrets.sh")
    before = cluster.secret
    with_workloads(cluster)
    env_file.write_text(line)
    done = cluster.run("update-secrets.sh", str(env_file))
    assert done.returncode == 1
    assert words in done.stderr
    assert (cluster.secret, cluster.state["restarted"]) == (before, [])


def test_a_file_that_is_not_there_changes_nothing(cluster: Cluster, env_file: Path) -> None:
    assert cluster.run("update-secrets.sh", str(env_file)).returncode == 1
    assert cluster.state["calls"] == []
