"""OpenAI's interface: committed text, in the shapes its clients know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from gateway.errors import BackendError
from gateway.transports.openai.answers import Chunks, Whole
from gateway.transports.openai.choices import Choices
from gateway.transports.openai.errors import refused
from gateway.transports.openai.models import list_models, retrieve_model
from gateway.transports.openai.requests import (
    decode_chat,
    decode_completion,
    from_chat,
    from_completion,
    in_openai_words,
)
from gateway.transports.openai.responses.routes import create_response
from gateway.transports.openai.shapes import ChatShape, CompletionShape
from gateway.transports.requests import gateway_of, principal_of, while_connected
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from gateway.transports.openai.requests import Wanted
    from gateway.transports.openai.shapes import Shape

REQUEST_HEADERS = (
    "Idempotency-Key",
    "OpenAI-Beta",
    "OpenAI-Organization",
    "OpenAI-Project",
    "X-Stainless-Arch",
    "X-Stainless-Async",
    "X-Stainless-Custom-Poll-Interval",
    "X-Stainless-Helper-Method",
    "X-Stainless-Lang",
    "X-Stainless-OS",
    "X-Stainless-Package-Version",
    "X-Stainless-Poll-Helper",
    "X-Stainless-Raw-Response",
    "X-Stainless-Read-Timeout",
    "X-Stainless-Retry-Count",
    "X-Stainless-Runtime",
    "X-Stainless-Runtime-Version",
    "X-Stainless-Timeout",
)
"""What OpenAI's libraries send; in a browser they must be allowed to (CORS)."""

NOT_OFFERED = (
    "/v1/assistants",
    "/v1/audio",
    "/v1/batches",
    "/v1/conversations",
    "/v1/embeddings",
    "/v1/files",
    "/v1/fine_tuning",
    "/v1/images",
    "/v1/moderations",
    "/v1/realtime",
    "/v1/threads",
    "/v1/uploads",
    "/v1/vector_stores",
    "/v1/videos",
)
"""OpenAI's other resources, refused by name."""
_OFFERED = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/responses")
_ANY_METHOD = ["GET", "POST", "DELETE", "PUT", "PATCH"]


async def chat_completions(request: Request) -> ASGIApp:
    wanted = decode_chat(await request.body())
    context = gateway_of(request).model(wanted.model, principal_of(request)).context_length
    return await _answer(request, from_chat(wanted, context), ChatShape())


async def completions(request: Request) -> ASGIApp:
    wanted = decode_completion(await request.body())
    context = gateway_of(request).model(wanted.model, principal_of(request)).context_length
    return await _answer(request, from_completion(wanted, context), CompletionShape())


async def _answer(request: Request, wanted: Wanted, shape: Shape) -> ASGIApp:
    gateway = gateway_of(request)
    connection = gateway.connection(request.scope)
    try:
        choices = await while_connected(request, Choices.start(gateway, connection, wanted))
    except RequestError as error:
        raise in_openai_words(error) from None
    kind = Chunks if wanted.streaming else Whole
    return kind(choices, wanted, shape, int(gateway.wall_clock()))


async def not_offered(request: Request) -> ASGIApp:
    path = request.url.path[:80]
    raise RequestError(
        ErrorCode.NOT_FOUND,
        f"{path} is not offered here; {', '.join(_OFFERED)} are",
    )


def _openai_errors(
    endpoint: Callable[[Request], Awaitable[ASGIApp]],
) -> Callable[[Request], Awaitable[ASGIApp]]:
    """Refusals in OpenAI's shape."""

    async def answered(request: Request) -> ASGIApp:
        try:
            return await endpoint(request)
        except (RequestError, BackendError) as error:
            return refused(error)

    return answered


def owns(path: str) -> bool:
    """Whether OpenAI's clients ask there, and understand OpenAI's answers only."""
    return any(path == each or path.startswith(f"{each}/") for each in (*_OFFERED, *NOT_OFFERED))


def routes() -> list[Route]:
    return [
        Route("/v1/chat/completions", _openai_errors(chat_completions), methods=["POST"]),
        Route("/v1/completions", _openai_errors(completions), methods=["POST"]),
        Route("/v1/responses", _openai_errors(create_response), methods=["POST"]),
        Route("/v1/models", _openai_errors(list_models)),
        Route("/v1/models/{model:path}", _openai_errors(retrieve_model)),
        *(
            Route(path + rest, _openai_errors(not_offered), methods=_ANY_METHOD)
            for path in NOT_OFFERED
            for rest in ("", "/{rest:path}")
        ),
    ]
