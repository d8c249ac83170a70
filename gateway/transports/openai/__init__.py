"""OpenAI's interface: its requests, its shapes, its routes."""
