"""What users wrote and what they were answered, in the log. Only where `log.texts` asks for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.streams import Stream
    from protocol.requests import GenerationRequest

logger = logging.getLogger("wetink.texts")


class TextLog:
    """A `StreamObserver`."""

    def stream_started(self, stream: Stream, request: GenerationRequest) -> None:
        asked = (
            request.prompt if request.messages is None else msgspec.to_builtins(request.messages)
        )
        self._log("a prompt", stream, asked)

    def stream_ended(self, stream: Stream) -> None:
        parts = [part.committed_text() for part in stream.ledger.parts]
        self._log("an answer", stream, parts[0] if len(parts) == 1 else parts)

    def _log(self, what: str, stream: Stream, text: object) -> None:
        logger.info("%s", what, extra={"fields": {**stream.log_fields, "text": text}})
