"""What an upstream's `/v1/models` says."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from gateway.errors import BackendError
from protocol.codec import MALFORMED

UNKNOWN_CONTEXT_LENGTH = 131_072
"""For models whose context is told nowhere."""


class _Meta(msgspec.Struct):
    n_ctx: int | None = None
    n_ctx_train: int | None = None


class _Model(msgspec.Struct):
    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    context_length: int | None = None
    context_window: int | None = None
    meta: _Meta | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class Served(NamedTuple):
    """A model an upstream serves."""

    id: str
    owner: str | None
    context_length: int | None
    """In tokens, where it says so."""


def served(upstream: str, body: bytes) -> list[Served]:
    """Raises BackendError for what is no list of models."""
    try:
        models = msgspec.json.decode(body, type=_Models)
    except MALFORMED as error:
        raise BackendError(
            f"upstream {upstream}: its /models is no list of models: {error}"
        ) from None
    return [Served(each.id, each.owned_by, _context_length(each)) for each in models.data]


def _context_length(model: _Model) -> int | None:
    """By vLLM's and SGLang's name, by Wetink's and OpenRouter's, by Groq's, by llama.cpp's."""
    meta = model.meta or _Meta()
    told = (
        model.max_model_len,
        model.context_length,
        model.context_window,
        meta.n_ctx,
        meta.n_ctx_train,
    )
    return next((length for length in told if length), None)
