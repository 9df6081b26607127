"""A fake Kubernetes cluster: README.md in this folder says what it does and how to use it."""

from tests.fakes.kube.access import Call, Rule
from tests.fakes.kube.cluster import FakeCluster, fake_cluster
from tests.fakes.kube.faults import Fault, FaultPlan
from tests.fakes.kube.node.images import Image, workspace_image
from tests.fakes.kube.node.pace import Pace

__all__ = ["Call", "FakeCluster", "Fault", "FaultPlan", "Image", "Pace", "Rule", "fake_cluster", "workspace_image"]
