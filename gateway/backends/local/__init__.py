"""Tokens from an engine of our own, in a process of its own."""

from gateway.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
