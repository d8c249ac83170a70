"""Transports: the same events over SSE, WebSocket and OpenAI's interface."""
