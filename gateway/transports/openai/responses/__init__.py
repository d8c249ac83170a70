"""OpenAI's `/v1/responses`: an answer as items, and conversations that the gateway remembers."""
