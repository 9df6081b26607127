"""What the driver asks of a cluster shows in the trace of whoever asked for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from libs.runtime import tracing
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from tests.fakes.kube import FakeCluster
from tests.fakes.kube.node.images import Image
from tests.fakes.kube.node.sandbox import bubblewrap
from tests.runtime_contract.workspaces import Workspaces, make_spec, read_all

pytestmark = pytest.mark.skipif(bubblewrap() is None, reason="needs a root of its own")
_IMAGE = "python:3.12-slim"
_PODS = "/api/v1/namespaces/{namespace}/pods"


async def test_requests_are_spans_below_the_call_without_names_or_commands(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_TRACER", provider.get_tracer("test"))

    cluster.add_image(_IMAGE, Image(entrypoint=(), command=("true",), user=0, knows_user=False))
    ref = await workspaces.start(replace(make_spec(), image=_IMAGE))
    with tracing.runtime_call("exec", ref):
        stream = await runtime.exec(ref, ["echo", "what-a-user-types"], tty=False)
    assert await read_all(stream) == b"what-a-user-types\n"
    await stream.close()
    spans = exporter.get_finished_spans()
    call = next(span for span in spans if span.name == "runtime.exec")
    below = [span for span in spans if span.parent and span.parent.span_id == call.context.span_id]
    assert f"GET {_PODS}/{{name}}/exec" in [span.name for span in below]
    assert {span.kind for span in below} == {SpanKind.CLIENT}
    created = next(span for span in spans if span.name == f"POST {_PODS}")
    assert (created.attributes or {})["http.response.status_code"] == 201
    told = "".join(span.to_json() for span in spans if span is not call)
    assert "what-a-user-types" not in told
    assert ref.user_id not in told
