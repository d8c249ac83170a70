"""One OpenTelemetry span per generation, with the attributes of the GenAI conventions.

The extra `otel`; only where `telemetry.traces` asks for it. The conventions are still in
development; their names are written out here, as the package that lists them is not stable either.
Prompts, answers and ids of streams are left out.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import request_ids
from protocol.ledger import Completed, Failed

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from gateway.streams import Stream
    from protocol.requests import GenerationRequest

PROVIDER = "wetink"


def to_collector() -> Traces:
    """Spans go by OTLP to where the `OTEL_…` variables say."""
    name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": PROVIDER}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)


class Traces:
    """A `StreamObserver`. Holds a span for each live stream."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("wetink")
        self._propagator = TraceContextTextMapPropagator()
        self._spans: dict[str, Span] = {}

    def stream_started(self, stream: Stream, request: GenerationRequest) -> None:
        operation = "text_completion" if request.messages is None else "chat"
        span = self._tracer.start_span(
            f"{operation} {stream.model}",
            # A call to a model, which runs in a process of its own.
            kind=SpanKind.CLIENT,
            context=self._propagator.extract(request_ids.trace_headers()),
            attributes=_asked(operation, stream, request),
            start_time=time.time_ns() - round(stream.age_s * 1e9),
        )
        self._spans[stream.id] = span
        if stream.ended:
            self.stream_ended(stream)

    def stream_ended(self, stream: Stream) -> None:
        span = self._spans.pop(stream.id, None)
        if span is None:
            return  # so soon that it has not been told of as started
        match stream.ledger.ending:
            case Completed() as completed:
                span.set_attributes(_answered(stream, completed))
            case Failed(code=code, message=message):
                span.set_attribute("error.type", code)
                span.set_status(Status(StatusCode.ERROR, message))
            case None:
                raise AssertionError("it has ended")
        span.end()

    def close(self) -> None:
        """Sends what has not been sent. Blocks for as long as the exporter does."""
        self._provider.shutdown()


def _asked(operation: str, stream: Stream, request: GenerationRequest) -> dict[str, AttributeValue]:
    """What the request says about the text, as far as it says it."""
    given: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": stream.model,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.seed": stream.seed,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.top_k": request.top_k,
        "gen_ai.request.frequency_penalty": request.frequency_penalty or None,
        "gen_ai.request.presence_penalty": request.presence_penalty or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _answered(stream: Stream, completed: Completed) -> dict[str, AttributeValue]:
    usage = completed.usage
    return {
        "gen_ai.response.model": stream.model,
        "gen_ai.response.finish_reasons": [completed.reason],
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "wetink.drafted_tokens": usage.drafted_tokens,
        "wetink.accepted_tokens": usage.accepted_tokens,
        "wetink.verification_steps": completed.steps,
    }
