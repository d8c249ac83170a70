from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway import request_ids
from gateway.access import Principal
from gateway.backends.base import Failed, Finished, Verified
from gateway.config import DeliveryConfig, LimitsConfig
from gateway.streams import StreamRegistry
from gateway.telemetry.traces import Traces
from protocol.requests import GenerationRequest, Message
from tests.server.gateways import hand_served
from tests.unit.gateway.doubles import COUNTS, FakeClock, HandBackend

if TYPE_CHECKING:
    from collections.abc import Generator

    from opentelemetry.sdk.trace import ReadableSpan

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Traced:
    """A registry whose streams are traced into memory."""

    def __init__(self) -> None:
        self.backend = HandBackend()
        self.clock = FakeClock()
        self.registry = StreamRegistry(
            self.backend, self.clock, epoch=1, limits=LimitsConfig(), delivery=DeliveryConfig()
        )
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.registry.observers.append(Traces(provider))
        self.owner = Principal.unbounded(self.clock.now)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


async def test_generation_is_a_span_under_the_trace_of_its_request() -> None:
    traced = Traced()
    request_ids.begin({"traceparent": f"00-{TRACE}-{PARENT}-01"})
    messages = [Message(role="user", content="a secret")]
    request = GenerationRequest(messages=messages, model="hand", seed=7, temperature=0.5)
    stream = await traced.registry.start(request, traced.owner)
    traced.clock.advance(2.0)
    traced.backend.say(Verified("an answer"))
    assert traced.spans == ()
    traced.backend.say(Finished("stop", COUNTS))
    [span] = traced.spans
    assert (span.name, span.kind) == ("chat hand", SpanKind.CLIENT)
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT
    assert f"{span.context.trace_id:032x}" == TRACE  # type: ignore[union-attr]
    attributes = dict(span.attributes or {})
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "wetink",
        "gen_ai.request.model": "hand",
        "gen_ai.request.max_tokens": 256,
        "gen_ai.request.seed": 7,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "hand",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": COUNTS.prompt,
        "gen_ai.usage.cache_read.input_tokens": COUNTS.cached_prompt,
        "gen_ai.usage.output_tokens": COUNTS.completion,
        "wetink.drafted_tokens": COUNTS.drafted,
        "wetink.accepted_tokens": COUNTS.accepted,
        "wetink.verification_steps": COUNTS.steps,
    }
    said = span.to_json()
    assert not any(private in said for private in (stream.id, "secret", "answer"))


async def test_generation_that_fails_is_a_span_with_its_code() -> None:
    traced = Traced()
    await traced.registry.start(GenerationRequest(prompt="x", model="hand", seed=1), traced.owner)
    traced.backend.say(Failed("engine_failed", "it broke"))
    [span] = traced.spans
    assert span.name == "text_completion hand"
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "engine_failed"


async def test_span_begins_when_its_request_came() -> None:
    traced = Traced()
    traced.backend.admits.clear()
    starting = asyncio.create_task(
        traced.registry.start(GenerationRequest(prompt="x", model="hand", seed=1), traced.owner)
    )
    await traced.backend.waiting.get()
    traced.clock.advance(3.0)
    traced.backend.admits.set()
    await starting
    traced.backend.say(Finished("stop"))
    [span] = traced.spans
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time >= 3e9


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Generator[list[bytes]]:
    """Takes what is exported by OTLP over HTTP."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield received
    server.shutdown()
    thread.join()
    server.server_close()


async def test_gateway_sends_its_spans_to_a_collector(collector: list[bytes]) -> None:
    async with hand_served(telemetry__traces=True) as served:
        await served.start(prompt="a secret")
        served.backend.say(Verified("an answer"), Finished("stop"))
    sent = b"".join(collector)
    assert b"text_completion hand" in sent
    assert b"wetink" in sent
    assert b"secret" not in sent
