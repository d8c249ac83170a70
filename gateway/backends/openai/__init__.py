"""Any server with OpenAI's API as a source of text."""

from gateway.backends.openai.backend import OpenAIBackend

__all__ = ["OpenAIBackend"]
