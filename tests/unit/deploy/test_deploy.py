"""deploy/scripts/deploy.sh: what it asks for first, what it waits for, and how it goes back."""

from __future__ import annotations

import pytest

from tests.unit.deploy.manifests import KUBERNETES
from tests.unit.deploy.scripts import Cluster

DEPLOYMENTS = ["auth", "envs", "orchestrator", "terminal", "gateway"]
WORKLOADS = [f"statefulset/{name}" for name in ("mongodb", "nats", "redis")] + [f"deployment/{n}" for n in DEPLOYMENTS]


@pytest.fixture(autouse=True)
def no_litter() -> object:
    """A release leaves nothing in the repository."""
    yield
    assert not list((KUBERNETES / "overlays").glob(".release*"))


@pytest.fixture
def ready(cluster: Cluster) -> Cluster:
    """With a Secret."""
    cluster.run("update-secrets.sh")
    return cluster


def waited_for(cluster: Cluster) -> list[str]:
    """Which workloads the script has waited for."""
    return [call[4] for call in cluster.state["calls"] if call[2:4] == ["rollout", "status"]]


def test_a_version_is_applied_and_waited_for(ready: Cluster) -> None:
    done = ready.run("deploy.sh", "1.2.3")
    assert done.returncode == 0, done.stderr
    assert ready.images == {name: f"devpocket-{name}:1.2.3" for name in DEPLOYMENTS}
    assert waited_for(ready) == WORKLOADS
    assert done.stdout.endswith("• 1.2.3 is deployed\n")


def test_images_come_from_a_registry_where_told(ready: Cluster) -> None:
    done = ready.run("deploy.sh", "--overlay", "dev", "7", IMAGE_PREFIX="registry.example.org:5000/dev")
    assert done.returncode == 0, done.stderr
    assert ready.images["auth"] == "registry.example.org:5000/dev/devpocket-auth:7"


def test_without_a_version_the_overlay_counts(ready: Cluster) -> None:
    assert ready.run("deploy.sh").returncode == 0
    assert ready.images["auth"] == "devpocket-auth:latest"


def test_a_version_that_does_not_come_up_is_taken_back_and_explained(ready: Cluster) -> None:
    ready.run("deploy.sh", "1")
    ready.change(broken=["devpocket-orchestrator:2"])
    done = ready.run("deploy.sh", "2")
    assert done.returncode == 1
    assert ready.images == {name: f"devpocket-{name}:1" for name in DEPLOYMENTS}
    for words in (
        "deployment/orchestrator does not come up",
        "ImagePullBackOff",
        "the last words",
        "2 was not deployed",
    ):
        assert words in done.stderr
    assert "orchestrator is back at what it was" in done.stdout
    gateway = ready.state["deployments"]["gateway"]["templates"]
    assert gateway == ["devpocket-gateway:1"], "what comes after the failure is not touched"


def test_services_wait_for_their_servers(ready: Cluster) -> None:
    ready.change(broken=["mongodb"])
    done = ready.run("deploy.sh", "1")
    assert done.returncode == 1
    assert (waited_for(ready), ready.images) == (["statefulset/mongodb"], {})


def test_a_first_version_that_does_not_come_up_is_left_to_look_at(ready: Cluster) -> None:
    ready.change(broken=["devpocket-auth:1"])
    done = ready.run("deploy.sh", "1")
    assert done.returncode == 1
    assert "nothing to go back to" in done.stderr
    assert ready.images["auth"] == "devpocket-auth:1"


def test_what_the_cluster_refuses_is_not_applied(ready: Cluster) -> None:
    ready.change(refuses=True)
    done = ready.run("deploy.sh", "1")
    assert done.returncode == 1
    assert "nothing was changed" in done.stderr
    assert ready.images == {}


def test_the_namespace_has_to_be_there(cluster: Cluster) -> None:
    done = cluster.run("deploy.sh", "1")
    assert (done.returncode, cluster.images) == (1, {})
    assert "update-secrets.sh makes it" in done.stderr


def test_the_secret_has_to_be_there(cluster: Cluster) -> None:
    cluster.change(namespace=True)
    done = cluster.run("deploy.sh", "1")
    assert (done.returncode, cluster.images) == (1, {})
    assert "update-secrets.sh" in done.stderr


def test_the_secret_has_to_be_complete(ready: Cluster) -> None:
    ready.change(secret={name: value for name, value in ready.state["secret"].items() if name != "NATS_PASSWORD"})
    done = ready.run("deploy.sh", "1")
    assert (done.returncode, ready.images) == (1, {})
    assert "lacks NATS_PASSWORD:" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["1 2"], ["1", "2"], ["--overlay"], ["--overlay", "staging"], ["--force"], ["a/b"]]
)
def test_what_makes_no_sense_is_said_before_anything_else(cluster: Cluster, arguments: list[str]) -> None:
    done = cluster.run("deploy.sh", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("deploy: ")
    assert cluster.state["calls"] == []
