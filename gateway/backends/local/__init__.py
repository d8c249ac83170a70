"""Tokens from an engine of our own, in a process of its own."""

from gateway.backends.local.backend import LocalBackend
from gateway.backends.local.supervisor import RestartPolicy

__all__ = ["LocalBackend", "RestartPolicy"]
