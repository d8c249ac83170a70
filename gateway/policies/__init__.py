"""Policies: who sees what of the ledger, and when."""

from gateway.policies.resolve import SpecPolicy, resolve_policy

__all__ = ["SpecPolicy", "resolve_policy"]
