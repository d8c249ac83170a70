"""How events reach a stream: SSE over HTTP, or one WebSocket for many streams."""
