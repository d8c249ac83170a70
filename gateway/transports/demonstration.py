"""What the page may do to the engine while it is shown to somebody. Not there otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.routing import Route

from gateway.backends.base import Demonstrable
from gateway.config import MAX_VERIFY_DELAY_MS
from gateway.errors import BackendError
from gateway.responses import json_response
from gateway.transports.requests import gateway_of
from protocol.refusals import malformed, refusal

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from gateway.backends.base import Backend
    from gateway.config import DemonstrationConfig


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    verify_delay_ms: Annotated[float, Meta(ge=0.0, le=MAX_VERIFY_DELAY_MS)]
    """How long every step pauses before it verifies its drafts, as a larger target would."""


class PaceNow(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/demonstration` answers."""

    verify_delay_ms: float
    most: float = MAX_VERIFY_DELAY_MS
    """The longest pause that may be asked for."""


def is_on(config: DemonstrationConfig, backend: Backend) -> bool:
    """Only a backend with an engine can be demonstrated."""
    return config.enabled and isinstance(backend, Demonstrable)


def routes(config: DemonstrationConfig, backend: Backend) -> list[Route]:
    """One that says that there is nothing, unless a backend with an engine is demonstrated."""
    if not isinstance(backend, Demonstrable) or not is_on(config, backend):
        return [Route("/v1/demonstration", nothing)]

    async def pace(request: Request) -> ASGIApp:
        if request.method == "PUT":
            backend.slow_verification(_read(await request.body()).verify_delay_ms)
        body = PaceNow(verify_delay_ms=backend.verify_delay_ms)
        return json_response(body, headers={"Cache-Control": "no-store"})

    async def kill_engine(request: Request) -> ASGIApp:
        """Refused while there is no engine; what ends is started again by its supervisor."""
        if not gateway_of(request).ready:
            raise BackendError("there is no engine running; it is being started", retryable=True)
        backend.kill_engine()
        return Response(status_code=204)

    return [
        Route("/v1/demonstration", pace, methods=["GET", "PUT"]),
        Route("/v1/demonstration/kill", kill_engine, methods=["POST"]),
    ]


async def nothing(_request: Request) -> ASGIApp:
    """A page asks this as a matter of course: no error for its console."""
    return Response(status_code=204)


def _read(body: bytes) -> Pace:
    """Raises RequestError naming the field."""
    try:
        return msgspec.json.decode(body, type=Pace)
    except msgspec.ValidationError as error:
        raise refusal(error, msgspec.json.decode(body), Pace, "the body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error, body) from None
