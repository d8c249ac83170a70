"""Asking a server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.peers.base import Answer, PeerError
from benchmarks.peers.http import post

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.base import Request


async def ask_all(port: int, model: str, requests: Sequence[Request]) -> list[Answer]:
    return await asyncio.gather(*(ask(port, model, request) for request in requests))


async def ask(port: int, model: str, request: Request) -> Answer:
    """Raises PeerError."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": request.content}],
        "max_tokens": request.max_tokens,
        "ignore_eos": request.ignore_eos,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    exchange = await post(port, "/v1/chat/completions", body)
    text, first_s, usage = "", None, None
    for at_s, data in exchange.events:
        usage = data.get("usage") or usage
        for choice in data.get("choices", ()):
            if content := choice["delta"].get("content"):
                first_s = at_s if first_s is None else first_s
                text += content
    if usage is None:
        raise PeerError(f"an answer ended without usage: {exchange.events[-1:]}")
    return Answer(
        text=text,
        prompt_tokens=usage["prompt_tokens"],
        tokens=usage["completion_tokens"],
        first_s=exchange.total_s if first_s is None else first_s,
        total_s=exchange.total_s,
    )
