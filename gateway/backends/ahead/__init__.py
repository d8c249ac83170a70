"""A draft ahead of any upstream: a local engine drafts on while the upstream is slow."""

from gateway.backends.ahead.backend import AheadBackend

__all__ = ["AheadBackend"]
